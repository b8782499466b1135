//! Decides: how long an idle UDP binding lives, asked by RESPONSE-PORT (RFC 5780 sections 4.6 and 7.5).

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::probe::{Answer, Change, Effect, SocketId, Transmit};
use super::{Finding, Rng, Why};

/// Idle times that are tried unless others are given: the cliffs met in the field and the RFC's two minutes.
pub const AGES: [Duration; 8] = [
    Duration::from_secs(10),
    Duration::from_secs(20),
    Duration::from_secs(30),
    Duration::from_secs(45),
    Duration::from_secs(60),
    Duration::from_secs(90),
    Duration::from_secs(120),
    Duration::from_secs(180),
];

/// Sendings of one request, so that a lost packet is not taken for a dead binding, and the time between them.
const TRIES: u32 = 5;
const BETWEEN: Duration = Duration::from_millis(500);
/// The socket from which answers to the others are asked for.
const ASKER: usize = 0;

/// Measures one NAT's binding lifetime. Every age has a socket of its own and all grow old at once, so that
/// it takes as long as the oldest, or as the first that dies. Driven like a [`Probe`](super::probe::Probe).
#[derive(Debug)]
pub struct Lifetime {
    server: SocketAddr,
    local: IpAddr,
    rng: Rng,
    opened: Vec<bool>,
    trials: Vec<Trial>,
    effects: VecDeque<Effect>,
}

/// How long bindings lived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lived {
    /// The longest idle time after which a binding was still there.
    pub at_least: Duration,
    /// The shortest after which one was gone, unless all lived.
    pub less_than: Option<Duration>,
}

#[derive(Debug)]
struct Trial {
    socket: SocketId,
    age: Duration,
    id: [u8; 12],
    sent: u32,
    next: Duration,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its mapping is asked for.
    Learning,
    /// It grows old; `mapped` is its external port.
    Idle {
        mapped: u16,
    },
    /// An answer to it is asked for.
    Testing {
        mapped: u16,
    },
    Alive,
    Dead,
    /// Its mapping could not be learnt.
    Unknown,
}

impl Lifetime {
    /// Tests these idle times, from `local`, against a server that knows RESPONSE-PORT. `seed` as in
    /// [`Setup`](super::probe::Setup).
    pub fn new(local: IpAddr, server: SocketAddr, ages: &[Duration], seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        // The first is tested at once: if its answer does not come, the server does not know RESPONSE-PORT.
        let ages = [Duration::ZERO].into_iter().chain(ages.iter().copied());
        let trials: Vec<Trial> = ages
            .enumerate()
            .map(|(n, age)| Trial {
                socket: SocketId(n as u16 + 1),
                age,
                id: rng.id(),
                sent: 0,
                next: Duration::ZERO,
                stage: Stage::Learning,
            })
            .collect();
        let sockets = 0..=trials.len() as u16;
        let effects = sockets.clone().map(|n| Effect::Open { socket: SocketId(n), port: 0 }).collect();
        Self { server, local, rng, opened: sockets.map(|_| false).collect(), trials, effects }
    }

    /// The next thing to do, until `None`.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.is_done() || !self.is_open() {
            return None;
        }
        self.trials.iter().filter(|t| !t.stage.is_over()).map(|t| t.next).min()
    }

    /// True when no more can be learnt.
    pub fn is_done(&self) -> bool {
        let died = self.died();
        self.trials.iter().all(|t| t.stage.is_over() || died.is_some_and(|age| t.age > age))
    }

    /// What was learnt; [`Why::NoAnswer`] before the end as well.
    pub fn result(&self) -> Finding<Lived> {
        let stage = |wanted| self.trials.iter().filter(move |t| t.stage == wanted).map(|t| t.age);
        match (self.died(), self.trials.first().map(|t| t.stage)) {
            (_, Some(Stage::Dead)) => Finding::Untested(Why::NotHonoured),
            (less_than, Some(Stage::Alive)) => {
                let lived = stage(Stage::Alive).filter(|age| less_than.is_none_or(|died| *age < died));
                Finding::Known(Lived { at_least: lived.max().unwrap_or_default(), less_than })
            }
            _ => Finding::Untested(Why::NoAnswer),
        }
    }

    /// A socket is open. The address is not needed, the call is: all start together.
    pub fn handle_opened(&mut self, now: Duration, socket: SocketId, _local: SocketAddr) {
        if let Some(opened) = self.opened.get_mut(usize::from(socket.0)) {
            *opened = true;
        }
        self.handle_timeout(now);
    }

    /// A socket could not be opened: its age is left out.
    pub fn handle_open_failed(&mut self, now: Duration, socket: SocketId) {
        let lost = |t: &&mut Trial| usize::from(socket.0) == ASKER || t.socket == socket;
        self.trials.iter_mut().filter(lost).for_each(|t| t.stage = Stage::Unknown);
        self.handle_opened(now, socket, SocketAddr::new(self.local, 0));
    }

    /// A success response came to `socket` from `from`. What was not asked for is ignored.
    pub fn handle_answer(&mut self, now: Duration, socket: SocketId, from: SocketAddr, answer: Answer) {
        let fits = |t: &&mut Trial| t.socket == socket && t.id == answer.id && t.sent > 0;
        if let Some(trial) = self.trials.iter_mut().find(fits).filter(|_| from == self.server) {
            trial.heard(answer.mapped.port());
        }
        self.handle_timeout(now);
    }

    /// The time asked for has come.
    pub fn handle_timeout(&mut self, now: Duration) {
        if !self.is_open() {
            return;
        }
        for index in 0..self.trials.len() {
            if !self.is_done() && self.trials[index].next <= now {
                self.take_step(now, index);
            }
        }
    }

    fn is_open(&self) -> bool {
        self.opened.iter().all(|opened| *opened)
    }

    fn died(&self) -> Option<Duration> {
        self.trials.iter().filter(|t| t.stage == Stage::Dead).map(|t| t.age).min()
    }

    fn take_step(&mut self, now: Duration, index: usize) {
        let id = self.rng.id();
        let trial = &mut self.trials[index];
        match trial.stage {
            Stage::Idle { mapped } => {
                (trial.stage, trial.id, trial.sent) = (Stage::Testing { mapped }, id, 0);
            }
            Stage::Learning if trial.sent >= TRIES => trial.stage = Stage::Unknown,
            Stage::Testing { .. } if trial.sent >= TRIES => trial.stage = Stage::Dead,
            _ => {}
        }
        let (socket, response_port) = match trial.stage {
            Stage::Learning => (trial.socket, None),
            Stage::Testing { mapped } => (SocketId(ASKER as u16), Some(mapped)),
            _ => return,
        };
        trial.sent += 1;
        trial.next = now + BETWEEN;
        let transmit = Transmit { socket, to: self.server, change: Change::None, response_port, id: trial.id };
        self.effects.push_back(Effect::Send(transmit));
    }
}

