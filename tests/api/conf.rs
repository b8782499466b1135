//! Every key of the configuration has an effect.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use natpipe::net::Keepalive;
use natpipe::pipe::{OpenFailure, RecvError, SendError};
use natpipe::{End, NetConf, Pipe, Proto, pipe_open};
use socket2::Socket;

use crate::{Count, connected, datagrams, soon, until};

/// A socket opened with these options, to be asked for them.
async fn socket(proto: Proto, conf: NetConf) -> Socket {
    let pipe = pipe_open(proto).bind("127.0.0.1:0").conf(conf.sock_only(true)).await.unwrap();
    pipe.into_socket().unwrap()
}

#[tokio::test]
async fn options_of_the_socket_differ_from_the_systems_own() {
    let plain = socket(Proto::Tcp, NetConf::default()).await;
    let keepalive = Keepalive { idle: Duration::from_secs(31), interval: Duration::from_secs(7), retries: 3 };
    let conf = NetConf::default()
        .nodelay(true)
        .linger(Duration::from_secs(5))
        .keepalive(keepalive)
        .user_timeout(Duration::from_secs(62))
        .recv_buffer(77_000)
        .send_buffer(55_000)
        .tos(0xb8)
        .ttl(9)
        .reuse_addr(true)
        .reuse_port(true);
    let set = socket(Proto::Tcp, conf).await;
    assert!(!plain.tcp_nodelay().unwrap() && set.tcp_nodelay().unwrap());
    assert_eq!((plain.linger().unwrap(), set.linger().unwrap()), (None, Some(Duration::from_secs(5))));
    assert!(!plain.keepalive().unwrap() && set.keepalive().unwrap());
    assert_eq!(set.tcp_keepalive_time().unwrap(), Duration::from_secs(31));
    assert_eq!(set.tcp_keepalive_interval().unwrap(), Duration::from_secs(7));
    assert_eq!(set.tcp_keepalive_retries().unwrap(), 3);
    #[cfg(target_os = "linux")]
    assert_eq!(
        (plain.tcp_user_timeout().unwrap(), set.tcp_user_timeout().unwrap()),
        (None, Some(Duration::from_secs(62)))
    );
    assert_eq!(set.recv_buffer_size().unwrap(), 2 * 77_000);
    assert_eq!(set.send_buffer_size().unwrap(), 2 * 55_000);
    assert_eq!((plain.tos_v4().unwrap(), set.tos_v4().unwrap()), (0, 0xb8));
    assert_eq!((plain.ttl_v4().unwrap(), set.ttl_v4().unwrap()), (64, 9));
    assert!(!plain.reuse_address().unwrap() && set.reuse_address().unwrap());
    assert!(!plain.reuse_port().unwrap() && set.reuse_port().unwrap());
    let udp = socket(Proto::Udp, NetConf::default().broadcast(true)).await;
    assert!(udp.broadcast().unwrap());
    assert!(!socket(Proto::Udp, NetConf::default()).await.broadcast().unwrap());
}

