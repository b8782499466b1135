//! The NAT report with servers that misbehave: what could be learnt is told, and nothing that a liar made up.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use natpipe::Interface;
use natpipe::nat::{Entry, Finding, MeasureError, Prober, Proto, Why};
use natpipe::stun::{BINDING, Class, Message, Writer, kind};

use crate::{addr, server_of_four, soon};

/// Answers each request, this often and this late, with what `mapped` makes of its source.
fn server(times: usize, late: Duration, mapped: impl Fn(SocketAddr) -> SocketAddr + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    // The thread ends when nobody has asked for as long as no test takes.
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    std::thread::spawn(move || {
        let mut buf = [0; 1500];
        while let Ok((len, from)) = socket.recv_from(&mut buf) {
            let Ok(request) = Message::parse(&buf[..len]) else { continue };
            let mut out = [0; 200];
            let mut writer = Writer::new(&mut out, Class::Success, BINDING, request.id()).unwrap();
            writer.xor_address(kind::XOR_MAPPED_ADDRESS, mapped(from)).unwrap();
            let len = writer.finish();
            let sender = socket.try_clone().unwrap();
            std::thread::spawn(move || {
                std::thread::sleep(late);
                for _ in 0..times {
                    let _ = sender.send_to(&out[..len], from);
                }
            });
        }
    });
    at
}

/// UDP over loopback.
async fn learnt(servers: &[SocketAddr]) -> Entry {
    let lo = Interface::by_addr("127.0.0.1".parse().unwrap()).unwrap();
    let prober = Prober::new([lo]).family(natpipe::Family::V4).proto(Proto::Udp);
    let prober = servers.iter().fold(prober, |prober, server| prober.stun(*server));
    let report = soon("the report", prober.run()).await.unwrap();
    report.entries.into_iter().next().unwrap()
}

const NOW: Duration = Duration::ZERO;

#[tokio::test]
async fn a_server_that_answers_three_times_is_heard_once() {
    let entry = learnt(&[server(3, NOW, |from| from)]).await;
    assert_eq!((entry.translated, entry.asked, entry.answered), (Finding::Known(false), 1, 1));
    assert_eq!(entry.filtering, Finding::Untested(Why::OneAddress), "and it has one address");
}

/// Its answers come after requests were repeated: each is still the answer to its request.
#[tokio::test]
async fn a_server_that_answers_late_is_heard() {
    let entry = learnt(&[server(1, Duration::from_millis(300), |from| from)]).await;
    assert_eq!((entry.translated, entry.answered), (Finding::Known(false), 1));
    assert!(entry.samples > 0, "{entry:#?}");
}

#[tokio::test]
async fn a_server_that_tells_an_address_of_another_family_is_as_one_that_is_silent() {
    let strange = server(1, NOW, |from| SocketAddr::new("2001:db8::7".parse().unwrap(), from.port()));
    let entry = learnt(&[strange]).await;
    assert_eq!((entry.answered, entry.external), (0, None));
    assert_eq!(entry.mapping, Finding::Untested(Why::NoAnswer));
}

#[tokio::test]
async fn a_server_that_tells_all_the_same_is_not_believed_beside_an_honest_one() {
    let honest = server_of_four();
    let liar = server(1, NOW, |_| addr("203.0.113.66:4242"));
    let entry = learnt(&[liar, honest.addr()]).await;
    assert_eq!(entry.external, Some("127.0.0.1".parse().unwrap()), "{entry:#?}");
    assert_eq!(entry.translated, Finding::Known(false));
}

#[tokio::test]
async fn a_server_of_another_network_is_outvoted_by_two() {
    let (one, two) = (server_of_four(), server_of_four());
    let liar = server(1, NOW, |from| SocketAddr::new("203.0.113.66".parse().unwrap(), from.port()));
    let entry = learnt(&[liar, one.addr(), two.addr()]).await;
    assert_eq!((entry.external, entry.pooled), (Some("127.0.0.1".parse().unwrap()), false), "{entry:#?}");
}

#[tokio::test]
async fn without_a_server_or_an_interface_the_error_says_which() {
    let lo = || Interface::by_addr("127.0.0.1".parse().unwrap()).unwrap();
    let nobody = soon("the error", Prober::new([lo()]).run()).await;
    assert!(matches!(nobody, Err(MeasureError::NoServer)), "{nobody:?}");
    let nowhere = soon("the error", Prober::new([]).stun(addr("127.0.0.1:3478")).run()).await;
    assert!(matches!(nowhere, Err(MeasureError::NoInterface)), "{nowhere:?}");
    let v6 = Prober::new([lo()]).family(natpipe::Family::V6).stun(addr("127.0.0.1:3478"));
    assert!(soon("the error", v6.run()).await.is_err(), "no server has an address of this family");
}

/// Cancelling closes every socket: none is left in the process's table.
#[tokio::test]
async fn a_report_that_is_given_up_leaves_no_socket_behind() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let lo = Interface::by_addr("127.0.0.1".parse().unwrap()).unwrap();
    let prober = Prober::new([lo]).stun(silent.local_addr().unwrap()).proto(Proto::Udp);
    let mut running = Box::pin(prober.run());
    let (mut buf, mut asker) = ([0; 1500], None);
    silent.set_nonblocking(true).unwrap();
    while asker.is_none() {
        assert!(tokio::time::timeout(Duration::from_millis(5), &mut running).await.is_err(), "nobody answers");
        asker = silent.recv_from(&mut buf).ok().map(|(_, from)| from);
    }
    let asker = asker.unwrap();
    assert!(UdpSocket::bind(asker).is_err(), "its port is in use");
    drop(running);
    soon("the port is free", async {
        while UdpSocket::bind(asker).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
