//! Decides: what a probe sends next, and when it has learnt enough.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::plan::{self, Patience};
use super::{
    Answer, Asked, Change, Effect, Heard, Observations, Purpose, Server, Setup, SocketId, Transmit, classify, trust,
};
use crate::nat::{Entry, Family, Proto, Rng};

/// After the first answer, others are waited for this long at least before the servers to test with are chosen.
const GRACE: Duration = Duration::from_millis(30);

/// Tests one interface, family and protocol. See the module for the order of calls.
#[derive(Debug)]
pub struct Probe {
    setup: Setup,
    patience: Patience,
    rng: Rng,
    sockets: Vec<Socket>,
    pending: Vec<Pending>,
    by_id: HashMap<[u8; 12], usize>,
    seen: Observations,
    effects: VecDeque<Effect>,
    phase: Phase,
    round_trip: Option<Duration>,
    order: u32,
    rounds: u32,
}

#[derive(Debug)]
struct Socket {
    purpose: Purpose,
    local: Option<SocketAddr>,
    /// Its place in the order of sampling: the burst.
    burst: usize,
}

/// The repetitions of the request with the same index in the observations.
#[derive(Debug)]
struct Pending {
    transmit: Transmit,
    sent: u32,
    next: Duration,
    over: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// Sockets are being opened.
    Opening,
    /// Every server was asked once.
    Finding {
        first: Option<Duration>,
    },
    /// The tests run; the second burst of samples is still to come.
    Testing {
        again: Duration,
    },
    /// All is sent, answers are awaited.
    Waiting,
    Done,
}

impl Probe {
    /// A probe that wants its sockets opened.
    pub fn new(mut setup: Setup) -> Self {
        setup.servers = plan::servers(&setup.servers, setup.family());
        setup.lead =
            setup.lead.filter(|lead| setup.servers.get(*lead).is_some_and(|server| server.alternate.is_some()));
        let alternates = setup.servers.iter().map(|s| s.alternate.and_then(|o| plan::usable_alternate(s.primary, o)));
        let seen = Observations { alternates: alternates.collect(), ..Observations::default() };
        let mut probe = Self {
            patience: Patience::for_proto(setup.proto),
            rng: Rng::new(setup.seed),
            sockets: Vec::new(),
            pending: Vec::new(),
            by_id: HashMap::new(),
            seen,
            effects: VecDeque::new(),
            phase: if setup.servers.is_empty() { Phase::Done } else { Phase::Opening },
            round_trip: None,
            order: 0,
            rounds: 0,
            setup,
        };
        if probe.phase == Phase::Opening {
            probe.open_all();
        }
        probe
    }

