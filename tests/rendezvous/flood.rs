//! Malformed, half-open and slow connections in numbers, and peers that are not harmed by them.

use std::net::SocketAddr;
use std::time::Duration;

use natpipe::key::tls;
use natpipe::rendezvous::{Frame, Limits};
use natpipe::{Identity, stun};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{peer, server_with, soon};

/// From another address of this machine than the honest peers'.
async fn attack(server: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind("127.0.0.2:0".parse().unwrap())?;
    socket.connect(server).await
}

/// A peer that has proved a key and will misbehave.
async fn proved(server: &natpipe::rendezvous::Server) -> TlsStream<TcpStream> {
    let me = Identity::generate().unwrap();
    let config = tls::client_config(&me, server.url().key(), &[b"natpipe-rendezvous/1"]).unwrap();
    let stream = attack(server.addr()).await.unwrap();
    TlsConnector::from(config).connect(tls::server_name(), stream).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_bad_connections_harms_no_one_else() {
    let server = server_with(Limits::default().per_address(200).connects(0)).await;
    let (ann, bob) = (peer(&server).await, peer(&server).await);
    let to_bob = ann.client.signal(bob.identity.peer_id()).unwrap();
    let from_ann = soon("the conversation", bob.client.accept()).await.unwrap();
    let mut open = Vec::new();
    for n in 0..600_usize {
        let Ok(mut stream) = attack(server.addr()).await else { continue };
        // Half-open, no TLS, a broken handshake, a handshake that stops, zeros as of STUN that never ends.
        let words: &[u8] = match n % 5 {
            0 => b"",
            1 => b"\xFF\xFF\xFF\xFF garbage",
            2 => b"\x16\x03\x01\xFF\xFFgarbage garbage garbage",
            3 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            _ => b"\x00\x01\xFF\xFC",
        };
        let _ = stream.write_all(words).await;
        open.push(stream);
        if n % 100 == 50 {
            to_bob.send(n.to_be_bytes()).await.unwrap();
            assert_eq!(soon("a message", from_ann.recv()).await.unwrap(), n.to_be_bytes()[..]);
        }
    }
    // Newcomers are let in, and STUN is answered.
    let cid = peer(&server).await;
    let to_cid = ann.client.signal(cid.identity.peer_id()).unwrap();
    to_cid.send("hello").await.unwrap();
    let from_ann = soon("the conversation", cid.client.accept()).await.unwrap();
    assert_eq!(soon("a message", from_ann.recv()).await.unwrap(), "hello");
    soon("the answer", stun::Client::new().server(server.addr()).ask()).await.unwrap();
    let counters = server.counters();
    assert!(counters.turned_away >= 100, "{counters:?}");
    assert!(counters.handshakes_failed >= 10, "{counters:?}");
    assert_eq!(counters.peers, 3);
}

#[tokio::test]
async fn peers_that_misbehave_are_dismissed_alone() {
    let server = server_with(Limits::default()).await;
    let (ann, bob) = (peer(&server).await, peer(&server).await);
    let mut unknown = Vec::new();
    Frame::Ping(1).write(&mut unknown);
    unknown[0] = 99;
    for words in
        [&b"\x08\xFF\xFF\xFF"[..], &unknown, b"\x03\x00\x00\x01a", b"\x02\x00\x00\x07\x01\x00\x01\x00\x01\x00\x00"]
    {
        let mut stream = proved(&server).await;
        stream.write_all(words).await.unwrap();
        // It is told goodbye and closed.
        let mut said = Vec::new();
        let _ = soon("the end", stream.read_to_end(&mut said)).await;
        assert_eq!(said[said.len() - 5..], [12, 0, 0, 1, 7], "{said:?}");
    }
    assert_eq!(server.counters().violations, 4);
    let to_bob = ann.client.signal(bob.identity.peer_id()).unwrap();
    to_bob.send("unharmed").await.unwrap();
    let from_ann = soon("the conversation", bob.client.accept()).await.unwrap();
    assert_eq!(soon("a message", from_ann.recv()).await.unwrap(), "unharmed");
}

#[tokio::test]
async fn one_byte_at_a_time_is_slow_and_works() {
    let server = server_with(Limits::default()).await;
    let mut stream = proved(&server).await;
    let mut words = Vec::new();
    Frame::Hello { version: 1 }.write(&mut words);
    Frame::Ping(0x0102_0304).write(&mut words);
    for byte in words {
        stream.write_all(&[byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    let mut said = vec![0; 11 + 12];
    soon("welcome and pong", stream.read_exact(&mut said)).await.unwrap();
    assert_eq!(said[11..], [4, 0, 0, 8, 0, 0, 0, 0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn who_never_speaks_is_put_out() {
    let server = server_with(Limits::default().keepalive(Duration::from_secs(1))).await;
    let mut stream = proved(&server).await;
    let mut said = Vec::new();
    let _ = soon("the end", stream.read_to_end(&mut said)).await;
    assert_eq!(said[said.len() - 5..], [12, 0, 0, 1, 8], "silent: {said:?}");
}