impl Trial {
    /// An answer to its request came. A binding's idle time begins with the last sending.
    fn heard(&mut self, mapped: u16) {
        match self.stage {
            Stage::Learning => {
                self.stage = Stage::Idle { mapped };
                self.next = self.next.saturating_sub(BETWEEN) + self.age;
            }
            Stage::Testing { .. } => self.stage = Stage::Alive,
            _ => {}
        }
    }
}

impl Stage {
    fn is_over(self) -> bool {
        matches!(self, Self::Alive | Self::Dead | Self::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::model::{Lifetimes, Nat, Rules, Verdict, kinds};
    use crate::nat::{Delta, Kind, Packet, Proto};

    const SERVER: &str = "198.51.100.1:3478";

    #[test]
    fn every_kind_of_nat_shows_its_lifetime_even_with_losses() {
        for kind in [Kind::FullCone, Kind::PortRestricted, Kind::Symmetric, Kind::SymmetricFirewall] {
            for (seconds, at_least, less_than) in
                [(15, 10, Some(20)), (60, 45, Some(60)), (100, 90, Some(120)), (300, 180, None)]
            {
                let lived = measure(kind, Duration::from_secs(seconds), 0.02, true);
                let secs = Duration::from_secs;
                let expected = Lived { at_least: secs(at_least), less_than: less_than.map(secs) };
                assert_eq!(lived, Finding::Known(expected), "{kind} {seconds} s");
            }
        }
    }

    #[test]
    fn a_server_that_ignores_response_port_says_nothing_about_bindings() {
        let lived = measure(Kind::PortRestricted, Duration::from_secs(60), 0.0, false);
        assert_eq!(lived, Finding::Untested(Why::NotHonoured));
    }

    #[test]
    fn a_silent_server_ends_it_within_seconds() {
        let lived = measure(Kind::PortRestricted, Duration::from_secs(60), 1.0, true);
        assert_eq!(lived, Finding::Untested(Why::NoAnswer));
    }

    /// Runs it against the model, with a server that answers at once.
    fn measure(kind: Kind, udp: Duration, loss: f64, honours: bool) -> Finding<Lived> {
        let rules = Rules { lifetimes: Lifetimes { udp, ..Lifetimes::default() }, ..kinds::rules(kind, Delta::Random) };
        let mut nat = Nat::new(rules, vec!["203.0.113.1".parse().unwrap()], 1);
        let (local, server) = ("10.0.0.2".parse().unwrap(), SERVER.parse().unwrap());
        let mut test = Lifetime::new(local, server, &AGES, 1);
        let (mut now, mut rng) = (Duration::ZERO, Rng::new(8));
        loop {
            while let Some(effect) = test.poll_effect() {
                let socket = |id: SocketId| SocketAddr::new(local, 5000 + id.0);
                match effect {
                    Effect::Open { socket: id, .. } => test.handle_opened(now, id, socket(id)),
                    Effect::Send(sent) => {
                        let request = Packet { proto: Proto::Udp, ..Packet::udp(socket(sent.socket), server, "") };
                        let Verdict::Forward(seen) = nat.outbound(now, request) else { continue };
                        let port = sent.response_port.filter(|_| honours).unwrap_or(seen.src.port());
                        let answer = Packet::udp(server, SocketAddr::new(seen.src.ip(), port), "");
                        let Verdict::Forward(got) = nat.inbound(now, answer) else { continue };
                        let id = SocketId(got.dst.port() - 5000);
                        if !rng.chance(loss) {
                            test.handle_answer(now, id, server, Answer { id: sent.id, mapped: seen.src, other: None });
                        }
                    }
                }
            }
            let Some(next) = test.poll_timeout() else { break };
            assert!(next > now, "time goes on");
            now = next;
            test.handle_timeout(now);
        }
        assert!(test.is_done());
        test.result()
    }
}
