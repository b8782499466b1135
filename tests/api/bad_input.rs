//! What a user or a peer can get wrong: each a typed error that names operation, target and cause.

use std::io::ErrorKind;

use natpipe::pipe::{AcceptError, OpenFailure, RecvError, SendError};
use natpipe::{End, Family, Interface, NetConf, Proto, pipe_open};

use crate::{Folder, connected, datagrams, soon};

async fn failure(proto: Proto, dest: &str) -> String {
    pipe_open(proto).dest(dest).await.unwrap_err().to_string()
}

#[tokio::test]
async fn destinations_that_do_not_parse_are_named_with_what_was_expected() {
    for (dest, expected) in [
        ("nowhere", "expected host:port"),
        ("host:port", "the port is a number"),
        ("host:70000", "the port is a number"),
        ("::1:80", "in brackets"),
        (":80", "the host is missing"),
        ("", "expected host:port"),
    ] {
        let error = failure(Proto::Tcp, dest).await;
        assert!(error.contains(expected) && error.contains(&format!("`{dest}`")), "{error}");
    }
}

#[tokio::test]
async fn a_refused_destination_is_an_error_at_once_that_names_it() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = pipe_open(Proto::Tcp).dest(free).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot connect to {free}: ")), "{error}");
    assert_eq!(std::io::Error::from(error).kind(), ErrorKind::ConnectionRefused);
    let folder = Folder::new();
    let error = pipe_open(Proto::Unix).dest(folder.path("absent")).await.unwrap_err();
    assert_eq!(std::io::Error::from(error).kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_refused_datagram_is_told_and_the_pipe_goes_on() {
    let (server, client) = datagrams(NetConf::default()).await;
    let addr = server.local_addr().clone();
    server.close().await;
    client.send("into the void").await.unwrap();
    let error = soon("the refusal", client.recv()).await.unwrap_err();
    assert_eq!(error, RecvError::Refused { peer: addr.clone(), kind: ErrorKind::ConnectionRefused });
    assert_eq!(client.counters().errors, 1);
    let again = pipe_open(Proto::Udp).bind(&addr).await.unwrap();
    client.send("back again").await.unwrap();
    assert_eq!(again.recv().await.unwrap(), "back again");
}

#[tokio::test]
async fn an_unreachable_destination_is_an_error() {
    let error = pipe_open(Proto::Udp).dest("255.255.255.255:9").await.unwrap_err();
    assert_eq!(std::io::Error::from(error).kind(), ErrorKind::PermissionDenied, "broadcast was not switched on");
}

#[tokio::test]
async fn a_port_in_use_is_named_with_what_to_try() {
    let server = pipe_open(Proto::Tcp).bind("127.0.0.1:0").await.unwrap();
    let error = pipe_open(Proto::Tcp).bind(server.local_addr()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&server.local_addr().to_string()) && text.contains("reuse_addr"), "{text}");
    assert_eq!(std::io::Error::from(error).kind(), ErrorKind::AddrInUse);
}

#[tokio::test]
async fn an_address_of_another_machine_can_not_be_bound() {
    let error = pipe_open(Proto::Udp).bind("192.0.2.1:0").await.unwrap_err();
    assert!(error.to_string().contains("no interface of this machine has this address"), "{error}");
}

#[tokio::test]
async fn a_route_and_a_destination_of_different_families_do_not_fit() {
    let lo = Interface::by_addr("127.0.0.1".parse().unwrap()).unwrap();
    let route = lo.route(Family::V4).unwrap();
    for proto in [Proto::Tcp, Proto::Udp] {
        let error = pipe_open(proto).dest("[::1]:9").route(&route).await.unwrap_err();
        assert!(matches!(error.kind(), OpenFailure::Family { .. }), "{error}");
    }
}

#[tokio::test]
async fn options_that_contradict_each_other_are_refused_before_anything_is_opened() {
    let unix = pipe_open(Proto::Unix).await.unwrap_err();
    assert!(unix.to_string().contains("path"), "{unix}");
    let tls = NetConf::default().use_ssl(true);
    let udp = pipe_open(Proto::Udp).dest("127.0.0.1:9").conf(tls.clone()).await.unwrap_err();
    assert!(udp.to_string().contains("datagrams"), "{udp}");
    let server = pipe_open(Proto::Tcp).bind("127.0.0.1:0").conf(tls).await.unwrap_err();
    assert!(server.to_string().contains("certificate"), "{server}");
}

#[tokio::test]
async fn a_datagram_too_long_for_the_network_is_not_sent_and_says_so() {
    let (_server, client) = datagrams(NetConf::default()).await;
    let error = client.send(vec![7; 70_000]).await.unwrap_err();
    assert!(matches!(&error, SendError::Io { .. }), "{error}");
    assert_eq!(client.counters().messages_out, 0);
}

#[tokio::test]
async fn sending_to_nobody_or_to_somebody_else_is_an_error() {
    let (server, client) = datagrams(NetConf::default()).await;
    assert!(matches!(server.send("to whom?").await, Err(SendError::NoDestination)));
    let other: std::net::SocketAddr = "127.0.0.1:9".parse().unwrap();
    assert!(matches!(client.send_to("x", other).await, Err(SendError::OtherDestination { .. })));
    let ends = connected(NetConf::default()).await;
    assert!(matches!(ends.server.send_to("x", other).await, Err(SendError::NoSuchClient { .. })));
    assert!(matches!(ends.server.send("x").await, Err(SendError::NoDestination)));
    assert!(matches!(ends.client.accept().await, Err(AcceptError::NotListening)));
}

#[tokio::test]
async fn a_peer_that_resets_in_the_middle_is_told_to_receiver_and_sender() {
    let ends = connected(NetConf::default().linger(std::time::Duration::ZERO)).await;
    ends.accepted.send("unread").await.unwrap();
    ends.client.close().await;
    let error = ends.accepted.recv().await.unwrap_err();
    assert_eq!(error, RecvError::Ended(End::Broken(ErrorKind::ConnectionReset)));
    soon("the sender is told", async { while ends.accepted.send("x").await.is_ok() {} }).await;
}

#[tokio::test]
async fn a_stale_unix_socket_is_replaced_only_where_that_is_asked_for() {
    let folder = Folder::new();
    let path = folder.path("stale");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let open = |conf| pipe_open(Proto::Unix).bind(path.clone()).conf(conf).into_future();
    assert!(open(NetConf::default()).await.unwrap_err().to_string().contains("reuse_addr"));
    let server = open(NetConf::default().reuse_addr(true)).await.unwrap();
    assert!(open(NetConf::default().reuse_addr(true)).await.is_err(), "one in use is never replaced");
    server.close().await;
    std::fs::write(&path, "a file").unwrap();
    assert!(open(NetConf::default().reuse_addr(true)).await.is_err(), "nor is a plain file");
}

#[tokio::test]
async fn an_address_that_would_not_be_used_is_refused() {
    let folder = Folder::new();
    let client = pipe_open(Proto::Unix).dest(folder.path("server")).bind(folder.path("client")).await;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let given = pipe_open(Proto::Udp).sock(socket).bind("127.0.0.1:0").await;
    for error in [client.unwrap_err(), given.unwrap_err()] {
        assert!(matches!(error.kind(), OpenFailure::Options { .. }), "{error}");
    }
}
