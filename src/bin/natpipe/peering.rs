//! Waits: what `listen` and `connect` have in common: a node out of arguments, what people and programs are told of it, and bytes
//! between a peer's pipe and standard input and output.

use std::collections::HashMap;
use std::fmt::Display;
use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use natpipe::key::tls::Allowed;
use natpipe::nat::Proto as Over;
use natpipe::peer::{Event, Node, PathInfo, Peer, StrategyState};
use natpipe::pipe::tls::TlsClient;
use natpipe::pipe::{RecvError, Relay};
use natpipe::{Addr, End, Identity, NetConf, Pipe};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::args::PeerArgs;
use crate::output::{OutputError, remark, say};
use crate::spec::Spec;

/// Bytes of one read of standard input.
const PART: usize = 1 << 16;

/// How long a new path's round trip is awaited before the path is told without it.
const MEASURE: Duration = Duration::from_millis(700);

/// Senders of datagrams that are told apart at one time, and how long a silent one is remembered.
const SENDERS: usize = 256;
const IDLE: Duration = Duration::from_secs(120);

/// A node as the arguments want it.
pub async fn node(args: &PeerArgs, listens: bool, one_time: bool) -> Result<Node> {
    let mut builder = Node::builder().direct_only(args.direct_only).relay_only(args.relay_only).one_time(one_time);
    builder = builder.port_mapping(!args.no_port_mapping);
    builder = builder.multipath(args.multipath.map(Into::into).unwrap_or_default());
    if let Some(seconds) = args.patience {
        builder = builder.patience(Duration::from_secs(seconds));
    }
    builder = builder.lan(args.lan).public_stun(!args.no_public && !args.no_public_stun);
    builder = builder.public_brokers(listens && !args.no_public && !args.no_public_mqtt);
    if let Some(file) = &args.identity {
        builder = builder.identity(Identity::from_file_or_new(file)?);
    }
    if !args.allow.is_empty() {
        builder = builder.allow(Allowed::only(args.allow.iter().copied()));
    }
    for place in &args.via {
        builder = builder.via(place.clone());
    }
    if let Some(file) = &args.ca {
        let roots = std::fs::read_to_string(file).with_context(|| format!("{} can not be read", file.display()))?;
        builder = builder.web_tls(TlsClient::trusting(&roots)?);
    }
    for name in &args.interface {
        builder = builder.interface(name);
    }
    for server in &args.turn {
        builder = builder.turn(server.clone());
    }
    if let Some(proxy) = &args.proxy {
        builder = builder.proxy(proxy.clone());
    }
    for server in &args.stun {
        let found = tokio::net::lookup_host(server.to_string()).await;
        let found = found.with_context(|| format!("the STUN server {server} is not found"))?;
        builder = found.fold(builder, natpipe::peer::Builder::stun);
    }
    Ok(builder.start().await?)
}

/// Bytes that went each way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moved {
    pub sent: u64,
    pub received: u64,
}

pub fn closed(json: bool, moved: Moved) {
    let Moved { sent, received } = moved;
    if json {
        say(json, "", &json!({"event": "closed", "sent": sent, "received": received}));
    }
}

