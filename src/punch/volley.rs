//! Decides: which of many packets goes out when, so that no router is hurt.

use std::time::{Duration, Instant};

use super::plan::Plan;
use crate::nat::Proto;

/// Packets a second where one end tries ports.
const SPRAY: u32 = 1000;
/// Packets a second where both do, and for the first packets of many sockets.
const CROSS: u32 = 2500;
/// And where this was asked for.
const ALL_OUT: u32 = 8000;
/// More than this many packets are only sent when asked for.
const MANY: usize = 17_000;
/// After so long ordinary punching has come through where the peers are not far apart. The same at both ends, whatever they
/// have measured.
const HEAD_START: Duration = Duration::from_millis(200);
/// The end that sprays begins later than the one that opens.
const LATER: Duration = Duration::from_millis(100);
/// What opened the first time with few hops is opened again with all of them.
const AGAIN: Duration = Duration::from_secs(2);

/// One packet: from which socket, to which of the ports, and whether it may go all the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shot {
    /// Which of the plan's sockets.
    pub socket: usize,
    /// Which of its ports, where it has several.
    pub target: usize,
    /// True for one that is to die before the peer's NAT.
    pub primes: bool,
    /// True for one that goes to one of many ports from the one socket that is punched from anyway.
    pub sprays: bool,
}

/// What a plan sends, in time.
#[derive(Debug)]
pub struct Volley {
    sockets: usize,
    rounds: Vec<Round>,
    sent: usize,
}

/// So many packets, each once.
#[derive(Debug)]
struct Round {
    begins: Instant,
    packets: usize,
    per_second: u32,
    primes: bool,
    sprays: bool,
}

impl Round {
    fn new(begins: Instant, packets: usize, per_second: u32) -> Self {
        Self { begins, packets, per_second, primes: false, sprays: false }
    }

    fn priming(self) -> Self {
        Self { primes: true, ..self }
    }

    fn spraying(self) -> Self {
        Self { sprays: true, ..self }
    }

    fn ends(&self) -> Instant {
        self.begins + Duration::from_secs(1) * self.packets as u32 / self.per_second
    }
}

impl Volley {
    /// What a plan sends, if anything, when both ends begin now. Over TCP each packet is an attempt to connect, and none is
    /// sent with few hops: the kernel gives up when a router reports that they ran out.
    ///
    /// A plain Linux router moves the mapping of its own host when the other end's packet comes first: over UDP the end that
    /// opens does so with few hops first, and where both try ports, both.
    pub fn of(proto: Proto, plan: &Plan, now: Instant) -> Option<Self> {
        let (begins, udp) = (now + HEAD_START, proto == Proto::Udp);
        let opens = |sockets| Round::new(begins, sockets, CROSS);
        let sprays = |ports: &[u16]| Round::new(begins + LATER, ports.len(), SPRAY).spraying();
        let (sockets, rounds) = match plan {
            Plan::Open { sockets, .. } if udp => {
                (*sockets, vec![opens(*sockets).priming(), Round::new(begins + AGAIN, *sockets, CROSS)])
            }
            Plan::Open { sockets, .. } => (*sockets, vec![opens(*sockets)]),
            Plan::Spray { ports, .. } => (1, vec![sprays(ports)]),
            Plan::Either { sockets, ports, .. } => (*sockets, vec![opens(*sockets).priming(), sprays(ports)]),
            Plan::Cross { sockets, ports, .. } if udp => {
                let rate = if ports.len() > MANY { ALL_OUT } else { CROSS };
                let first = Round::new(begins, ports.len(), rate).priming();
                let then = first.ends() + LATER;
                (*sockets, vec![first, Round::new(then, ports.len(), rate)])
            }
            Plan::Cross { sockets, ports, .. } => (*sockets, vec![Round::new(begins, ports.len(), CROSS)]),
            Plan::Meet | Plan::Hopeless { .. } => return None,
        };
        Some(Self { sockets, rounds, sent: 0 })
    }

    /// When the last packet goes out, if none is late.
    pub fn ends(&self) -> Option<Instant> {
        self.rounds.last().map(Round::ends)
    }

    /// When the first round is over.
    pub fn opened(&self) -> Option<Instant> {
        self.rounds.first().map(Round::ends)
    }

