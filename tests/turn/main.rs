//! The TURN client against coturn (Debian) on loopback.

mod coturn;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use coturn::Coturn;
use natpipe::Family;
use natpipe::pipe::tls::TlsClient;
use natpipe::turn::{Account, AllocateError, Allocation, Client, Lost, Over, PermitError, RelayError, TurnServer};
use ring::digest::{Context, SHA256};
use tokio::net::UdpSocket;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(30);
const ANN: &[&str] = &["-a", "-u", "ann:hush"];
const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn client(server: &Coturn, over: Over, account: Account) -> Client {
    let at = if over == Over::Tls { server.tls } else { server.at };
    let client = Client::new(TurnServer::new(at.ip().to_string(), at.port(), over, account));
    client.tls(TlsClient::trusting(&server.certificate()).unwrap())
}

fn ann() -> Account {
    Account::long_term("ann", "hush")
}

async fn allocated(client: &Client, server: &Coturn) -> Allocation {
    let allocated = timeout(LIMIT, client.allocate()).await.unwrap();
    allocated.unwrap_or_else(|error| panic!("{error}: {:?}\n{}", std::error::Error::source(&error), server.log()))
}

/// Somebody who answers each datagram with itself, turned around.
async fn echo() -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    let echoing = tokio::spawn(async move {
        let mut buf = vec![0; 1 << 16];
        while let Ok((len, from)) = socket.recv_from(&mut buf).await {
            buf[..len].reverse();
            let _ = socket.send_to(&buf[..len], from).await;
        }
    });
    (at, echoing)
}

/// Datagrams there and back, each once and whole, one at a time and in bursts.
async fn relays(allocation: &Allocation) {
    let (peer, echoing) = echo().await;
    timeout(LIMIT, allocation.permit(peer.ip())).await.unwrap().unwrap();
    let (mut there, mut back) = (Context::new(&SHA256), Context::new(&SHA256));
    for number in 0..400_u32 {
        let len = [0_usize, 1, 3, 1200, 1399][number as usize % 5];
        let datagram: Vec<u8> = (0..len).map(|at| (at as u32 ^ number) as u8).collect();
        there.update(&datagram);
        timeout(LIMIT, allocation.send_to(&datagram, peer)).await.unwrap().unwrap();
        let (mut heard, from) =
            timeout(LIMIT, allocation.recv_from()).await.unwrap().map(|(b, f)| (b.to_vec(), f)).unwrap();
        assert_eq!(from, peer);
        heard.reverse();
        back.update(&heard);
    }
    assert_eq!(there.finish().as_ref(), back.finish().as_ref());
    echoing.abort();
}

async fn relays_over(over: Over) {
    let server = Coturn::here(ANN);
    let allocation = allocated(&client(&server, over, ann()), &server).await;
    assert_eq!(allocation.relayed().ip(), LOOPBACK);
    assert!(allocation.mapped().is_some_and(|mapped| mapped.ip() == LOOPBACK));
    relays(&allocation).await;
    allocation.close().await;
    assert_eq!(allocation.lost().await, Lost::Closed);
}

#[tokio::test]
async fn datagrams_are_relayed_over_udp() {
    relays_over(Over::Udp).await;
}

#[tokio::test]
async fn datagrams_are_relayed_over_tcp() {
    relays_over(Over::Tcp).await;
}

#[tokio::test]
async fn datagrams_are_relayed_over_tls() {
    relays_over(Over::Tls).await;
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let server = Coturn::here(ANN);
    let stranger = Coturn::here(ANN);
    let trusting = client(&server, Over::Tls, ann()).tls(TlsClient::trusting(&stranger.certificate()).unwrap());
    let error = trusting.allocate().await.unwrap_err();
    assert!(matches!(error, AllocateError::Connect { .. }), "{error}");
}

