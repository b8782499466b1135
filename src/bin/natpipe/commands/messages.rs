//! `natpipe send` and `natpipe recv`: smart sockets for shells.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use natpipe::NetConf;
use natpipe::smart::{Acknowledge, Builder, Delivery, Endpoint, Event, Events, SendMode, SmartSocket};
use serde_json::json;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::args::{Framing, Guarantee, Mode, RecvArgs, SendArgs, SmartArgs};
use crate::output::{OutputError, say};
use crate::spec::Spec;

pub async fn send(args: SendArgs, json: bool) -> Result<()> {
    let mode = match args.mode {
        Mode::Roundrobin => SendMode::RoundRobin,
        Mode::Publish => SendMode::Publish,
        Mode::Identity => SendMode::ByIdentity,
    };
    let delivery = match args.delivery {
        Guarantee::AtMostOnce => Delivery::AtMostOnce,
        Guarantee::AtLeastOnce => Delivery::AtLeastOnce,
    };
    let linger = Duration::from_secs_f64(args.linger);
    let builder = SmartSocket::builder().mode(mode).delivery(delivery).linger(linger);
    let socket = open(&args.socket, builder, json).await?;
    let mut lost = socket.events();
    wait_for_peers(&socket, args.peers).await;
    let mut input = BufReader::new(tokio::io::stdin());
    let mut sent = 0u64;
    while let Some(message) = next(&mut input, args.socket.framing).await? {
        match args.to {
            Some(to) => socket.send_to(to, message).await?,
            None => socket.send(message).await?,
        }
        sent += 1;
    }
    socket.close().await?;
    let given_up = given_up(&mut lost).await;
    if given_up > 0 {
        bail!("{given_up} of {sent} messages were never acknowledged");
    }
    Ok(())
}

/// How many messages were given up, as far as the events that are there tell.
async fn given_up(events: &mut Events) -> u64 {
    let mut count = 0;
    while let Ok(Some(event)) = tokio::time::timeout(Duration::ZERO, events.next()).await {
        count += u64::from(matches!(event, Event::GivenUp { .. }));
    }
    count
}

pub async fn recv(args: RecvArgs, json: bool) -> Result<()> {
    // What was written is acknowledged when the next message is asked for: it is out then.
    let builder = SmartSocket::builder().acknowledge(Acknowledge::NextAsked);
    let socket = open(&args.socket, builder, json).await?;
    args.topic.iter().for_each(|topic| socket.subscribe(topic));
    let mut output = tokio::io::stdout();
    let mut left = args.count;
    while left != Some(0) {
        let message = socket.recv_from().await?;
        let mut line = Vec::with_capacity(message.data.len() + 40);
        if args.with_identity {
            line.extend_from_slice(format!("{} ", message.from).as_bytes());
        }
        match args.socket.framing {
            Framing::Lines => {
                line.extend_from_slice(&message.data);
                line.push(b'\n');
            }
            Framing::Length => {
                let len = u32::try_from(line.len() + message.data.len()).context("too long for its length")?;
                line.splice(0..0, len.to_be_bytes());
                line.extend_from_slice(&message.data);
            }
        }
        output.write_all(&line).await.map_err(OutputError)?;
        output.flush().await.map_err(OutputError)?;
        left = left.map(|left| left - 1);
    }
    socket.close().await?;
    Ok(())
}

async fn open(args: &SmartArgs, builder: Builder, json: bool) -> Result<SmartSocket> {
    let builder = match args.identity {
        Some(identity) => builder.identity(identity),
        None => builder,
    };
    let socket = builder.build()?;
    for spec in &args.spec {
        join(&socket, spec, json).await.with_context(|| format!("cannot use {spec}"))?;
    }
    Ok(socket)
}

/// Binds or connects, as the SPEC says.
async fn join(socket: &SmartSocket, spec: &Spec, json: bool) -> Result<()> {
    let endpoint = match spec {
        Spec::Tcp(at) | Spec::TcpListen(at) => Endpoint::tcp(at.clone()),
        Spec::Unix(path) | Spec::UnixListen(path) => Endpoint::unix(path),
        Spec::Tls(at) => Endpoint::tcp(at.clone()).conf(NetConf::default().use_ssl(true)),
        Spec::Stdio | Spec::Udp(_) | Spec::UdpListen(_) | Spec::WebSocket(_) | Spec::Peer(_) => {
            bail!("messages need a stream that others can reach: tcp, unix or tls")
        }
    };
    if spec.listens() {
        let local = socket.bind(endpoint).await?.to_string();
        say(json, format_args!("listening at {local}"), &json!({"event": "listening", "local": local}));
    } else {
        socket.connect(endpoint)?;
    }
    Ok(())
}

async fn wait_for_peers(socket: &SmartSocket, count: usize) {
    let mut events = socket.events();
    while socket.peers().len() < count {
        // Each connection is an event, and one that was missed is one too.
        events.next().await;
    }
}

/// The next message of standard input; `None` at its end.
async fn next(input: &mut (impl AsyncBufRead + Unpin), framing: Framing) -> Result<Option<Vec<u8>>> {
    match framing {
        Framing::Lines => line(input).await,
        Framing::Length => counted(input).await,
    }
}

/// The longest message that standard input may hold: that of a smart socket.
const LONGEST: usize = 64 << 20;

async fn line(input: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<Vec<u8>>> {
    let mut found = Vec::new();
    input.take(LONGEST as u64 + 1).read_until(b'\n', &mut found).await?;
    if found.is_empty() {
        return Ok(None);
    }
    if found.last() == Some(&b'\n') {
        found.pop();
    }
    if found.len() > LONGEST {
        bail!("a line of more than {LONGEST} bytes, which are the most");
    }
    Ok(Some(found))
}

async fn counted(input: &mut (impl AsyncRead + Unpin)) -> Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match input.read(&mut length[..1]).await? {
        0 => return Ok(None),
        _ => input.read_exact(&mut length[1..]).await.context("standard input ends within a length")?,
    };
    let len = u32::from_be_bytes(length) as usize;
    if len > LONGEST {
        bail!("a message of {len} bytes; {LONGEST} are the most");
    }
    let mut message = vec![0; len];
    input.read_exact(&mut message).await.context("standard input ends within a message")?;
    Ok(Some(message))
}