    /// When there is something to send again; `None` when all is sent.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let round = self.rounds.first()?;
        Some(round.begins + Duration::from_secs(1) * self.sent as u32 / round.per_second)
    }

    /// The next packet that is due.
    pub fn poll_shot(&mut self, now: Instant) -> Option<Shot> {
        if self.poll_timeout()? > now {
            return None;
        }
        let (at, round) = (self.sent, self.rounds.first()?);
        let shot = Shot { socket: at % self.sockets, target: at, primes: round.primes, sprays: round.sprays };
        self.sent += 1;
        if self.sent >= round.packets {
            self.rounds.remove(0);
            self.sent = 0;
        }
        Some(shot)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn all(plan: &Plan) -> Vec<(Duration, Shot)> {
        let start = Instant::now();
        let mut volley = Volley::of(Proto::Udp, plan, start).unwrap();
        let mut shots = Vec::new();
        while let Some(now) = volley.poll_timeout() {
            assert_eq!(volley.poll_shot(now - Duration::from_nanos(1)), None, "nothing is early");
            while let Some(shot) = volley.poll_shot(now) {
                shots.push((now - start, shot));
            }
        }
        shots
    }

    #[test]
    fn every_packet_goes_first_with_few_hops_and_then_all_the_way_and_never_faster_than_the_rate() {
        let plan = Plan::Cross { sockets: 40, ip: [192, 0, 2, 1].into(), ports: (1..=1120).collect() };
        let shots = all(&plan);
        let (primed, sent) = shots.split_at(1120);
        assert!(primed.iter().all(|(_, shot)| shot.primes) && sent.iter().all(|(_, shot)| !shot.primes));
        for round in [primed, sent] {
            let each: HashSet<(usize, usize)> = round.iter().map(|(_, shot)| (shot.socket, shot.target)).collect();
            assert_eq!((round.len(), each.len()), (1120, 1120));
            assert!(each.iter().all(|(socket, target)| *socket == target % 40));
        }
        let most = shots.windows(CROSS as usize / 10).map(|shots| shots[shots.len() - 1].0 - shots[0].0).min();
        assert!(most.unwrap() >= Duration::from_millis(99), "{most:?}");
    }

    #[test]
    fn what_was_asked_for_goes_faster_and_says_when_it_ends() {
        let plan = Plan::Cross { sockets: 256, ip: [192, 0, 2, 1].into(), ports: vec![7; 140_000] };
        let start = Instant::now();
        let ends = Volley::of(Proto::Udp, &plan, start).unwrap().ends().unwrap() - start;
        assert!((35..36).contains(&ends.as_secs()), "{ends:?}");
    }

    #[test]
    fn the_end_that_opens_does_so_first_with_few_hops_and_before_the_other_sprays() {
        let to = "192.0.2.1:5".parse().unwrap();
        let opened = all(&Plan::Open { sockets: 100, to });
        assert!(opened[..100].iter().all(|(_, shot)| shot.primes));
        assert!(opened[100..].iter().all(|(at, shot)| !shot.primes && *at >= AGAIN));
        let sprayed = all(&Plan::Spray { ip: [192, 0, 2, 1].into(), ports: vec![1, 2] });
        assert!(sprayed[0].0 > opened[99].0);
    }

    #[test]
    fn who_does_not_know_which_filter_is_open_opens_first_and_sprays_then() {
        let plan = Plan::Either {
            sockets: 100,
            to: "192.0.2.1:5".parse().unwrap(),
            ports: (1..=400).collect(),
            packets: 100_000,
        };
        let shots = all(&plan);
        assert!(shots[..100].iter().all(|(_, shot)| shot.primes && !shot.sprays));
        let sprayed: HashSet<usize> = shots[100..].iter().map(|(_, shot)| shot.target).collect();
        assert!(shots[100..].iter().all(|(_, shot)| !shot.primes && shot.sprays) && sprayed.len() == 400);
    }

    #[test]
    fn ends_that_need_nothing_send_nothing() {
        assert!(Volley::of(Proto::Udp, &Plan::Meet, Instant::now()).is_none());
        assert!(Volley::of(Proto::Udp, &Plan::Hopeless { packets: 5 }, Instant::now()).is_none());
    }
}
