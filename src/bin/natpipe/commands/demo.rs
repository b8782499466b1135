//! `natpipe demo`: two peers behind home routers, and pipes of every kind, on this machine, with real bytes through them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use natpipe::lab::{Kind, LabError};
use natpipe::peer::{Node, PathInfo};
use natpipe::pipe::Relay;
use natpipe::pipe::tls::{Identity, TlsClient, TlsServer};
use natpipe::{NetConf, Pipe, Proto, pipe_open, rendezvous};
use serde::Serialize;
use serde_json::json;
use tokio::sync::oneshot;

use crate::output;
use crate::pattern;
use crate::peering;
use crate::world::{self, Outcome, World};

/// Datagrams that are sent and answered one after another.
const DATAGRAMS: u32 = 2000;

/// What one part of the demo came to.
#[derive(Serialize)]
struct Row {
    pipe: &'static str,
    what: String,
    checked: bool,
    seconds: f64,
    rate: f64,
    unit: &'static str,
}

pub async fn run(mib: u32, lab: Result<(), LabError>, json: bool) -> Result<()> {
    let total = mib as usize * (1 << 20);
    let steps: [(&str, u8); 4] = [("TCP", 0), ("TLS", 1), ("relay", 2), ("UDP", 3)];
    let progress = progress(steps.len() as u64 + 1, json);
    progress.set_message("peers");
    for row in peers(lab, total, json).await.context("the peers part of the demo failed")? {
        progress.suspend(|| print(&row, json))?;
    }
    progress.inc(1);
    for (name, step) in steps {
        progress.set_message(name);
        let row = match step {
            0 => stream("TCP", tcp().await?, total).await,
            1 => stream("TLS", tls().await?, total).await,
            2 => relay(total).await,
            _ => datagrams().await,
        };
        let row = row.with_context(|| format!("the {name} part of the demo failed"))?;
        progress.inc(1);
        progress.suspend(|| print(&row, json))?;
    }
    progress.finish_and_clear();
    if !json {
        output::line("every byte arrived, in order")?;
    }
    Ok(())
}

fn progress(steps: u64, json: bool) -> ProgressBar {
    if json {
        return ProgressBar::hidden();
    }
    // Without a terminal it draws nothing.
    let bar = ProgressBar::new(steps);
    let style = ProgressStyle::with_template("{spinner} {msg} ({pos} of {len})");
    bar.enable_steady_tick(Duration::from_millis(100));
    style.map_or_else(|_| ProgressBar::hidden(), |style| bar.with_style(style))
}

fn print(row: &Row, json: bool) -> Result<()> {
    if json {
        return output::json(row);
    }
    output::line(format_args!("{:<6} {:<52} {:>8.2} {}", row.pipe, row.what, row.rate, row.unit))
}

/// Two peers, each behind a home router of a network on this machine; where the system forbids that, on loopback.
async fn peers(lab: Result<(), LabError>, total: usize, json: bool) -> Result<Vec<Row>> {
    let world = match lab.and_then(|()| World::probe()) {
        Ok(()) => in_own_thread(move || home_and_home(total)).await,
        Err(error) => {
            let why = "this system allows no networks of our own, so the peers meet on loopback";
            output::say(json, format_args!("{why}: {error}"), &json!({"event": "loopback", "why": error.to_string()}));
            on_loopback(total).await
        }
    };
    let outcome = world?;
    let path = |path: &PathInfo| format!("{} ({})", path.kind, path.proto);
    let what = format!("{}, then {}, {} MiB", path(&outcome.first), path(&outcome.last), total >> 20);
    let row = |way, rate: f64| Row {
        pipe: "peers",
        what: format!("{what} {way}"),
        checked: true,
        seconds: total as f64 * 8.0 / rate,
        rate: rate / 1e9,
        unit: "Gbit/s",
    };
    let ms = |took: Duration| took.as_secs_f64() * 1000.0;
    let said =
        format!("first byte after {:.0} ms, best path after {:.0} ms", ms(outcome.first_byte), ms(outcome.found));
    output::say(json, said, &peering::path_event(&outcome.last));
    Ok(vec![row("there", outcome.rates[0]), row("back", outcome.rates[1])])
}

