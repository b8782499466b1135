//! 64 bytes there and back, one at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use natpipe::{Pipe, Proto, pipe_open};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::oneshot;

use crate::{runtime, table};

const ROUND_TRIPS: u32 = 20_000;
/// The default `recv_timeout`.
const LIMIT: Option<Duration> = Some(Duration::from_secs(2));
const MESSAGE: [u8; 64] = [7; 64];

pub fn tcp() {
    let runtime = runtime();
    table::compare(
        "TCP ping-pong of 64 bytes",
        "1000 round trips a second",
        9,
        &mut [
            ("bare tokio", &mut || runtime.block_on(runtime.spawn(bare_tcp(None))).unwrap()),
            ("bare tokio, each read within 2 s", &mut || runtime.block_on(runtime.spawn(bare_tcp(LIMIT))).unwrap()),
            ("pipe by recv, no limit", &mut || runtime.block_on(runtime.spawn(by_recv(Proto::Tcp, None))).unwrap()),
            ("pipe by recv within 2 s", &mut || runtime.block_on(runtime.spawn(by_recv(Proto::Tcp, LIMIT))).unwrap()),
            ("pipe by callback", &mut || runtime.block_on(runtime.spawn(by_callback(Proto::Tcp))).unwrap()),
        ],
    );
}

pub fn udp() {
    let runtime = runtime();
    table::compare(
        "UDP ping-pong of 64 bytes",
        "1000 round trips a second",
        9,
        &mut [
            ("bare tokio", &mut || runtime.block_on(runtime.spawn(bare_udp(None))).unwrap()),
            ("bare tokio, each read within 2 s", &mut || runtime.block_on(runtime.spawn(bare_udp(LIMIT))).unwrap()),
            ("pipe by recv, no limit", &mut || runtime.block_on(runtime.spawn(by_recv(Proto::Udp, None))).unwrap()),
            ("pipe by recv within 2 s", &mut || runtime.block_on(runtime.spawn(by_recv(Proto::Udp, LIMIT))).unwrap()),
            ("pipe by callback", &mut || runtime.block_on(runtime.spawn(by_callback(Proto::Udp))).unwrap()),
        ],
    );
}

async fn within<T>(limit: Option<Duration>, read: impl Future<Output = std::io::Result<T>>) -> T {
    match limit {
        Some(limit) => tokio::time::timeout(limit, read).await.unwrap().unwrap(),
        None => read.await.unwrap(),
    }
}

fn rate(begun: Instant) -> f64 {
    f64::from(ROUND_TRIPS) / begun.elapsed().as_secs_f64() / 1000.0
}

async fn bare_tcp(limit: Option<Duration>) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let echo = tokio::spawn(async move {
        let mut buf = vec![0; 65536];
        loop {
            match within(limit, server.read(&mut buf)).await {
                0 => break,
                n => server.write_all(&buf[..n]).await.unwrap(),
            }
        }
    });
    let mut buf = vec![0; 65536];
    let begun = Instant::now();
    for _ in 0..ROUND_TRIPS {
        client.write_all(&MESSAGE).await.unwrap();
        assert_eq!(within(limit, client.read(&mut buf)).await, 64);
    }
    let rate = rate(begun);
    drop(client);
    echo.await.unwrap();
    rate
}

async fn bare_udp(limit: Option<Duration>) -> f64 {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(server.local_addr().unwrap()).await.unwrap();
    let echo = tokio::spawn(async move {
        let mut buf = vec![0; 65536];
        loop {
            let (n, from) = within(limit, server.recv_from(&mut buf)).await;
            server.send_to(&buf[..n], from).await.unwrap();
        }
    });
    let mut buf = vec![0; 65536];
    let begun = Instant::now();
    for _ in 0..ROUND_TRIPS {
        client.send(&MESSAGE).await.unwrap();
        assert_eq!(within(limit, client.recv(&mut buf)).await, 64);
    }
    let rate = rate(begun);
    echo.abort();
    rate
}

/// Both ends of a connection; for datagrams the second is the server itself.
async fn ends(proto: Proto) -> (Pipe, Pipe) {
    let server = pipe_open(proto).bind("127.0.0.1:0").await.unwrap();
    let client = pipe_open(proto).dest(server.local_addr()).await.unwrap();
    if proto == Proto::Udp {
        return (client, server);
    }
    let accepted = server.accept().await.unwrap();
    server.stop_listening().await;
    (client, accepted)
}

async fn by_recv(proto: Proto, limit: Option<Duration>) -> f64 {
    let (client, server) = ends(proto).await;
    let echo = tokio::spawn(async move {
        while let Ok(message) = server.recv_within(limit).await {
            server.send_to(&message.data, message.from).await.unwrap();
        }
    });
    let begun = Instant::now();
    for _ in 0..ROUND_TRIPS {
        client.send(&MESSAGE).await.unwrap();
        assert_eq!(client.recv_within(limit).await.unwrap().data.len(), 64);
    }
    let rate = rate(begun);
    client.close().await;
    echo.abort();
    rate
}

async fn by_callback(proto: Proto) -> f64 {
    let (client, server) = ends(proto).await;
    server.add_msg_cb(|data, _, pipe: Pipe| async move { pipe.send(data).await.unwrap() });
    let (done, finished) = oneshot::channel();
    let done = std::sync::Mutex::new(Some(done));
    let left = Arc::new(AtomicU32::new(ROUND_TRIPS));
    let done = Arc::new(done);
    client.add_msg_cb(move |data, _, pipe: Pipe| {
        let (left, done) = (left.clone(), done.clone());
        async move {
            assert_eq!(data.len(), 64);
            if left.fetch_sub(1, Ordering::Relaxed) > 1 {
                pipe.send(data).await.unwrap();
            } else if let Some(done) = done.lock().unwrap().take() {
                done.send(()).unwrap();
            }
        }
    });
    let begun = Instant::now();
    client.send(&MESSAGE).await.unwrap();
    finished.await.unwrap();
    let rate = rate(begun);
    client.close().await;
    server.close().await;
    rate
}