#[tokio::test]
async fn an_account_made_of_a_shared_secret_is_good_until_it_ends() {
    let server = Coturn::here(&["--use-auth-secret", "--static-auth-secret", "north"]);
    let made = Account::shared_secret("ann", "north");
    relays(&allocated(&client(&server, Over::Udp, made), &server).await).await;
    // Made two seconds ago for one.
    let old = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() - 2;
    let (user, password) = (format!("{old}:ann"), password("north", &format!("{old}:ann")));
    for account in [Account::long_term(user, password), Account::shared_secret("ann", "south")] {
        let error = client(&server, Over::Udp, account).allocate().await.unwrap_err();
        assert!(matches!(&error, AllocateError::Refused { refused, .. } if refused.code == 401), "{error}");
    }
}

/// As coturn computes it.
fn password(secret: &str, user: &str) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    let mac = ring::hmac::sign(&key, user.as_bytes());
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in mac.as_ref().chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for digit in 0..4 {
            let shown = DIGITS[(bits >> (18 - 6 * digit)) as usize & 63];
            text.push(if digit <= three.len() { shown.into() } else { '=' });
        }
    }
    text
}

#[tokio::test]
async fn wrong_passwords_unknown_names_and_full_quotas_are_told_apart() {
    let server = Coturn::here(ANN);
    for account in [Account::long_term("ann", "guess"), Account::long_term("eve", "hush")] {
        for over in [Over::Udp, Over::Tcp] {
            let error = client(&server, over, account.clone()).allocate().await.unwrap_err();
            assert!(matches!(&error, AllocateError::Refused { refused, .. } if refused.code == 401), "{error}");
        }
    }
    let server = Coturn::here(&["-a", "-u", "ann:hush", "-q", "1"]);
    let ours = client(&server, Over::Udp, ann());
    let first = allocated(&ours, &server).await;
    let error = ours.allocate().await.unwrap_err();
    assert!(matches!(&error, AllocateError::Refused { refused, .. } if refused.code == 486), "{error}");
    first.close().await;
    // Its count follows a moment later.
    let deadline = tokio::time::Instant::now() + LIMIT;
    let second = loop {
        match ours.allocate().await {
            Ok(allocation) => break allocation,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    relays(&second).await;
}

#[tokio::test]
async fn who_is_forbidden_is_named_and_others_are_let_in() {
    let server = Coturn::here(&["-a", "-u", "ann:hush", "--denied-peer-ip", "10.0.0.0-10.255.255.255"]);
    let allocation = allocated(&client(&server, Over::Udp, ann()), &server).await;
    let error = allocation.permit([10, 1, 2, 3].into()).await.unwrap_err();
    assert!(matches!(&error, PermitError::Refused { refused, .. } if refused.code == 403), "{error}");
    let error = allocation.permit("::1".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, PermitError::Family { .. }), "{error}");
    let unknown = allocation.send_to(b"x", SocketAddr::from(([192, 0, 2, 1], 9))).await.unwrap_err();
    assert_eq!(unknown.kind(), std::io::ErrorKind::PermissionDenied);
    relays(&allocation).await;
}

#[tokio::test]
async fn a_stranger_is_not_heard_before_it_is_let_in() {
    let server = Coturn::here(ANN);
    let allocation = allocated(&client(&server, Over::Udp, ann()), &server).await;
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    stranger.send_to(b"before", allocation.relayed()).await.unwrap();
    // Answered after the server has come round to what waited at the relayed address.
    for other in [[192, 0, 2, 1], [192, 0, 2, 2]] {
        allocation.permit(other.into()).await.unwrap();
    }
    allocation.permit(LOOPBACK).await.unwrap();
    stranger.send_to(b"after", allocation.relayed()).await.unwrap();
    let (heard, from) = timeout(LIMIT, allocation.recv_from()).await.unwrap().unwrap();
    assert_eq!((&heard[..], from), (&b"after"[..], stranger.local_addr().unwrap()));
}

#[tokio::test]
async fn nonces_that_grow_stale_every_second_change_nothing() {
    let server = Coturn::here(&["-a", "-u", "ann:hush", "--stale-nonce=1"]);
    let allocation = allocated(&client(&server, Over::Udp, ann()), &server).await;
    for n in 1..=6 {
        tokio::time::sleep(Duration::from_millis(1200)).await;
        timeout(LIMIT, allocation.permit([127, 0, 0, n].into())).await.unwrap().unwrap();
    }
    relays(&allocation).await;
}

#[tokio::test]
async fn a_server_that_goes_away_is_noticed() {
    for over in [Over::Tcp, Over::Tls, Over::Udp] {
        let mut server = Coturn::here(ANN);
        let allocation = allocated(&client(&server, over, ann()), &server).await;
        allocation.permit(LOOPBACK).await.unwrap();
        server.stop();
        let lost = async {
            tokio::select! {
                lost = allocation.lost() => lost,
                // Over UDP it is noticed by what is sent.
                () = async { loop {
                    let _ = allocation.send_to(b"x", SocketAddr::from(([127, 0, 0, 1], 9))).await;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                } } => unreachable!(),
            }
        };
        let lost = timeout(LIMIT, lost).await.unwrap();
        assert!(matches!(lost, Lost::Broken(_)), "{over:?}: {lost}");
        assert!(allocation.recv_from().await.is_err() && allocation.permit(LOOPBACK).await.is_err());
    }
}

#[tokio::test]
async fn a_server_that_has_forgotten_us_is_believed() {
    let mut server = Coturn::here(ANN);
    let allocation = allocated(&client(&server, Over::Udp, ann()), &server).await;
    server.restart();
    let error = timeout(LIMIT, allocation.permit([127, 0, 0, 7].into())).await.unwrap().unwrap_err();
    // It calls the request bad, whatever is asked of an allocation that it does not have.
    assert!(matches!(&error, PermitError::Refused { .. } | PermitError::Lost(_)), "{error:?}");
    let lost = timeout(LIMIT, allocation.lost()).await.unwrap();
    assert!(matches!(&lost, Lost::Refused(refused) if refused.code == 437), "{lost}");
}

#[tokio::test]
async fn nobody_there_is_told_soon() {
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = nobody.local_addr().unwrap().port();
    let silent = Client::new(TurnServer::new("127.0.0.1", port, Over::Udp, ann()));
    let error = timeout(LIMIT, silent.allocate()).await.unwrap().unwrap_err();
    assert!(matches!(error, AllocateError::NoAnswer { .. }), "{error}");
    drop(nobody);
    for over in [Over::Udp, Over::Tcp] {
        let closed = Client::new(TurnServer::new("127.0.0.1", port, over, ann()));
        let error = timeout(LIMIT, closed.allocate()).await.unwrap().unwrap_err();
        assert!(matches!(error, AllocateError::Connect { .. }), "{error}");
    }
}

#[tokio::test]
async fn what_nobody_reads_is_bounded_and_the_newest_is_kept() {
    let server = Coturn::here(ANN);
    let allocation = allocated(&client(&server, Over::Tcp, ann()), &server).await;
    allocation.permit(LOOPBACK).await.unwrap();
    let flood = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for number in 0..5000_u32 {
        flood.send_to(&number.to_be_bytes(), allocation.relayed()).await.unwrap();
        if number % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    // All that was sent has come when this has: they go one after another.
    let mut heard = Vec::new();
    loop {
        flood.send_to(b"the end", allocation.relayed()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        while let Ok(Ok((bytes, _))) = timeout(Duration::from_millis(50), allocation.recv_from()).await {
            heard.push(bytes);
        }
        if heard.iter().any(|bytes| &bytes[..] == b"the end") {
            break;
        }
    }
    assert!(heard.len() <= 520, "{} were kept", heard.len());
}

#[tokio::test]
async fn a_relayed_address_of_another_family_is_asked_for_and_refused_where_there_is_none() {
    let server = Coturn::here(ANN);
    let error = client(&server, Over::Udp, ann()).family(Family::V6).allocate().await.unwrap_err();
    assert!(matches!(&error, AllocateError::Refused { refused, .. } if refused.code == 440), "{error}");
}

/// A server that answers every request with these bytes, its transaction id written into them.
async fn liar(answer: Vec<u8>) -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut buf = [0; 2048];
        while let Ok((len, from)) = socket.recv_from(&mut buf).await {
            let mut answer = answer.clone();
            if len >= 20 && answer.len() >= 20 {
                answer[4..20].copy_from_slice(&buf[4..20]);
            }
            let _ = socket.send_to(&answer, from).await;
        }
    });
    port
}