    /// The next thing to do; `None` until something happens or the time of [`poll_timeout`](Self::poll_timeout) comes.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called, as time since the same start as all times given; `None`
    /// while sockets are opened and when all is done.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let repeats = self.pending.iter().filter(|p| !p.over).map(|p| p.next).min();
        match self.phase {
            Phase::Opening | Phase::Done => None,
            Phase::Finding { first } => repeats.into_iter().chain(first.map(|f| f + self.grace())).min(),
            Phase::Testing { again } => repeats.into_iter().chain([again]).min(),
            Phase::Waiting => repeats,
        }
    }

    /// True when the report is as good as it gets.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// Rounds of requests that had to wait for answers of the round before.
    pub fn rounds(&self) -> u32 {
        self.rounds
    }

    /// What was seen so far.
    pub fn observations(&self) -> &Observations {
        &self.seen
    }

    /// The report's entry from what was seen so far; before the end, more is untested.
    pub fn entry(&self) -> Entry {
        classify(&self.setup, &self.seen)
    }

    /// A socket is open on this local address.
    pub fn handle_opened(&mut self, now: Duration, socket: SocketId, local: SocketAddr) {
        if let Some(socket) = self.sockets.get_mut(usize::from(socket.0)) {
            socket.local = Some(SocketAddr::new(self.setup.local, local.port()));
        }
        self.start_when_open(now);
    }

    /// A socket could not be opened: its tests are left out.
    pub fn handle_open_failed(&mut self, now: Duration, socket: SocketId) {
        if let Some(socket) = self.sockets.get_mut(usize::from(socket.0)) {
            socket.purpose = Purpose::Sample;
            socket.burst = usize::MAX;
            socket.local = Some(SocketAddr::new(self.setup.local, 0));
        }
        self.start_when_open(now);
    }

    /// A success response came to `socket` from `from`.
    pub fn handle_answer(&mut self, now: Duration, socket: SocketId, from: SocketAddr, answer: Answer) {
        match self.accept(socket, from, &answer) {
            Some(index) => self.record(now, index, from, &answer),
            None => self.seen.ignored += 1,
        }
        self.advance(now);
    }

    /// A binding request came to `socket`: the hairpin test's, if the id is one of ours. Others are ignored.
    pub fn handle_request(&mut self, now: Duration, socket: SocketId, from: SocketAddr, id: [u8; 12]) {
        let sender = self.by_id.get(&id).copied().filter(|index| self.seen.asked[*index].server.is_none());
        match sender {
            Some(index) if self.seen.asked[index].socket != socket => {
                self.seen.asked[index].heard.get_or_insert(Heard { at: now, from, mapped: from });
                self.pending[index].over = true;
            }
            _ => self.seen.ignored += 1,
        }
        self.advance(now);
    }

    /// A request can not succeed: connection refused or reset, an error response.
    pub fn handle_failed(&mut self, now: Duration, id: [u8; 12]) {
        if let Some(index) = self.by_id.get(&id) {
            self.pending[*index].over = true;
        }
        self.advance(now);
    }

    /// The time asked for has come.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.advance(now);
    }

    fn open_all(&mut self) {
        self.open(Purpose::Main, 0, 0);
        self.open(Purpose::Partner, 0, 0);
        if self.setup.proto == Proto::Udp {
            for _ in 0..plan::MAX_LEADS.min(self.setup.servers.len()) {
                self.open(Purpose::Filter(Change::Both), 0, 0);
                self.open(Purpose::Filter(Change::Port), 0, 0);
            }
        }
        for burst in 0..2 {
            for port in plan::burst(&mut self.rng) {
                self.open(Purpose::Sample, port, burst);
            }
        }
    }

    fn open(&mut self, purpose: Purpose, port: u16, burst: usize) {
        let socket = SocketId(self.sockets.len() as u16);
        self.sockets.push(Socket { purpose, local: None, burst });
        self.effects.push_back(Effect::Open { socket, port });
    }

    fn start_when_open(&mut self, now: Duration) {
        if self.phase == Phase::Opening && self.sockets.iter().all(|s| s.local.is_some()) {
            self.phase = Phase::Finding { first: None };
            self.rounds = 1;
            for server in 0..self.setup.servers.len() {
                let to = self.setup.servers[server].primary;
                self.ask_all(now, Purpose::Main, Some(server), to, Change::None);
                self.ask_all(now, Purpose::Partner, Some(server), to, Change::None);
            }
            if self.setup.lead.is_some() {
                self.test(now);
            }
            self.advance(now);
        }
    }

    /// The request that this answers, if it is one of ours, unanswered, and comes from where it may.
    fn accept(&self, socket: SocketId, from: SocketAddr, answer: &Answer) -> Option<usize> {
        let index = *self.by_id.get(&answer.id)?;
        let asked = &self.seen.asked[index];
        let server = asked.server?;
        let other = self.seen.alternates[server];
        let place = match (asked.change, other) {
            _ if from == asked.to => true,
            (Change::Port, Some(other)) => from == SocketAddr::new(asked.to.ip(), other.port()),
            (Change::Both, Some(other)) => from == other,
            _ => false,
        };
        let family = Family::of(answer.mapped.ip()) == self.setup.family() && answer.mapped.port() != 0;
        (place && family && asked.socket == socket && asked.heard.is_none()).then_some(index)
    }

    fn record(&mut self, now: Duration, index: usize, from: SocketAddr, answer: &Answer) {
        let asked = &mut self.seen.asked[index];
        asked.heard = Some(Heard { at: now, from, mapped: answer.mapped });
        let (server, sent) = (asked.server, asked.sent);
        self.pending[index].over = true;
        let purpose = self.seen.asked[index].purpose;
        // A repeated request's answer may be the first one's, which was only slow: not a measure (RFC 6298 section 3).
        if self.round_trip.is_none() || self.pending[index].sent == 1 {
            let measured = now.saturating_sub(sent);
            if self.round_trip.is_none() {
                self.hasten(now + measured / 2);
            }
            self.round_trip = Some(self.round_trip.map_or(measured, |rtt| rtt.min(measured)));
        }
        if let (Some(server), Some(other)) = (server, answer.other) {
            let primary = self.setup.servers[server].primary;
            let alternate = &mut self.seen.alternates[server];
            *alternate = alternate.or_else(|| plan::usable_alternate(primary, other));
        }
        if let (Phase::Finding { first: first @ None }, Purpose::Main) = (&mut self.phase, purpose) {
            *first = Some(now);
        }
    }

    /// Now that the distance is known, what has not been answered by `next` is repeated then.
    fn hasten(&mut self, next: Duration) {
        self.pending.iter_mut().filter(|p| !p.over).for_each(|p| p.next = p.next.min(next));
    }

    /// How long after the first answer the tests begin: soon once a server with two addresses has answered,
    /// later while one that may have two has not.
    fn grace(&self) -> Duration {
        let round_trip = self.round_trip.unwrap_or_default();
        if self.leads().is_empty() { (round_trip * 6).max(GRACE * 10) } else { (round_trip / 2).max(GRACE) }
    }

    /// Repeats what is due, then takes the steps that are.
    fn advance(&mut self, now: Duration) {
        self.repeat_due(now);
        let idle = self.pending.iter().all(|p| p.over);
        match self.phase {
            Phase::Finding { first: Some(first) } if idle || now >= first + self.grace() => self.test(now),
            Phase::Finding { first: None } if idle => self.phase = Phase::Done,
            Phase::Testing { again } if now >= again => self.sample_again(now),
            Phase::Waiting if idle => self.phase = Phase::Done,
            _ => {}
        }
    }

    fn repeat_due(&mut self, now: Duration) {
        for pending in self.pending.iter_mut().filter(|p| !p.over && p.next <= now) {
            if pending.sent >= self.patience.tries {
                pending.over = true;
                continue;
            }
            pending.sent += 1;
            pending.next = now + self.patience.interval(pending.sent, self.round_trip);
            self.effects.push_back(Effect::Send(pending.transmit));
        }
    }

    /// The second round: everything that needs a living server.
    fn test(&mut self, now: Duration) {
        self.rounds = if self.setup.lead.is_some() { 1 } else { 2 };
        self.phase = Phase::Testing { again: now + plan::BETWEEN_BURSTS };
        let leads = self.leads();
        for server in leads.iter().copied() {
            self.test_mapping(now, server);
        }
        if self.setup.proto == Proto::Udp {
            self.test_filtering(now, &leads);
        }
        self.test_hairpin(now);
        self.sample(now, 0);
    }

    fn sample_again(&mut self, now: Duration) {
        self.phase = Phase::Waiting;
        self.rounds += 1;
        self.sample(now, 1);
    }

    /// The servers that answered and have a second address, the quickest first.
    fn leads(&self) -> Vec<usize> {
        if let Some(lead) = self.setup.lead {
            return vec![lead];
        }
        let mut leads: Vec<(Duration, usize)> = self
            .heard_from_main()
            .into_iter()
            .filter(|(server, _)| self.seen.alternates[*server].is_some())
            .map(|(server, took)| (took, server))
            .collect();
        leads.sort();
        leads.into_iter().map(|(_, server)| server).take(plan::MAX_LEADS).collect()
    }

    /// Servers that answered the main socket and are believed, and how long each took.
    fn heard_from_main(&self) -> Vec<(usize, Duration)> {
        let liars = trust::liars(&self.seen);
        let main = self.seen.asked.iter().filter(|a| a.purpose == Purpose::Main);
        let heard = main.filter_map(|a| Some((a.server?, a.heard?.at.saturating_sub(a.sent))));
        heard.filter(|(server, _)| !liars.contains(server)).collect()
    }

    fn test_mapping(&mut self, now: Duration, server: usize) {
        let Some(other) = self.seen.alternates[server] else { return };
        let Server { primary, .. } = self.setup.servers[server];
        let by_port = SocketAddr::new(primary.ip(), other.port());
        let by_address = SocketAddr::new(other.ip(), primary.port());
        for to in [by_port, by_address, other] {
            self.ask_all(now, Purpose::Main, Some(server), to, Change::None);
        }
        if self.setup.proto == Proto::Udp {
            self.ask_all(now, Purpose::Main, Some(server), primary, Change::Both);
        }
    }

    /// Each of the filtering sockets asks one server only, once plainly and once for an answer from elsewhere.
    fn test_filtering(&mut self, now: Duration, leads: &[usize]) {
        for change in [Change::Both, Change::Port] {
            let sockets: Vec<_> = self.sockets_for(Purpose::Filter(change));
            for (server, socket) in leads.iter().zip(sockets) {
                let to = self.setup.servers[*server].primary;
                self.ask(now, socket, Some(*server), to, change);
                self.ask(now, socket, Some(*server), to, Change::None);
            }
        }
    }

    fn test_hairpin(&mut self, now: Duration) {
        let mapped = |purpose| {
            let of = self.seen.asked.iter().filter(move |a: &&Asked| a.purpose == purpose);
            of.filter_map(|a| a.heard.map(|h| (a.local, h.mapped))).next()
        };
        let (Some(main), Some(partner)) = (mapped(Purpose::Main), mapped(Purpose::Partner)) else { return };
        if self.setup.proto == Proto::Udp && main.0 != main.1 {
            self.ask_all(now, Purpose::Main, None, partner.1, Change::None);
            self.ask_all(now, Purpose::Partner, None, main.1, Change::None);
        }
    }

    /// One burst of samples to the quickest server, in the order of their local ports' plan.
    fn sample(&mut self, now: Duration, burst: usize) {
        let quickest = self.heard_from_main().into_iter().min_by_key(|(_, took)| *took);
        let Some(server) = self.setup.lead.or(quickest.map(|(server, _)| server)) else { return };
        let to = self.setup.servers[server].primary;
        for socket in self.sockets_for(Purpose::Sample) {
            if self.sockets[usize::from(socket.0)].burst == burst {
                self.ask(now, socket, Some(server), to, Change::None);
            }
        }
    }

    fn sockets_for(&self, purpose: Purpose) -> Vec<SocketId> {
        let numbered = self.sockets.iter().enumerate();
        numbered.filter(|(_, s)| s.purpose == purpose).map(|(n, _)| SocketId(n as u16)).collect()
    }

    fn ask_all(&mut self, now: Duration, purpose: Purpose, server: Option<usize>, to: SocketAddr, change: Change) {
        for socket in self.sockets_for(purpose) {
            self.ask(now, socket, server, to, change);
        }
    }

    fn ask(&mut self, now: Duration, socket: SocketId, server: Option<usize>, to: SocketAddr, change: Change) {
        let Socket { purpose, local: Some(local), .. } = self.sockets[usize::from(socket.0)] else { return };
        let transmit = Transmit { socket, to, change, response_port: None, id: self.rng.id() };
        let order = self.order;
        self.order += 1;
        self.by_id.insert(transmit.id, self.pending.len());
        self.seen.asked.push(Asked { purpose, socket, local, server, to, change, order, sent: now, heard: None });
        let next = now + self.patience.interval(1, self.round_trip);
        self.pending.push(Pending { transmit, sent: 1, next, over: false });
        self.effects.push_back(Effect::Send(transmit));
    }
}
