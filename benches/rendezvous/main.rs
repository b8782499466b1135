//! The rendezvous server under load: `cargo bench --bench rendezvous`.
//!
//! The server is a process of its own. First, what an idle peer costs it: anonymous memory with so many peers less that with
//! none, before and after each has sent a signal and got one. Then the relay beside a bare one, in interleaved rounds: a
//! process that copies between two TLS connections of the same kind, without frames, windows and turns.

#[path = "../table.rs"]
mod table;

use std::io::BufRead;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use natpipe::key::{ServerUrl, tls};
use natpipe::rendezvous::{Client, Limits, Server};
use natpipe::{Identity, PeerId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, copy_buf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};

const PEERS: usize = 10_000;
const ROUNDS: usize = 5;
const BYTES: usize = 512 << 20;
/// Connections that are made at once.
const AT_ONCE: usize = 64;

#[tokio::main]
async fn main() {
    let role = std::env::args().find_map(|arg| arg.strip_prefix("role=").map(str::to_owned));
    match role.as_deref() {
        Some("server") => serve().await,
        Some("bare") => bare().await,
        _ => measure().await,
    }
}

struct Running {
    child: Child,
    said: String,
}

impl Running {
    fn new(role: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(format!("role={role}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        Self { child, said: said.trim().to_owned() }
    }

    /// Anonymous memory, KiB.
    fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Until the parent goes.
async fn parent_is_there() {
    let _ = tokio::io::stdin().read_u8().await;
}

async fn serve() {
    let limits = Limits::default().per_address(usize::MAX).handshakes(usize::MAX).connects(0).signals(0);
    let identity = Identity::generate().unwrap();
    let server = Server::listen("127.0.0.1:0".parse().unwrap(), identity).limits(limits).start().await.unwrap();
    println!("{}", server.url());
    parent_is_there().await;
}

/// Two connections that come are joined.
async fn bare() {
    let identity = Identity::generate().unwrap();
    let tls = TlsAcceptor::from(tls::server_config(&identity, tls::Allowed::anyone(), &[]).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{} {}", listener.local_addr().unwrap(), identity.peer_id());
    tokio::spawn(async move {
        loop {
            let mut ends = Vec::new();
            for _ in 0..2 {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                ends.push(tokio::io::split(tls.accept(stream).await.unwrap()));
            }
            let ((a, mut b), (c, mut d)) = (ends.remove(0), ends.remove(0));
            let buffered = |half| BufReader::with_capacity(64 * 1024, half);
            tokio::spawn(async move { copy_buf(&mut buffered(a), &mut d).await.map(drop) });
            tokio::spawn(async move { copy_buf(&mut buffered(c), &mut b).await.map(drop) });
        }
    });
    parent_is_there().await;
}

async fn measure() {
    memory().await;
    let (server, bare) = (Running::new("server"), Running::new("bare"));
    let (mut rates, mut ratios): ([Vec<f64>; 2], Vec<f64>) = Default::default();
    println!("relay, {} MiB one way, MiB/s:", BYTES >> 20);
    for _ in 0..table::rounds(ROUNDS) {
        let (ours, theirs) = (relayed(&server).await, copied(&bare).await);
        println!("  natpipe {ours:.0}, bare {theirs:.0}, ratio {:.2}", ours / theirs);
        rates[0].push(ours);
        rates[1].push(theirs);
        ratios.push(ours / theirs);
    }
    println!("  median ratio {:.2}", table::median(&ratios));
    table::judge("a relayed stream", &[("natpipe", &rates[0]), ("bare", &rates[1])]);
}

async fn memory() {
    let server = Running::new("server");
    let url: ServerUrl = server.said.parse().unwrap();
    let _first = Client::connect(&url, &Identity::generate().unwrap()).await.unwrap();
    let before = server.memory();
    let mut joining: JoinSet<(Client, PeerId)> = JoinSet::new();
    let mut clients = Vec::new();
    while clients.len() < PEERS {
        while joining.len() < AT_ONCE && clients.len() + joining.len() < PEERS {
            let url = url.clone();
            joining.spawn(async move {
                let identity = Identity::generate().unwrap();
                (Client::connect(&url, &identity).await.unwrap(), identity.peer_id())
            });
        }
        clients.extend(joining.join_next().await.map(Result::unwrap));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let each = |now: f64| (now - before) / PEERS as f64;
    let idle = each(server.memory());
    println!("{PEERS} idle peers: {idle:.1} KiB each");
    table::judge("memory of an idle peer", &[("natpipe", &[idle])]);
    for pair in clients.windows(2) {
        let signal = pair[0].0.signal(pair[1].1).unwrap();
        signal.send([7; 1000]).await.unwrap();
        let heard = pair[1].0.accept().await.unwrap();
        heard.recv().await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!("after a conversation each: {:.1} KiB each", each(server.memory()));
}

async fn relayed(server: &Running) -> f64 {
    let url: ServerUrl = server.said.parse().unwrap();
    let (ann, bob) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (at_ann, at_bob) = (Client::connect(&url, &ann).await.unwrap(), Client::connect(&url, &bob).await.unwrap());
    let to_bob = at_ann.signal(bob.peer_id()).unwrap();
    let sending = to_bob.relay_stream().unwrap();
    let from_ann = at_bob.accept().await.unwrap();
    rate(sending, from_ann.relay_stream().unwrap()).await
}

async fn copied(bare: &Running) -> f64 {
    let (addr, key) = bare.said.split_once(' ').unwrap();
    let mut ends = Vec::new();
    for _ in 0..2 {
        let config = tls::client_config(&Identity::generate().unwrap(), key.parse().unwrap(), &[]).unwrap();
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        ends.push(TlsConnector::from(config).connect(tls::server_name(), stream).await.unwrap());
    }
    rate(ends.remove(0), ends.remove(0)).await
}

async fn rate(
    mut from: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    mut to: impl AsyncRead + AsyncWrite + Unpin,
) -> f64 {
    let begun = Instant::now();
    let sending = tokio::spawn(async move {
        let chunk = vec![7; 64 * 1024];
        for _ in 0..BYTES / chunk.len() {
            from.write_all(&chunk).await.unwrap();
        }
        from.flush().await.unwrap();
        from
    });
    let (mut got, mut buffer) = (0, vec![0; 64 * 1024]);
    while got < BYTES {
        got += to.read(&mut buffer).await.unwrap();
    }
    let took = begun.elapsed();
    drop(sending.await.unwrap());
    (BYTES >> 20) as f64 / took.as_secs_f64()
}
