//! Decides: which of many packets goes out when, so that no router is hurt.

use std::time::{Duration, Instant};

use super::plan::Plan;
use crate::nat::Proto;

/// Packets a second where one end tries ports.
const SPRAY: u32 = 1000;
/// Packets a second where both do, and for the first packets of many sockets.
const CROSS: u32 = 2000;
/// And where this was asked for.
const ALL_OUT: u32 = 8000;
/// More than this many packets are only sent when asked for.
const MANY: usize = 12_500;
/// After so long ordinary punching would have come through.
const HEAD_START: Duration = Duration::from_millis(150);
/// The end that sprays begins later than the one that opens.
const LATER: Duration = Duration::from_millis(100);
/// What opened the first time with few hops is opened again with all of them.
const AGAIN: Duration = Duration::from_secs(2);

/// One packet: from which socket, to which of the ports, and whether it may go all the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shot {
    pub(super) socket: usize,
    pub(super) target: usize,
    pub(super) primes: bool,
}

/// Packets in time.
#[derive(Debug)]
pub(super) struct Volley {
    sockets: usize,
    targets: usize,
    rounds: Vec<Round>,
    sent: usize,
}

/// All packets once.
#[derive(Debug)]
struct Round {
    begins: Instant,
    per_second: u32,
    primes: bool,
}

impl Volley {
    /// What a plan sends, if anything, when both ends begin now. Over TCP each packet is an attempt to connect, and none is
    /// sent with few hops: the kernel gives up when a router reports that they ran out.
    pub(super) fn of(proto: Proto, plan: &Plan, round_trip: Duration, now: Instant) -> Option<Self> {
        let begins = now + HEAD_START.max(round_trip * 3 / 2);
        let round = |begins, per_second, primes| Round { begins, per_second, primes };
        let (sockets, targets, rounds) = match plan {
            Plan::Open { sockets, .. } if proto == Proto::Tcp => (*sockets, 1, vec![round(begins, CROSS, false)]),
            // A plain Linux router moves the mapping of its own host when the other end's packet comes first.
            Plan::Open { sockets, .. } => {
                (*sockets, 1, vec![round(begins, CROSS, true), round(begins + AGAIN, CROSS, false)])
            }
            Plan::Spray { ports, .. } => (1, ports.len(), vec![round(begins + LATER, SPRAY, false)]),
            Plan::Cross { sockets, ports, .. } => {
                let rate = if plan.cost() > MANY { ALL_OUT } else { CROSS };
                (*sockets, ports.len(), vec![round(begins, rate, false)])
            }
            Plan::Meet | Plan::Hopeless { .. } => return None,
        };
        Some(Self { sockets, targets, rounds, sent: 0 })
    }

    /// When there is something to send again; `None` when all is sent.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let round = self.rounds.first()?;
        Some(round.begins + Duration::from_secs(1) * self.sent as u32 / round.per_second)
    }

    /// The next packet that is due.
    pub(super) fn poll_shot(&mut self, now: Instant) -> Option<Shot> {
        if self.poll_timeout()? > now {
            return None;
        }
        let at = self.sent;
        let shot = Shot { socket: at % self.sockets, target: at / self.sockets, primes: self.rounds.first()?.primes };
        self.sent += 1;
        if self.sent >= self.sockets * self.targets {
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
        let mut volley = Volley::of(Proto::Udp, plan, Duration::ZERO, start).unwrap();
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
    fn every_socket_tries_every_port_once_and_never_faster_than_the_rate() {
        let plan = Plan::Cross { sockets: 40, ip: [192, 0, 2, 1].into(), ports: (1..=28).collect() };
        let shots = all(&plan);
        let each: HashSet<(usize, usize)> = shots.iter().map(|(_, shot)| (shot.socket, shot.target)).collect();
        assert_eq!((shots.len(), each.len()), (40 * 28, 40 * 28));
        let most = shots.windows(CROSS as usize / 10).map(|shots| shots[shots.len() - 1].0 - shots[0].0).min();
        assert!(most.unwrap() >= Duration::from_millis(99), "{most:?}");
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
    fn ends_that_need_nothing_send_nothing() {
        assert!(Volley::of(Proto::Udp, &Plan::Meet, Duration::ZERO, Instant::now()).is_none());
        assert!(Volley::of(Proto::Udp, &Plan::Hopeless { packets: 5 }, Duration::ZERO, Instant::now()).is_none());
    }
}
