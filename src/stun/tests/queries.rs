//! Several servers are asked, and the first good answer counts.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use super::{addr, id_of, ms, written};
use crate::stun::{Class, Corner, Event, Failure, Query, Request, Transmit, kind};

const MAPPED: &str = "198.51.100.7:4000";

fn servers(count: u8) -> Vec<SocketAddr> {
    (1..=count).map(|n| SocketAddr::from(([192, 0, 2, n], 3478))).collect()
}

fn begin(count: u8, stagger: u64) -> (Query, Instant) {
    let now = Instant::now();
    let mut query = Query::new(&Request::new(), &servers(count), [5; 32], now).stagger(ms(stagger));
    query.handle_timeout(now);
    (query, now)
}

fn transmits(query: &mut Query) -> Vec<Transmit> {
    std::iter::from_fn(|| query.poll_transmit()).collect()
}

fn answer(query: &mut Query, now: Instant, to: &Transmit, mapped: &str) -> bool {
    let bytes = written(Class::Success, id_of(&to.bytes), |writer| {
        writer.xor_address(kind::XOR_MAPPED_ADDRESS, addr(mapped)).unwrap();
    });
    query.handle_packet(now, to.to, &bytes)
}

#[test]
fn all_are_asked_at_once_and_the_first_answer_ends_it() {
    let (mut query, now) = begin(3, 0);
    let sent = transmits(&mut query);
    assert_eq!(sent.iter().map(|t| t.to).collect::<Vec<_>>(), servers(3));
    assert!(answer(&mut query, now + ms(9), &sent[1], MAPPED));
    assert!(matches!(query.poll_event(), Some(Event::Answered(answer)) if answer.asked == servers(3)[1]));
    assert!(query.is_over());
    assert_eq!((query.poll_timeout(), query.poll_transmit()), (None, None));
}

#[test]
fn one_address_given_twice_is_one_server() {
    let now = Instant::now();
    let twice = [addr("192.0.2.1:3478"), addr("[::ffff:192.0.2.1]:3478")];
    let mut query = Query::new(&Request::new(), &twice, [5; 32], now);
    query.handle_timeout(now);
    assert_eq!(transmits(&mut query).len(), 1);
}

#[test]
fn further_servers_are_asked_step_by_step() {
    let (mut query, now) = begin(3, 100);
    for (step, server) in servers(3).into_iter().enumerate() {
        assert_eq!(transmits(&mut query).iter().map(|t| t.to).collect::<Vec<_>>(), [server]);
        let next = now + ms(100 * (step as u64 + 1));
        query.handle_timeout(next - ms(1));
        assert_eq!(transmits(&mut query), []);
        query.handle_timeout(next);
    }
}

#[test]
fn a_failure_lets_the_next_server_begin_at_once() {
    let (mut query, now) = begin(3, 10_000);
    let sent = transmits(&mut query);
    assert!(answer(&mut query, now + ms(9), &sent[0], "[2001:db8::1]:1"));
    assert!(matches!(query.poll_event(), Some(Event::Failed(Failure::Family { .. }))));
    assert!(!query.is_over());
    assert_eq!(query.poll_timeout(), Some(now + ms(9)));
    query.handle_timeout(now + ms(9));
    assert_eq!(transmits(&mut query)[0].to, servers(3)[1]);

    query.handle_unreachable(now + ms(20), servers(3)[1], io::ErrorKind::NetworkUnreachable.into());
    query.handle_timeout(now + ms(20));
    let sent = transmits(&mut query);
    assert_eq!(sent[0].to, servers(3)[2]);
    assert!(answer(&mut query, now + ms(30), &sent[0], MAPPED));
    assert!(query.is_over());
}

#[test]
fn an_answer_from_another_of_the_servers_is_not_believed() {
    let (mut query, now) = begin(2, 0);
    let mut sent = transmits(&mut query);
    sent[0].to = sent[1].to;
    assert!(answer(&mut query, now, &sent[0], MAPPED));
    assert!(!query.is_over());
    assert_eq!(query.dropped().elsewhere, 1);
}

#[test]
fn other_traffic_on_the_socket_is_left_to_others() {
    let (mut query, now) = begin(1, 0);
    let sent = transmits(&mut query);
    assert!(!query.handle_packet(now, sent[0].to, b"someone else's"));
    assert_eq!(query.dropped().malformed, 1);
}

#[test]
fn all_answers_are_heard_if_all_are_wanted() {
    let now = Instant::now();
    let mut query = Query::new(&Request::new(), &servers(3), [5; 32], now).wanted(3);
    query.handle_timeout(now);
    for (n, to) in transmits(&mut query).iter().enumerate() {
        assert!(!query.is_over());
        assert!(answer(&mut query, now, to, MAPPED), "{n}");
    }
    assert!(query.is_over());
    assert_eq!(std::iter::from_fn(|| query.poll_event()).count(), 3);
}

#[test]
fn silence_of_all_is_a_failure_of_each() {
    let (mut query, _) = begin(2, 100);
    for _ in 0..100 {
        let Some(next) = query.poll_timeout() else { break };
        query.handle_timeout(next);
    }
    assert!(query.is_over());
    let failed = std::iter::from_fn(|| query.poll_event());
    assert_eq!(failed.filter(|e| matches!(e, Event::Failed(Failure::NoAnswer { requests: 7, .. }))).count(), 2);
}

#[test]
fn nobody_to_ask_is_over_at_once() {
    let (mut query, _) = begin(0, 0);
    assert!(query.is_over());
    assert!(query.poll_event().is_none() && query.poll_timeout().is_none());
}

#[test]
fn our_client_and_our_server_understand_each_other() {
    let mut server = super::Server::with_one_address();
    let now = server.now;
    let mut query = Query::new(&Request::new(), &[addr("192.0.2.1:3478")], [5; 32], now);
    query.handle_timeout(now);
    let request = query.poll_transmit().unwrap();
    let (reply, to, _) = server.asked(Corner::PRIMARY, MAPPED, &request.bytes).unwrap();
    assert_eq!(to, addr(MAPPED));
    assert!(query.handle_packet(now + ms(5), request.to, &reply));
    let Some(Event::Answered(answer)) = query.poll_event() else { panic!("no answer") };
    assert_eq!((answer.mapped, answer.origin), (addr(MAPPED), Some(addr("192.0.2.1:3478"))));
}
