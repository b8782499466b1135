//! The server and the client over UDP, TCP and TLS, IPv4 and IPv6.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::Duration;

use natpipe::net::External;
use natpipe::pipe::tls::{Identity, TlsClient, TlsServer};
use natpipe::stun::{
    AskError, Change, Client, Credentials, Form, Limits, Message, Proof, Request, ServeError, Server, TransactionId,
};
use natpipe::{Family, Interface, NetConf, Proto, pipe_open};

use crate::{addr, impatient, server_of_four, soon};

#[tokio::test]
async fn a_client_learns_its_address_over_udp_and_tcp_in_both_families() {
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        let server = Server::listen(addr(listen)).start().unwrap();
        let client = Client::new().server(server.addr());
        for client in [client.clone(), client.tcp()] {
            let answer = soon("an answer", client.ask()).await.unwrap();
            assert_eq!(answer.mapped.ip(), server.addr().ip());
            assert_eq!((answer.from, answer.asked), (server.addr(), server.addr()));
        }
        assert_eq!(server.counters().answered, 2);
    }
}

#[tokio::test]
async fn a_server_that_takes_both_families_tells_each_client_its_own() {
    let server = Server::listen(addr("[::]:0")).start().unwrap();
    for host in ["127.0.0.1", "::1"] {
        let asked = std::net::SocketAddr::new(host.parse().unwrap(), server.addr().port());
        let answer = soon("an answer", Client::new().server(asked).ask()).await.unwrap();
        assert_eq!(answer.mapped.ip().to_string(), host);
    }
}

#[tokio::test]
async fn the_old_form_is_answered_in_the_old_words() {
    let server = server_of_four();
    let client = Client::new().server(server.addr()).form(Form::Classic);
    let answer = soon("an answer", client.ask()).await.unwrap();
    assert!(answer.classic);
    assert_eq!(answer.other, Some(server.addrs()[3]));
}

#[tokio::test]
async fn over_tls_the_certificate_must_be_for_the_name() {
    let identity = Identity::self_signed(&["127.0.0.1"]).unwrap();
    let binding = Server::listen(addr("127.0.0.1:0")).start().unwrap();
    let conf = NetConf::default().tls_server(TlsServer::new(identity.clone()).unwrap());
    let front = pipe_open(Proto::Tcp).bind("127.0.0.1:0").conf(conf).await.unwrap();
    let at = front.local_addr().ip().unwrap();
    let inner = binding.addr();
    let serving = tokio::spawn(async move {
        while let Ok(client) = front.accept().await {
            let server = pipe_open(Proto::Tcp).dest(inner).await.unwrap();
            client.add_pipe(&server);
            server.add_pipe(&client);
        }
    });
    let trusting = TlsClient::trusting(&identity.root_pem()).unwrap();
    let answer = soon("an answer", Client::new().server(at).tls(trusting).ask()).await.unwrap();
    assert_eq!(answer.mapped.ip(), inner.ip());
    let other = Identity::self_signed(&["127.0.0.1"]).unwrap();
    let distrusting = TlsClient::trusting(&other.root_pem()).unwrap();
    let error = soon("a refusal", Client::new().server(at).tls(distrusting).ask()).await.unwrap_err();
    assert!(error.to_string().contains("can not reach"), "{error}");
    serving.abort();
}

#[tokio::test]
async fn a_route_knows_its_external_address_once_it_was_asked_for() {
    let server = Server::listen(addr("127.0.0.1:0")).start().unwrap();
    let route = Interface::by_addr("127.0.0.1".parse().unwrap()).unwrap().route(Family::V4).unwrap();
    assert_eq!(route.external(), External::Unknown);
    soon("an answer", Client::new().server(server.addr()).route(&route).ask()).await.unwrap();
    assert_eq!(route.external(), External::Known(vec!["127.0.0.1".parse().unwrap()]));
}

#[tokio::test]
async fn the_first_good_answer_counts_though_others_are_dead() {
    let server = Server::listen(addr("127.0.0.1:0")).start().unwrap();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = Client::new().server(silent.local_addr().unwrap()).server(server.addr());
    let answer = soon("an answer", client.ask()).await.unwrap();
    assert_eq!(answer.from, server.addr());
    let asked = soon("everything", client.timing(impatient()).ask_all()).await.unwrap();
    assert_eq!((asked.answers.len(), asked.failures.len()), (1, 1));
}

#[tokio::test]
async fn nobody_there_is_told_with_the_server_and_what_was_tried() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = silent.local_addr().unwrap();
    let error = soon("giving up", Client::new().server(at).timing(impatient()).ask()).await.unwrap_err();
    assert!(matches!(&error, AskError::NoAnswer(failures) if failures.len() == 1));
    assert!(error.to_string().contains(&at.to_string()), "{error}");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = soon("a refusal", Client::new().server(closed).tcp().ask()).await.unwrap_err();
    assert!(error.to_string().contains("can not reach"), "{error}");
    assert!(matches!(Client::new().ask().await, Err(AskError::NoServer)));
}