/// The path in use, and every change of it, until the peer is gone; then there is no more to come.
pub async fn tell_paths(peer: Peer, json: bool) {
    let mut paths = peer.paths();
    loop {
        let now = paths.borrow_and_update().clone();
        if let Some(path) = now {
            // The round trip is known one later; a peer that is gone by then was there all the same.
            let measured = async {
                while peer.path().is_some_and(|path| path.rtt.is_none()) {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::select! {
                _ = timeout(MEASURE, measured) => {}
                _ = peer.ended() => {}
            }
            tell_path(&peer.path().unwrap_or(path), json);
        } else if !json {
            remark("the path to the peer is lost, another is looked for");
        }
        tokio::select! {
            changed = paths.changed() => if changed.is_err() { return },
            _ = peer.ended() => return,
        }
    }
}

/// Until everything is told of a peer that is closed: a path that was used for a moment only as well. Who tells holds the peer, so
/// it ends with the set that it is in.
pub async fn last_words(mut told: JoinSet<()>) {
    let _ = timeout(MEASURE, async { while told.join_next().await.is_some() {} }).await;
}

/// Joins a pipe of the peer's with one of this side, until both have ended, and tells what went through.
///
/// # Errors
/// When one of them broke.
pub async fn join(of_peer: Pipe, near: Pipe, spec: &Spec, json: bool) -> Result<()> {
    let (there, _) = Relay::new(of_peer.clone(), near.clone()).wait().await;
    closed(json, Moved { sent: there.bytes_out, received: there.bytes_in });
    unbroken(&near, spec)?;
    unbroken(&of_peer, "the connection to the peer")
}

/// That a pipe which has ended did not break.
///
/// # Errors
/// When it did.
pub fn unbroken(pipe: &Pipe, what: impl Display) -> Result<()> {
    match pipe.end() {
        Some(End::Broken(kind)) => bail!("{what} broke: {kind}"),
        _ => Ok(()),
    }
}

/// Says why one pipe of several came to nothing.
pub fn tell_failure(error: &anyhow::Error, json: bool) {
    let why = format!("{error:#}");
    say(json, &why, &json!({"event": "error", "why": why}));
}

fn tell_path(path: &PathInfo, json: bool) {
    say(json, format_args!("connected: {path}"), &path_event(path));
}

pub fn path_event(path: &PathInfo) -> Value {
    json!({
        "event": "path",
        "kind": path.kind.to_string(),
        "proto": path.proto.to_string().to_lowercase(),
        "local": path.local.map(|addr| addr.to_string()),
        "remote": path.remote.map(|addr| addr.to_string()),
        "rtt_ms": path.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
    })
}

/// The race, as it goes on: for programs, and for a person at a terminal.
pub async fn tell_race(mut events: broadcast::Receiver<Event>, json: bool) {
    let shown = json || std::io::stderr().is_terminal();
    loop {
        match events.recv().await {
            Ok(Event::Strategy { kind, state }) if shown => {
                let (name, why) = match &state {
                    StrategyState::Started => ("started", None),
                    StrategyState::Failed { why } => ("failed", Some(why.as_str())),
                    StrategyState::Won => ("won", None),
                    _ => continue,
                };
                let event = json!({"event": "strategy", "name": kind.to_string(), "state": name, "why": why});
                let sentence = match why {
                    Some(why) => format!("  {kind:<9} {name}: {why}"),
                    None => format!("  {kind:<9} {name}"),
                };
                say(json, sentence, &event);
            }
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Standard input to the pipe and the pipe to standard output, each to its end. A person's terminal does not end by itself: with
/// it, the end of what the peer has to say is the end.
pub async fn stdio(pipe: &Pipe) -> Result<Moved> {
    let person = std::io::stdin().is_terminal();
    let receive = async {
        let (mut out, mut received) = (tokio::io::stdout(), 0);
        loop {
            match pipe.recv_within(None).await {
                Ok(message) => {
                    received += message.data.len() as u64;
                    out.write_all(&message.data).await.map_err(OutputError)?;
                    out.flush().await.map_err(OutputError)?;
                }
                Err(RecvError::Ended(End::Broken(kind))) => bail!("the connection to the peer broke: {kind}"),
                Err(RecvError::Ended(_)) => return Ok(received),
                Err(error) => return Err(error.into()),
            }
        }
    };
    let send = async {
        let (mut input, mut part, mut sent) = (tokio::io::stdin(), vec![0; PART], 0);
        loop {
            let len = input.read(&mut part).await.context("standard input can not be read")?;
            if len == 0 {
                pipe.finish().await?;
                return anyhow::Ok(sent);
            }
            if pipe.send(&part[..len]).await.is_err() {
                // The peer reads no more; what it says is still to be heard.
                return Ok(sent);
            }
            sent += len as u64;
        }
    };
    let (mut receive, mut send) = (std::pin::pin!(receive), std::pin::pin!(send));
    let mut moved = Moved::default();
    let (mut received, mut sent) = (false, false);
    while !received || !(sent || person) {
        tokio::select! {
            done = &mut receive, if !received => (received, moved.received) = (true, done?),
            done = &mut send, if !sent => (sent, moved.sent) = (true, done?),
        }
    }
    if !sent {
        // Of a terminal nobody knows how much was typed before the end.
        pipe.finish().await?;
    }
    Ok(moved)
}

/// Which pipe of a peer fits an end of this kind.
pub fn over(datagrams: bool) -> Over {
    if datagrams { Over::Udp } else { Over::Tcp }
}

/// Each sender of datagrams gets a pipe to the peer of its own, and its answers back.
pub async fn datagrams(server: Pipe, peer: &Peer) -> Result<()> {
    let mut talks: HashMap<Addr, mpsc::Sender<bytes::Bytes>> = HashMap::new();
    let mut talking = JoinSet::new();
    loop {
        let message = server.recv_within(None).await?;
        talks.retain(|_, talk| !talk.is_closed());
        while talking.try_join_next().is_some() {}
        if !talks.contains_key(&message.from) {
            if talks.len() >= SENDERS {
                tracing::debug!("too many senders: a datagram was dropped");
                continue;
            }
            let pipe = peer.open(Over::Udp, NetConf::default())?;
            let (tell, told) = mpsc::channel(64);
            talking.spawn(talk(server.clone(), message.from.clone(), pipe, told));
            talks.insert(message.from.clone(), tell);
        }
        if let Some(talk) = talks.get(&message.from) {
            // A datagram that comes too fast is lost, as on every network.
            let _ = talk.try_send(message.data);
        }
    }
}

/// One sender's datagrams, until neither it nor the peer has said anything for long.
async fn talk(server: Pipe, sender: Addr, pipe: Pipe, mut told: mpsc::Receiver<bytes::Bytes>) {
    loop {
        let moved = tokio::select! {
            data = told.recv() => match data {
                Some(data) => pipe.send(data).await.is_ok(),
                None => false,
            },
            message = pipe.recv_within(None) => match message {
                Ok(message) => server.send_to(message.data, sender.clone()).await.is_ok(),
                Err(_) => false,
            },
            () = sleep(IDLE) => false,
        };
        if !moved {
            return;
        }
    }
}
