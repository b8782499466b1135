//! `pipe_open`: protocols, families, sockets that exist already.

use std::net::{TcpListener, TcpStream, UdpSocket};

use natpipe::pipe::SendError;
use natpipe::{Addr, Interface, NetConf, Proto, pipe_open};
use socket2::Socket;

use crate::{Folder, connected, datagrams, soon};

#[tokio::test]
async fn tcp_carries_bytes_both_ways_on_both_families() {
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let server = pipe_open(Proto::Tcp).bind(local).await.unwrap();
        let client = pipe_open(Proto::Tcp).dest(server.local_addr()).await.unwrap();
        let accepted = soon("accept", server.accept()).await.unwrap();
        client.send("there").await.unwrap();
        assert_eq!(accepted.recv().await.unwrap(), "there");
        accepted.send("and back").await.unwrap();
        assert_eq!(client.recv().await.unwrap(), "and back");
        assert_eq!(client.peer_addr(), Some(server.local_addr()));
        assert_eq!(accepted.peer_addr(), Some(client.local_addr()));
    }
}

#[tokio::test]
async fn udp_carries_datagrams_on_both_families_with_the_senders_address() {
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let server = pipe_open(Proto::Udp).bind(local).await.unwrap();
        let client = pipe_open(Proto::Udp).dest(server.local_addr()).await.unwrap();
        client.send("ping").await.unwrap();
        let message = server.recv_from().await.unwrap();
        assert_eq!((&message.data[..], &message.from), (&b"ping"[..], client.local_addr()));
        server.send_to("pong", message.from).await.unwrap();
        assert_eq!(client.recv().await.unwrap(), "pong");
    }
}

#[tokio::test]
async fn an_empty_datagram_arrives_as_an_empty_message() {
    let (server, client) = datagrams(NetConf::default()).await;
    client.send("").await.unwrap();
    assert_eq!(server.recv().await.unwrap(), "");
    assert_eq!(server.counters().messages_in, 1);
}

#[tokio::test]
async fn unix_sockets_carry_streams_and_their_file_goes_with_the_server() {
    let folder = Folder::new();
    let path = folder.path("socket");
    let server = pipe_open(Proto::Unix).bind(path.clone()).await.unwrap();
    let client = pipe_open(Proto::Unix).dest(path.clone()).await.unwrap();
    let accepted = soon("accept", server.accept()).await.unwrap();
    client.send("hello").await.unwrap();
    assert_eq!(accepted.recv().await.unwrap(), "hello");
    assert!(path.exists());
    server.close().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_unix_path_that_somebody_else_took_over_is_left_alone() {
    let folder = Folder::new();
    let path = folder.path("socket");
    let server = pipe_open(Proto::Unix).bind(path.clone()).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "not ours").unwrap();
    server.close().await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "not ours");
}

#[tokio::test]
async fn a_server_without_an_address_takes_both_families() {
    let server = pipe_open(Proto::Tcp).await.unwrap();
    let port = server.local_addr().port().unwrap();
    for host in ["127.0.0.1", "::1"] {
        let client = pipe_open(Proto::Tcp).dest((host, port)).await.unwrap();
        soon("accept", server.accept()).await.unwrap();
        drop(client);
    }
}

#[tokio::test]
async fn sockets_that_exist_are_wrapped_as_what_they_are() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let client = pipe_open(Proto::Tcp).dest(addr).sock(TcpStream::connect(addr).unwrap()).await.unwrap();
    let server = pipe_open(Proto::Tcp).sock(listener).await.unwrap();
    let accepted = soon("accept", server.accept()).await.unwrap();
    accepted.send("hi").await.unwrap();
    assert_eq!(client.recv().await.unwrap(), "hi");

    let unconnected = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let connects = pipe_open(Proto::Tcp).dest(addr).sock(unconnected).await.unwrap();
    assert_eq!(connects.peer_addr(), Some(&addr.into()));

    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let local = udp.local_addr().unwrap();
    let datagrams = pipe_open(Proto::Udp).sock(udp).await.unwrap();
    assert_eq!(datagrams.local_addr(), &local.into());
}

#[tokio::test]
async fn a_server_can_be_awaited_for_its_next_client() {
    let server = pipe_open(Proto::Tcp).bind("127.0.0.1:0").await.unwrap();
    for text in ["first", "second"] {
        let client = pipe_open(Proto::Tcp).dest(server.local_addr()).await.unwrap();
        client.send(text).await.unwrap();
        let accepted = (&server).await.unwrap();
        assert_eq!(accepted.recv().await.unwrap(), text);
    }
}

#[tokio::test]
async fn a_route_gives_the_source_address_and_the_port() {
    let lo = Interface::by_addr("127.0.0.1".parse().unwrap()).unwrap();
    let route = lo.route(natpipe::Family::V4).unwrap();
    let server = pipe_open(Proto::Tcp).route(&route).await.unwrap();
    let port = server.local_addr().port().unwrap();
    assert!(port > 0, "the kernel has chosen");
    let client = pipe_open(Proto::Tcp).dest(server.local_addr()).route(&route.bind(0)).await.unwrap();
    assert_eq!(client.local_addr().ip().unwrap().ip(), route.nic()[0]);
    let again = pipe_open(Proto::Udp).route(&route.bind(port)).await.unwrap();
    assert_eq!(again.local_addr().port(), Some(port));
}

#[tokio::test]
async fn memory_pairs_are_pipes_like_any_other() {
    let (a, b) = natpipe::Pipe::pair(16, NetConf::default()).unwrap();
    let sender = tokio::spawn(async move {
        a.send(vec![7; 1000]).await.unwrap();
        a.finish().await.unwrap();
        a.ended().await
    });
    assert_eq!(b.recv_n(1000).await.unwrap(), vec![7; 1000]);
    b.close().await;
    soon("the other end sees the end", sender).await.unwrap();
}

#[tokio::test]
async fn a_pipe_is_a_byte_stream_for_those_who_want_one() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let ends = connected(NetConf::default()).await;
    let mut near = ends.client.into_stream().await;
    let mut far = ends.accepted.into_stream().await;
    let data: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    let sent = data.clone();
    let sender = tokio::spawn(async move {
        near.write_all(&sent).await.unwrap();
        near.shutdown().await.unwrap();
        let mut back = Vec::new();
        near.read_to_end(&mut back).await.unwrap();
        back
    });
    let mut got = Vec::new();
    soon("the end of the stream", far.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, data);
    far.write_all(b"thanks").await.unwrap();
    drop(far);
    assert_eq!(soon("the answer", sender).await.unwrap(), b"thanks");
}

#[tokio::test]
async fn a_unix_client_is_sent_to_without_an_address_only_while_it_is_alone() {
    let folder = Folder::new();
    let path = folder.path("socket");
    let server = pipe_open(Proto::Unix).bind(path.clone()).await.unwrap();
    let first = pipe_open(Proto::Unix).dest(path.clone()).await.unwrap();
    let accepted = soon("accept", server.accept()).await.unwrap();
    server.send_to("you", Addr::Unnamed).await.unwrap();
    assert_eq!(first.recv().await.unwrap(), "you");
    let _second = pipe_open(Proto::Unix).dest(path).await.unwrap();
    let _other = soon("accept", server.accept()).await.unwrap();
    let error = server.send_to("which of you?", Addr::Unnamed).await.unwrap_err();
    assert!(matches!(error, SendError::NoSuchClient { .. }), "{error}");
    accepted.send("by its own pipe").await.unwrap();
    assert_eq!(first.recv().await.unwrap(), "by its own pipe");
}
