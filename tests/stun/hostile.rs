//! Servers that lie, answer twice, late, from elsewhere, with rubbish, or about another family.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use natpipe::stun::{BINDING, Class, Client, Message, TransactionId, Writer, kind};

use crate::{impatient, soon};

type Answers = Vec<(Duration, Vec<u8>)>;

/// A server that answers each request with whatever `answer` makes of its id and source, after the delay beside each.
fn server(answer: impl Fn(TransactionId, SocketAddr) -> Answers + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    std::thread::spawn(move || {
        let mut buf = [0; 1500];
        while let Ok((len, from)) = socket.recv_from(&mut buf) {
            let id = Message::parse(&buf[..len]).unwrap().id();
            for (delay, bytes) in answer(id, from) {
                std::thread::sleep(delay);
                socket.send_to(&bytes, from).unwrap();
            }
        }
    });
    at
}

fn success(id: TransactionId, mapped: SocketAddr) -> Vec<u8> {
    let mut out = vec![0; 200];
    let mut writer = Writer::new(&mut out, Class::Success, BINDING, id).unwrap();
    writer.xor_address(kind::XOR_MAPPED_ADDRESS, mapped).unwrap();
    let len = writer.finish();
    out.truncate(len);
    out
}

const NOW: Duration = Duration::ZERO;

#[tokio::test]
async fn rubbish_and_answers_to_other_questions_before_the_answer_are_dropped_and_counted() {
    let at = server(|id, from| {
        let other = success(TransactionId::modern([1; 12]), from);
        vec![(NOW, b"rubbish".to_vec()), (NOW, vec![0xFF; 1200]), (NOW, other), (NOW, success(id, from))]
    });
    let asked = soon("the answer", Client::new().server(at).ask_all()).await.unwrap();
    assert_eq!(asked.answers.len(), 1);
    assert_eq!((asked.dropped.malformed, asked.dropped.unmatched), (2, 1));
}

#[tokio::test]
async fn a_late_answer_to_the_first_request_counts_after_the_second_was_sent() {
    let at = server(|id, from| vec![(Duration::from_millis(120), success(id, from))]);
    let answer = soon("the answer", Client::new().server(at).timing(impatient()).ask()).await.unwrap();
    assert!(answer.requests > 1, "{}", answer.requests);
    assert_eq!(answer.round_trip, None, "which request it answers is not known");
}

#[tokio::test]
async fn an_answer_from_elsewhere_is_not_believed() {
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = server(move |id, from| {
        stranger.send_to(&success(id, "192.0.2.66:6".parse().unwrap()), from).unwrap();
        vec![(Duration::from_millis(20), success(id, from))]
    });
    let asked = soon("the answer", Client::new().server(at).ask_all()).await.unwrap();
    assert_eq!(asked.answers[0].mapped.ip().to_string(), "127.0.0.1");
    assert_eq!(asked.dropped.elsewhere, 1);
}

#[tokio::test]
async fn an_address_of_another_family_is_an_error_that_says_so() {
    let at = server(|id, _| vec![(NOW, success(id, "[2001:db8::1]:9".parse().unwrap()))]);
    let error = soon("the answer", Client::new().server(at).ask()).await.unwrap_err();
    assert!(error.to_string().contains("another family"), "{error}");
}

#[tokio::test]
async fn a_second_answer_changes_nothing() {
    let at = server(|id, from| {
        let lie = SocketAddr::new("192.0.2.66".parse().unwrap(), 6);
        vec![(NOW, success(id, from)), (NOW, success(id, lie))]
    });
    let asked = soon("the answer", Client::new().server(at).ask_all()).await.unwrap();
    assert_eq!(asked.answers.len(), 1);
    assert_eq!(asked.answers[0].mapped.ip().to_string(), "127.0.0.1");
}

#[tokio::test]
async fn an_address_that_can_be_nobodys_is_no_answer() {
    let at = server(|id, _| vec![(NOW, success(id, "0.0.0.0:0".parse().unwrap()))]);
    let error = soon("giving up", Client::new().server(at).timing(impatient()).ask()).await.unwrap_err();
    assert!(error.to_string().contains("did not answer"), "{error}");
}

#[tokio::test]
async fn a_server_that_sends_on_is_followed_and_one_that_sends_in_a_circle_is_left() {
    let second = natpipe::stun::Server::listen("127.0.0.1:0".parse().unwrap()).start().unwrap();
    let to = second.addr();
    let on = |to: SocketAddr| {
        move |id: TransactionId, _: SocketAddr| -> Answers {
            let mut out = vec![0; 200];
            let mut writer = Writer::new(&mut out, Class::Error, BINDING, id).unwrap();
            writer.error(300, "Try Alternate").unwrap().address(kind::ALTERNATE_SERVER, to).unwrap();
            let len = writer.finish();
            out.truncate(len);
            vec![(NOW, out)]
        }
    };
    let answer = soon("the answer", Client::new().server(server(on(to))).ask()).await.unwrap();
    assert_eq!(answer.from, to);
    // Two that send on to each other.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let first = server(on(socket.local_addr().unwrap()));
    std::thread::spawn(move || {
        let mut buf = [0; 1500];
        while let Ok((len, from)) = socket.recv_from(&mut buf) {
            let id = Message::parse(&buf[..len]).unwrap().id();
            socket.send_to(&on(first)(id, from)[0].1, from).unwrap();
        }
    });
    let error = soon("giving up", Client::new().server(first).ask()).await.unwrap_err();
    assert!(error.to_string().contains("sends on"), "{error}");
}