fn home_and_home(total: usize) -> Result<Outcome> {
    let world = World::new(Duration::from_millis(10), 0.0)?;
    let hosts = [world.behind(Kind::Home.into())?, world.behind(Kind::Home.into())?];
    world.meet([&hosts[0], &hosts[1]], total, |_| {})
}

async fn on_loopback(total: usize) -> Result<Outcome> {
    let listen = "127.0.0.1:0".parse()?;
    let server = rendezvous::Server::listen(listen, natpipe::Identity::generate()?).start().await?;
    let node = || Node::builder().via(server.url()).port_mapping(false);
    world::meet_here(node(), node(), total).await
}

/// Networks are built in a thread without a runtime.
pub async fn in_own_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || tell.send(work()).map_err(drop));
    told.await.context("the lab fell over")?
}

/// The two ends of a connection.
struct Ends {
    near: Pipe,
    far: Pipe,
}

async fn ends(server_conf: NetConf, client_conf: NetConf) -> Result<Ends> {
    let server = pipe_open(Proto::Tcp).bind("127.0.0.1:0").conf(server_conf.recv_timeout(None)).await?;
    let near = pipe_open(Proto::Tcp).dest(server.local_addr()).conf(client_conf.recv_timeout(None)).await?;
    let far = server.accept().await?;
    server.stop_listening().await;
    Ok(Ends { near, far })
}

async fn tcp() -> Result<Ends> {
    ends(NetConf::default(), NetConf::default()).await
}

async fn tls() -> Result<Ends> {
    let identity = Identity::self_signed(&["127.0.0.1"])?;
    let client = TlsClient::trusting(&identity.root_pem())?;
    let server = TlsServer::new(identity)?;
    ends(NetConf::default().tls_server(server), NetConf::default().tls_client(client)).await
}

/// Moves `total` bytes through a connection and checks each.
async fn stream(pipe: &'static str, ends: Ends, total: usize) -> Result<Row> {
    let what = format!("{} to {}", ends.near.local_addr(), ends.far.local_addr());
    let begun = Instant::now();
    let near = ends.near.clone();
    let sender = tokio::spawn(async move { pattern::send(&near, total).await });
    pattern::check(&ends.far, total).await?;
    sender.await??;
    let seconds = begun.elapsed().as_secs_f64();
    ends.near.close().await;
    ends.far.close().await;
    let rate = total as f64 * 8.0 / seconds / 1e9;
    Ok(Row { pipe, what: format!("{what}, {} MiB", total >> 20), checked: true, seconds, rate, unit: "Gbit/s" })
}

/// The same through a relay: two connections whose middle ends are linked.
async fn relay(total: usize) -> Result<Row> {
    let (left, right) = (tcp().await?, tcp().await?);
    let relay = tokio::spawn(Relay::new(left.far.clone(), right.near.clone()).wait());
    let through = Ends { near: left.near, far: right.far };
    let row = stream("relay", through, total).await?;
    let (at_left, at_right) = relay.await?;
    ensure!(at_left.bytes_in == total as u64 && at_right.bytes_out == total as u64, "the relay lost bytes");
    Ok(row)
}

/// Datagrams to a server that answers each, one after another.
async fn datagrams() -> Result<Row> {
    let answer = |data, _, pipe: Pipe| async move {
        if let Err(error) = pipe.send(data).await {
            tracing::debug!(%error, "not answered");
        }
    };
    let server = pipe_open(Proto::Udp).bind("127.0.0.1:0").msg_cb(answer).await?;
    let client = pipe_open(Proto::Udp).dest(server.local_addr()).await?;
    let begun = Instant::now();
    for n in 0..DATAGRAMS {
        let reply = client.request(n.to_be_bytes()).await?;
        ensure!(reply.data == n.to_be_bytes()[..], "datagram {n} came back changed");
    }
    let seconds = begun.elapsed().as_secs_f64();
    let what = format!("{} to {}, {DATAGRAMS} questions", client.local_addr(), server.local_addr());
    server.close().await;
    let rate = f64::from(DATAGRAMS) / seconds / 1000.0;
    Ok(Row { pipe: "UDP", what, checked: true, seconds, rate, unit: "thousand answers/s" })
}
