//! `natpipe punch`: one hole, by hand or through any pipe, and standard input and output through it.

use std::io::{BufRead, BufReader, IsTerminal};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use natpipe::nat::{DEFAULT_SERVERS, Proto as Over};
use natpipe::peer::{HandLine, introduce, secure};
use natpipe::punch::{ByHand, PipeChannel, Punched, Puncher};
use natpipe::stun::ServerName;
use natpipe::{Family, Identity, Interface, NetConf, PeerId, Route, Scope};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::link::Waiting;
use crate::args::{OverArg, PunchArgs};
use crate::output::{remark, say};
use crate::peering::{closed, stdio};
use crate::progress::spinner;
use crate::spec::Spec;

/// How long the names of STUN servers may take.
const RESOLVE: Duration = Duration::from_secs(3);

/// How long the stream to agree over may take to connect: where a hole is wanted the way is often bad, and packets are lost.
const CHANNEL: Duration = Duration::from_secs(10);

/// Of the well-known servers so many are asked.
const SERVERS: usize = 3;

pub async fn run(args: PunchArgs, json: bool) -> Result<()> {
    let me = match &args.identity {
        Some(file) => Identity::from_file_or_new(file)?,
        None => Identity::generate()?,
    };
    let proto = match args.proto {
        OverArg::Udp => Over::Udp,
        OverArg::Tcp => Over::Tcp,
    };
    let puncher = puncher(&args, json).await?;
    let (punched, them) = match &args.through {
        Some(spec) => through(spec, &args, &puncher, proto, me.peer_id(), json).await?,
        None => by_hand(&args, &puncher, proto, me.peer_id(), json).await?,
    };
    tell(&punched, proto, them, json);
    let (peer, pipe) = secure(punched, &me, them, NetConf::default()).await?;
    say(json, format_args!("connected to {them}"), &json!({"event": "connected", "peer": them.to_string()}));
    let moved = stdio(&pipe).await;
    drop(pipe);
    peer.close().await;
    closed(json, moved.as_ref().copied().unwrap_or_default());
    moved.map(drop)
}

async fn puncher(args: &PunchArgs, json: bool) -> Result<Puncher> {
    let routes = routes(&args.interface)?;
    let mut puncher = routes.iter().fold(Puncher::new(), Puncher::route);
    puncher = puncher.patience(Duration::from_secs_f64(args.wait)).all_out(args.all_out);
    puncher = puncher.port_mapping(!args.no_port_mapping);
    for server in servers(&args.stun, json).await? {
        puncher = puncher.stun(server);
    }
    Ok(puncher)
}

/// Of all interfaces, or those that were named; not of this machine alone, or of one link.
fn routes(names: &[String]) -> Result<Vec<Route>> {
    let interfaces = match names {
        [] => Interface::list()?,
        names => names.iter().map(|name| Interface::by_name(name)).collect::<Result<_, _>>()?,
    };
    let routes = interfaces.iter().flat_map(|i| [Family::V4, Family::V6].map(|family| i.route(family).ok()));
    let far =
        |route: &Route| !route.nic().iter().all(|ip| matches!(Scope::of(*ip), Scope::Loopback | Scope::LinkLocal));
    let routes: Vec<Route> = routes.flatten().filter(far).collect();
    ensure!(!routes.is_empty(), "no interface here has an address to punch from");
    Ok(routes)
}

/// Those that were named have to be there; of the well-known ones the first that are found.
async fn servers(named: &[ServerName], json: bool) -> Result<Vec<SocketAddr>> {
    let mut found = Vec::new();
    for name in named {
        let addrs = timeout(RESOLVE, tokio::net::lookup_host(name.to_string())).await;
        let addrs = addrs.map_err(|_| std::io::ErrorKind::TimedOut.into()).and_then(|addrs| addrs);
        found.extend(addrs.with_context(|| format!("the STUN server {name} is not found"))?);
    }
    if named.is_empty() {
        let mut looking = JoinSet::new();
        for name in DEFAULT_SERVERS {
            looking.spawn(async move { timeout(RESOLVE, tokio::net::lookup_host(name)).await });
        }
        while let Some(looked) = looking.join_next().await {
            if let Ok(Ok(Ok(addrs))) = looked {
                found.extend(addrs.into_iter().take(2));
            }
            if found.len() >= SERVERS {
                break;
            }
        }
        if found.is_empty() {
            let why = "no STUN server is found (--stun): only addresses of this machine itself are offered";
            say(json, why, &json!({"event": "warning", "why": why}));
        }
    }
    Ok(found)
}