#[tokio::test]
async fn servers_that_make_no_sense_hold_nobody_up() {
    let success_without_address = [&[0x01, 0x03, 0, 0][..], &[0; 16]].concat();
    let redirect_in_a_circle = {
        let mut bytes = [&[0x01, 0x13, 0, 24][..], &[0; 16]].concat();
        bytes.extend([0, 9, 0, 4, 0, 0, 3, 0, 0x80, 0x23, 0, 8, 0, 1, 0, 9, 127, 0, 0, 1, 0, 0, 0, 0]);
        bytes[3] = 20;
        bytes.truncate(40);
        bytes
    };
    for (name, answer) in [
        ("no address", success_without_address),
        ("elsewhere", redirect_in_a_circle),
        ("noise", vec![0xFF; 500]),
        ("channel data", vec![0x40, 0, 0xFF, 0xFF, 1, 2, 3]),
        ("nothing", Vec::new()),
    ] {
        let port = liar(answer).await;
        let asked = Client::new(TurnServer::new("127.0.0.1", port, Over::Udp, ann()));
        let error = timeout(LIMIT, asked.allocate()).await.unwrap_or_else(|_| panic!("{name}")).unwrap_err();
        println!("{name}: {error}");
    }
}

// ---- connections (RFC 6062)

/// Bytes there and back through a relayed connection, and its end.
async fn carries(pipe: natpipe::Pipe, mut far: tokio::net::TcpStream) {
    let (mut sent, mut got) = (Context::new(&SHA256), Context::new(&SHA256));
    let echo = tokio::spawn(async move {
        let (mut read, mut write) = far.split();
        // The server may reset what it closes.
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    let back = pipe.clone();
    let send = async {
        for number in 0..64_u32 {
            let piece: Vec<u8> = (0..16_384_u32).map(|at| (at.wrapping_mul(number | 1) >> 5) as u8).collect();
            sent.update(&piece);
            pipe.send(piece).await.unwrap();
        }
    };
    let receive = async {
        let mut left = 64 * 16_384;
        while left > 0 {
            let message = timeout(LIMIT, back.recv_within(None)).await.unwrap().unwrap();
            left -= message.data.len();
            got.update(&message.data);
        }
    };
    tokio::join!(send, receive);
    assert_eq!(sent.finish().as_ref(), got.finish().as_ref());
    pipe.close().await;
    timeout(LIMIT, echo).await.unwrap().unwrap();
}

#[tokio::test]
async fn connections_are_relayed_both_ways_over_tcp_and_tls() {
    for over in [Over::Tcp, Over::Tls] {
        let server = Coturn::here(ANN);
        let allocation = timeout(LIMIT, client(&server, over, ann()).allocate_tcp()).await.unwrap().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (pipe, accepted) = tokio::join!(
            timeout(LIMIT, allocation.connect(listener.local_addr().unwrap())),
            timeout(LIMIT, listener.accept())
        );
        let (far, from) = accepted.unwrap().unwrap();
        assert_eq!(from.port(), allocation.relayed().port(), "the peer sees the relayed address");
        carries(pipe.unwrap().unwrap(), far).await;
        let (far, accepted) = tokio::join!(
            timeout(LIMIT, tokio::net::TcpStream::connect(allocation.relayed())),
            timeout(LIMIT, allocation.accept())
        );
        let (far, (pipe, peer)) = (far.unwrap().unwrap(), accepted.unwrap().unwrap());
        assert_eq!(peer, far.local_addr().unwrap());
        carries(pipe, far).await;
        allocation.close().await;
    }
}

#[tokio::test]
async fn a_peer_that_is_not_there_is_told_and_over_udp_there_are_no_connections() {
    let server = Coturn::here(ANN);
    let error = client(&server, Over::Udp, ann()).allocate_tcp().await.unwrap_err();
    assert!(matches!(error, AllocateError::Connect { .. }), "{error}");
    let allocation = client(&server, Over::Tcp, ann()).allocate_tcp().await.unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = timeout(LIMIT * 2, allocation.connect(closed)).await.unwrap().unwrap_err();
    assert!(matches!(&error, RelayError::Refused { refused, .. } if refused.code == 447), "{error:?}");
}