/// Sends one request from `socket`, and says where the answer came from.
fn ask_with_change(socket: &UdpSocket, server: std::net::SocketAddr, change: Change) -> Option<std::net::SocketAddr> {
    let request = Request::new().change(change).encode(TransactionId::modern([7; 12]), &Proof::default()).unwrap();
    let mut buf = [0; 1500];
    for _ in 0..3 {
        socket.send_to(&request, server).unwrap();
        match socket.recv_from(&mut buf) {
            Ok((len, from)) => {
                assert_eq!(Message::parse(&buf[..len]).unwrap().mapped(), socket.local_addr().ok());
                return Some(from);
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_four_sockets_answers_from_each_of_them() {
    let server = server_of_four();
    let addrs = server.addrs().to_vec();
    assert_eq!(addrs.len(), 4);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    for (asked, ip, port, from) in
        [(0, false, false, 0), (0, false, true, 1), (0, true, false, 2), (0, true, true, 3), (3, true, true, 0)]
    {
        let heard = ask_with_change(&socket, addrs[asked], Change { ip, port });
        assert_eq!(heard, Some(addrs[from]), "ip {ip} port {port}");
    }
    // With one address there is nowhere else to answer from: 420, which is no answer of the kind.
    let one = Server::listen(addr("127.0.0.1:0")).start().unwrap();
    let request = Request::new()
        .change(Change { ip: true, port: true })
        .encode(TransactionId::modern([8; 12]), &Proof::default())
        .unwrap();
    socket.send_to(&request, one.addr()).unwrap();
    let mut buf = [0; 1500];
    let (len, from) = socket.recv_from(&mut buf).unwrap();
    assert_eq!((from, Message::parse(&buf[..len]).unwrap().error().unwrap().code), (one.addr(), 420));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_asks_too_often_is_not_answered_and_others_are() {
    let limits = Limits::default().per_second(0).burst(5);
    let server = Server::listen(addr("127.0.0.1:0")).limits(limits).start().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let request = Request::new().encode(TransactionId::modern([9; 12]), &Proof::default()).unwrap();
    for _ in 0..50 {
        socket.send_to(&request, server.addr()).unwrap();
    }
    let other = UdpSocket::bind("127.0.0.2:0").unwrap();
    other.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    other.send_to(&request, server.addr()).unwrap();
    other.recv_from(&mut [0; 1500]).expect("another source is answered");
    let counters = server.counters();
    assert_eq!((counters.answered, counters.limited), (5 + 1, 45), "{counters:?}");
}

#[tokio::test]
async fn one_source_can_not_take_all_connections() {
    let server = Server::listen(addr("127.0.0.1:0")).start().unwrap();
    let mut held = Vec::new();
    for _ in 0..600 {
        held.push(tokio::net::TcpStream::connect(server.addr()).await.unwrap());
    }
    // Those over the limit are closed, the first ones stay.
    soon("the last one is closed", held[599].readable()).await.unwrap();
    assert_eq!(held[599].try_read(&mut [0; 1]).unwrap_or(0), 0);
    assert!(held[0].try_read(&mut [0; 1]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
}

#[tokio::test]
async fn several_requests_on_one_connection_are_answered_and_nonsense_ends_it() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = Server::listen(addr("127.0.0.1:0")).start().unwrap();
    let mut stream = tokio::net::TcpStream::connect(server.addr()).await.unwrap();
    let request = Request::new().encode(TransactionId::modern([9; 12]), &Proof::default()).unwrap();
    // Two at once, cut at an odd place.
    let both = [&request[..], &request[..]].concat();
    stream.write_all(&both[..27]).await.unwrap();
    tokio::task::yield_now().await;
    stream.write_all(&both[27..]).await.unwrap();
    let mut got = Vec::new();
    soon("two answers", async {
        while server.counters().answered < 2
            || natpipe::stun::next_message(&got, 1500).unwrap().is_none_or(|n| n * 2 > got.len())
        {
            stream.read_buf(&mut got).await.unwrap();
        }
    })
    .await;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    assert_eq!(soon("the end", stream.read_buf(&mut got)).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn addresses_that_make_no_server_are_refused_with_the_reason() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _holding = UdpSocket::bind(taken).unwrap();
    let error = Server::listen(taken).start().unwrap_err();
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
    let same_ip = Server::listen(addr("127.0.0.1:0")).listen2(addr("127.0.0.1:0")).start().unwrap_err();
    assert!(matches!(same_ip, ServeError::Addresses(_)), "{same_ip}");
    let any = Server::listen(addr("0.0.0.0:0")).listen2(addr("127.0.0.2:0")).start().unwrap_err();
    assert!(matches!(any, ServeError::Unspecified(_)), "{any}");
}

#[tokio::test]
async fn a_dropped_server_frees_its_ports() {
    let server = server_of_four();
    let addrs = server.addrs().to_vec();
    drop(server);
    soon("the ports", async {
        while addrs.iter().any(|at| UdpSocket::bind(at).is_err() || std::net::TcpListener::bind(at).is_err()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn with_credentials_an_unsigned_answer_is_not_believed() {
    let server = Server::listen(addr("127.0.0.1:0")).start().unwrap();
    let client = Client::new().server(server.addr()).credentials(Credentials::short_term("ann", "secret"));
    let error = soon("giving up", client.timing(impatient()).ask()).await.unwrap_err();
    assert!(error.to_string().contains("not signed"), "{error}");
}