/// Both ends agree over this pipe.
async fn through(
    spec: &Spec,
    args: &PunchArgs,
    puncher: &Puncher,
    proto: Over,
    me: PeerId,
    json: bool,
) -> Result<(Punched, PeerId)> {
    ensure!(
        !matches!(spec, Spec::Stdio | Spec::Udp(_) | Spec::UdpListen(_)),
        "--through wants a stream that is not the data's: tcp:, tcp-listen:, unix:, unix-listen: or tls:"
    );
    let wait = Duration::from_secs_f64(args.wait);
    let spinner = spinner(json);
    spinner.set_message(format!("waiting for the other end at {spec}"));
    let conf = NetConf::default().con_timeout(wait.min(CHANNEL));
    let opened = async { Waiting::open(spec, conf, json).await?.peer().await };
    let pipe = timeout(wait, opened).await.with_context(|| format!("nobody came to {spec}"))??;
    let mut channel = PipeChannel::new(pipe).await;
    let them = introduce(&mut channel, me, wait).await?;
    expected(args, them)?;
    spinner.set_message("punching");
    let punched = puncher.punch(proto, &mut channel).await;
    spinner.finish_and_clear();
    Ok((punched?, them))
}

/// Both ends agree by two lines that people carry.
async fn by_hand(
    args: &PunchArgs,
    puncher: &Puncher,
    proto: Over,
    me: PeerId,
    json: bool,
) -> Result<(Punched, PeerId)> {
    let hand = puncher.by_hand(proto).await?;
    let line = HandLine::new(me, hand.words()).to_string();
    say(
        json,
        format_args!("this end's line, for the other side to paste:\n\n{line}\n\npaste the other side's line here:"),
        &json!({"event": "line", "line": line}),
    );
    let theirs = theirs(&hand, args.tty, json).await?;
    let them = theirs.peer();
    ensure!(them != me, "this is our own line: the other side's is wanted");
    expected(args, them)?;
    let spinner = spinner(json);
    spinner.set_message("punching, until the other side has our line as well");
    let punched = hand.punch(theirs.words()).await;
    spinner.finish_and_clear();
    Ok((punched?, them))
}

fn expected(args: &PunchArgs, them: PeerId) -> Result<()> {
    let right = args.peer.is_none_or(|peer| peer == them);
    ensure!(right, "the other end is {them}, and not the one that --peer names");
    Ok(())
}

/// The other side's line. A person who pasted something else is asked again.
async fn theirs(hand: &ByHand, tty: bool, json: bool) -> Result<HandLine> {
    loop {
        let reading = tokio::task::spawn_blocking(move || read_line(tty));
        let line = tokio::select! {
            line = reading => line.context("reading the other side's line")??,
            () = hand.keep() => continue,
        };
        match line.parse() {
            Ok(line) => return Ok(line),
            Err(error) if !json && (tty || std::io::stdin().is_terminal()) => {
                remark(format_args!("{error}; once more:"));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// What follows the line on standard input is the data.
fn read_line(tty: bool) -> Result<String> {
    let mut line = String::new();
    while line.trim().is_empty() {
        line.clear();
        let read = if tty {
            let terminal = std::fs::File::open("/dev/tty").context("there is no terminal to read the line from")?;
            BufReader::new(terminal).read_line(&mut line)?
        } else {
            std::io::stdin().lock().read_line(&mut line)?
        };
        ensure!(read > 0, "the other side's line is wanted on standard input, and it has ended");
    }
    Ok(line)
}

fn tell(punched: &Punched, proto: Over, them: PeerId, json: bool) {
    let ms = |took: Duration| (took.as_secs_f64() * 1e4).round() / 10.0;
    say(
        json,
        format_args!("punched: {punched}"),
        &json!({
            "event": "punched",
            "proto": proto.to_string().to_lowercase(),
            "local": punched.local.to_string(),
            "remote": punched.peer.to_string(),
            "peer": them.to_string(),
            "total_ms": ms(punched.total),
            "after_instant_ms": ms(punched.took),
            "channel_rtt_ms": ms(punched.round_trip),
            "attempts": punched.attempts,
            "plan": punched.plan.to_string(),
        }),
    );
}
