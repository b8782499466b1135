//! One TCP stream in writes of 64 KiB, each end on a thread and a runtime of its own: with both ends
//! on one runtime the figure depends on whether its scheduler puts them on one core or on two.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use natpipe::{Addr, NetConf, Proto, pipe_open};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::table;

const BYTES: usize = 1 << 30;
const WRITE: usize = 1 << 16;
/// The default `recv_timeout`.
const LIMIT: Option<Duration> = Some(Duration::from_secs(2));

pub fn run() {
    table::compare(
        "One TCP stream in 64 KiB writes",
        "Gbit/s",
        11,
        &mut [
            ("bare tokio", &mut || both(bare_sink, bare_source)),
            ("pipe by recv, no limit", &mut || both(|tell| pipe_sink(tell, None), pipe_source)),
            ("pipe by recv within 2 s", &mut || both(|tell| pipe_sink(tell, LIMIT), pipe_source)),
        ],
    );
}

fn both<A, B>(sink: fn(mpsc::Sender<Addr>) -> A, source: fn(Addr) -> B) -> f64
where
    A: Future<Output = ()> + 'static,
    B: Future<Output = ()> + 'static,
{
    let (tell, told) = mpsc::channel();
    let receiving = std::thread::spawn(move || {
        alone().block_on(sink(tell));
        Instant::now()
    });
    let addr = told.recv().unwrap();
    let begun = Instant::now();
    alone().block_on(source(addr));
    let elapsed = receiving.join().unwrap() - begun;
    BYTES as f64 * 8.0 / elapsed.as_secs_f64() / 1e9
}

fn alone() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn bare_sink(tell: mpsc::Sender<Addr>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    tell.send(listener.local_addr().unwrap().into()).unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let (mut buf, mut got) = (vec![0; WRITE], 0);
    while got < BYTES {
        got += server.read(&mut buf).await.unwrap();
    }
}

async fn bare_source(addr: Addr) {
    let mut client = TcpStream::connect(addr.ip().unwrap()).await.unwrap();
    let data = vec![7; WRITE];
    for _ in 0..BYTES / WRITE {
        client.write_all(&data).await.unwrap();
    }
}

async fn pipe_sink(tell: mpsc::Sender<Addr>, limit: Option<Duration>) {
    let listener = pipe_open(Proto::Tcp).bind("127.0.0.1:0").await.unwrap();
    tell.send(listener.local_addr().clone()).unwrap();
    let server = listener.accept().await.unwrap();
    let mut got = 0;
    while got < BYTES {
        got += server.recv_within(limit).await.unwrap().data.len();
    }
}

async fn pipe_source(addr: Addr) {
    let client = pipe_open(Proto::Tcp).dest(addr).conf(NetConf::default()).await.unwrap();
    let data = vec![7; WRITE];
    for _ in 0..BYTES / WRITE {
        client.send(&data).await.unwrap();
    }
    client.close().await;
}
