//! One TCP stream in writes of 64 KiB, both ends in one process.

use std::time::Instant;

use natpipe::{Proto, pipe_open};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::{runtime, table};

const BYTES: usize = 1 << 30;
const WRITE: usize = 1 << 16;

pub fn run() {
    let runtime = runtime();
    table::compare(
        "One TCP stream in 64 KiB writes",
        "Gbit/s",
        7,
        &mut [
            ("bare tokio", &mut || runtime.block_on(runtime.spawn(bare())).unwrap()),
            ("pipe by recv", &mut || runtime.block_on(runtime.spawn(pipe())).unwrap()),
        ],
    );
}

fn rate(begun: Instant) -> f64 {
    BYTES as f64 * 8.0 / begun.elapsed().as_secs_f64() / 1e9
}

async fn bare() -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let begun = Instant::now();
    let sender = tokio::spawn(async move {
        let data = vec![7; WRITE];
        for _ in 0..BYTES / WRITE {
            client.write_all(&data).await.unwrap();
        }
    });
    let (mut buf, mut got) = (vec![0; WRITE], 0);
    while got < BYTES {
        got += server.read(&mut buf).await.unwrap();
    }
    sender.await.unwrap();
    rate(begun)
}

async fn pipe() -> f64 {
    let listener = pipe_open(Proto::Tcp).bind("127.0.0.1:0").await.unwrap();
    let client = pipe_open(Proto::Tcp).dest(listener.local_addr()).await.unwrap();
    let server = listener.accept().await.unwrap();
    let begun = Instant::now();
    let sender = tokio::spawn(async move {
        let data = vec![7; WRITE];
        for _ in 0..BYTES / WRITE {
            client.send(&data).await.unwrap();
        }
        client
    });
    let mut got = 0;
    while got < BYTES {
        got += server.recv().await.unwrap().len();
    }
    let rate = rate(begun);
    sender.await.unwrap().close().await;
    rate
}
