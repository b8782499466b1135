use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use tokio::net::UdpSocket;

use super::agree::SILENCE;
use super::bases::UdpBase;
use super::gather::Gathered;
use super::message::{CANDIDATES, Candidate, CandidateKind, Message};
use super::puncher::PATIENCE;
use super::*;
use crate::nat::Proto;
use crate::net::{Family, Interface};

/// A peer that says this and then no more.
struct Says(VecDeque<Bytes>);

impl Channel for Says {
    async fn send(&mut self, _: Bytes) -> io::Result<()> {
        Ok(())
    }

    async fn recv(&mut self) -> io::Result<Bytes> {
        match self.0.pop_front() {
            Some(message) => Ok(message),
            None => std::future::pending().await,
        }
    }
}

fn puncher() -> Puncher {
    let loopback = Interface::list().unwrap().into_iter().find_map(|interface| {
        interface.route(Family::V4).ok().filter(|route| route.nic().iter().any(|nic| nic.is_loopback()))
    });
    Puncher::new().route(&loopback.unwrap())
}

fn hello(tie: u64) -> Bytes {
    Message::Hello { tie, ufrag: "abcd".into(), password: "p".repeat(22) }.encode()
}

fn offer() -> Bytes {
    let addr = "192.0.2.1:9".parse().unwrap();
    let candidate = Candidate::new(Proto::Udp, CandidateKind::Host, addr);
    Message::Offer { more: false, candidates: vec![candidate], shape: None }.encode()
}

async fn fails(said: Vec<Bytes>) -> PunchError {
    puncher().punch(Proto::Udp, &mut Says(said.into())).await.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_starts_is_not_awaited_for_ever() {
    let error = fails(vec![]).await;
    assert!(matches!(error, PunchError::Silent { limit: PATIENCE, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_falls_silent_is_not_awaited_for_ever_whoever_controls() {
    for tie in [0, u64::MAX] {
        for said in [vec![hello(tie)], vec![hello(tie), offer()], vec![hello(tie), Message::Pong.encode()]] {
            let error = fails(said).await;
            assert!(matches!(error, PunchError::Silent { limit: SILENCE, .. }), "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_speaks_out_of_turn_is_told_from_one_that_is_silent() {
    let again = Message::decode(&hello(5)).unwrap();
    let offered = Message::decode(&offer()).unwrap();
    for said in [vec![again], vec![Message::Pong; 3], vec![offered.clone(), offered]] {
        let said = said.iter().map(Message::encode).collect::<Vec<_>>();
        let error = fails([vec![hello(u64::MAX)], said].concat()).await;
        assert!(matches!(error, PunchError::OutOfTurn(_)), "{error}");
    }
    let error = fails(vec![offer()]).await;
    assert!(matches!(error, PunchError::OutOfTurn(_)), "an offer before the greeting: {error}");
    let error = fails([vec![hello(u64::MAX)], vec![Message::Ping.encode(); 100]].concat()).await;
    assert!(matches!(error, PunchError::OutOfTurn(_)), "{error}");
}

/// One that always has another address keeps nobody waiting for ever; one that has said that it has no more has none.
#[tokio::test(start_paused = true)]
async fn a_peer_that_goes_on_finding_addresses_is_heard_a_bounded_number_of_times() {
    let Ok(Message::Offer { candidates, shape, .. }) = Message::decode(&offer()) else { panic!() };
    let more = Message::More { candidates: candidates.clone() }.encode();
    for (says, times) in [(true, CANDIDATES + 1), (false, 1)] {
        let offer = Message::Offer { more: says, candidates: candidates.clone(), shape }.encode();
        let said = [vec![hello(u64::MAX), offer], vec![more.clone(); times]].concat();
        let error = fails(said).await;
        assert!(matches!(error, PunchError::OutOfTurn(_)), "{says}: {error}");
    }
}

#[tokio::test]
async fn what_the_world_sees_is_offered_before_many_addresses_of_our_own() {
    let mut gathered = Gathered::default();
    for at in 0..20 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let local = SocketAddr::from(([10, 0, 0, at], 5000));
        let mapped = (at == 19).then(|| SocketAddr::from(([192, 0, 2, 1], 5000)));
        gathered.udp.push(UdpBase { socket, local, mapped, fresh: false });
    }
    let offered = gathered.offered();
    assert_eq!(offered.len(), CANDIDATES);
    assert!(offered.iter().any(|candidate| candidate.kind == CandidateKind::ServerReflexive));
}