#[tokio::test]
async fn options_hold_for_accepted_connections() {
    let server =
        pipe_open(Proto::Tcp).bind("127.0.0.1:0").conf(NetConf::default().linger(Duration::ZERO)).await.unwrap();
    let client = pipe_open(Proto::Tcp).dest(server.local_addr()).await.unwrap();
    let accepted = server.accept().await.unwrap();
    client.send("unread").await.unwrap();
    accepted.close().await;
    assert_eq!(soon("the end", client.ended()).await, End::Broken(std::io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn options_hold_on_ipv6() {
    let conf = NetConf::default().tos(0x28).ttl(17);
    let pipe = pipe_open(Proto::Udp).bind("[::1]:0").conf(conf.sock_only(true)).await.unwrap();
    let socket = pipe.into_socket().unwrap();
    assert_eq!((socket.tclass_v6().unwrap(), socket.unicast_hops_v6().unwrap()), (0x28, 17));
}

#[tokio::test]
async fn sock_proto_chooses_the_protocol_or_says_that_it_does_not_fit() {
    let error = pipe_open(Proto::Tcp).bind("127.0.0.1:0").conf(NetConf::default().sock_proto(17)).await.unwrap_err();
    assert!(error.to_string().contains("sock_proto"), "{error}");
    let tcp = socket(Proto::Tcp, NetConf::default().sock_proto(6)).await;
    assert_eq!(tcp.protocol().unwrap(), Some(socket2::Protocol::TCP));
}

#[tokio::test]
async fn reuse_port_lets_two_sockets_have_one_port_and_without_it_the_second_is_refused() {
    let shared = NetConf::default().reuse_port(true);
    let first = pipe_open(Proto::Udp).bind("127.0.0.1:0").conf(shared.clone()).await.unwrap();
    pipe_open(Proto::Udp).bind(first.local_addr()).conf(shared).await.unwrap();
    let error = pipe_open(Proto::Udp).bind(first.local_addr()).await.unwrap_err();
    assert!(error.to_string().contains("another socket has this port"), "{error}");
}

#[tokio::test]
async fn linger_zero_resets_instead_of_finishing() {
    let ends = connected(NetConf::default().linger(Duration::ZERO)).await;
    ends.accepted.send("unread").await.unwrap();
    ends.client.close().await;
    assert_eq!(soon("the end", ends.accepted.ended()).await, End::Broken(std::io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn con_timeout_limits_connecting() {
    // A backlog that is full answers no SYN.
    let listener = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let addr = listener.local_addr().unwrap().as_socket().unwrap();
    let conf = NetConf::default().con_timeout(Duration::from_millis(100));
    let mut held = Vec::new();
    let error = soon("the backlog is full", async {
        loop {
            match pipe_open(Proto::Tcp).dest(addr).conf(conf.clone()).await {
                Ok(pipe) => held.push(pipe),
                Err(error) => return error,
            }
        }
    })
    .await;
    assert!(matches!(error.kind(), OpenFailure::ConnectTimedOut { .. }), "{error}");
    assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn reader_limit_bounds_what_one_read_yields_and_drops_longer_datagrams() {
    let ends = connected(NetConf::default().reader_limit(10)).await;
    ends.client.send([7; 100]).await.unwrap();
    let mut got = 0;
    while got < 100 {
        let data = ends.accepted.recv().await.unwrap();
        assert!(data.len() <= 10);
        got += data.len();
    }
    let (server, client) = datagrams(NetConf::default().reader_limit(10)).await;
    client.send([7; 11]).await.unwrap();
    client.send([8; 10]).await.unwrap();
    assert_eq!(server.recv().await.unwrap(), [8; 10][..]);
    assert_eq!(server.counters().dropped, 1);
}

#[tokio::test]
async fn message_ids_drop_repetitions_from_the_same_port_only() {
    let conf = NetConf::default().enable_msg_ids(true).max_msg_ids(2);
    let server = pipe_open(Proto::Udp).bind("127.0.0.1:0").conf(conf).await.unwrap();
    let one = pipe_open(Proto::Udp).dest(server.local_addr()).await.unwrap();
    let two = pipe_open(Proto::Udp).dest(server.local_addr()).await.unwrap();
    for (client, text) in [(&one, "a"), (&one, "a"), (&two, "a"), (&one, "b"), (&one, "a")] {
        client.send(text).await.unwrap();
    }
    let mut got = Vec::new();
    while let Ok(message) = server.recv_within(Duration::from_millis(300)).await {
        got.push(String::from_utf8(message.data.to_vec()).unwrap());
    }
    assert_eq!(got, ["a", "a", "b", "a"], "two are remembered, so the first has been forgotten by the end");
    assert_eq!(server.counters().duplicates, 1);
}

#[tokio::test]
async fn send_retry_repeats_a_request_until_a_reply_comes() {
    let asked = Count::default();
    let heard = asked.clone();
    let server = pipe_open(Proto::Udp)
        .bind("127.0.0.1:0")
        .msg_cb(move |data, _, pipe: Pipe| {
            heard.up();
            let third = heard.get() == 3;
            async move {
                if third {
                    pipe.send(data).await.unwrap();
                }
            }
        })
        .await
        .unwrap();
    let conf = NetConf::default().recv_timeout(Duration::from_millis(50));
    let client = pipe_open(Proto::Udp).dest(server.local_addr()).conf(conf.clone()).await.unwrap();
    assert_eq!(client.request("now?").await.unwrap().data, "now?");
    assert_eq!(asked.get(), 3, "once, and the two retries of the default");
    let hasty = pipe_open(Proto::Udp).dest(server.local_addr()).conf(conf.send_retry(0)).await.unwrap();
    assert_eq!(hasty.request("now?").await.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(asked.get(), 4);
}

#[tokio::test]
async fn sock_only_reads_nothing_and_hands_out_the_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let pipe = pipe_open(Proto::Tcp).dest(addr).conf(NetConf::default().sock_only(true)).await.unwrap();
    let (mut far, _) = listener.accept().unwrap();
    far.write_all(b"for the socket").unwrap();
    assert!(matches!(pipe.recv().await, Err(RecvError::SocketOnly)));
    assert!(matches!(pipe.send("x").await, Err(SendError::SocketOnly)));
    let socket = pipe.into_socket().unwrap();
    socket.set_nonblocking(false).unwrap();
    let mut got = [0; 14];
    (&socket).read_exact(&mut got).unwrap();
    assert_eq!(&got, b"for the socket");
}

#[tokio::test]
async fn without_do_close_a_given_socket_comes_back_from_a_failure() {
    let refused = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    for (do_close, comes_back) in [(true, false), (false, true)] {
        let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let opening = pipe_open(Proto::Tcp).dest(refused).sock(socket).conf(NetConf::default().do_close(do_close));
        let error = opening.await.unwrap_err();
        assert_eq!(error.into_socket().is_some(), comes_back);
    }
}

#[tokio::test]
async fn without_do_close_a_broken_pipe_stays_open_until_it_is_closed() {
    for do_close in [true, false] {
        let server = pipe_open(Proto::Tcp).bind("127.0.0.1:0").conf(NetConf::default().do_close(do_close));
        let server = server.await.unwrap();
        let conf = NetConf::default().linger(Duration::ZERO);
        let client = pipe_open(Proto::Tcp).dest(server.local_addr()).conf(conf).await.unwrap();
        let accepted = server.accept().await.unwrap();
        accepted.send("unread").await.unwrap();
        client.close().await;
        assert!(matches!(soon("the end", accepted.ended()).await, End::Broken(_)));
        if do_close {
            until("it closes by itself", || !accepted.is_open()).await;
        } else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(accepted.is_open());
            accepted.close().await;
        }
    }
}

#[test]
fn a_runtime_can_be_given_and_without_any_the_error_says_so() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let conf = NetConf::default().runtime(runtime.handle().clone());
    let outside = tokio::runtime::Builder::new_current_thread().build().unwrap();
    outside.block_on(async {
        let server = pipe_open(Proto::Udp).bind("127.0.0.1:0").conf(conf.clone()).await.unwrap();
        let client = pipe_open(Proto::Udp).dest(server.local_addr()).conf(conf.clone()).await.unwrap();
        client.send("hello").await.unwrap();
        assert_eq!(server.recv_within(None).await.unwrap().data, "hello");
    });
    let error = Pipe::pair(10, NetConf::default()).unwrap_err();
    assert!(matches!(error.kind(), OpenFailure::NoRuntime));
}
