//! Decides: which of several servers is asked when, and whose answers count.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::address::canonical;
use super::attempt::{Attempt, Transmit};
use super::message::Message;
use super::outcome::{Answer, Failure};
use super::request::Request;
use super::transaction::{Dropped, later};

/// What a query found out.
#[derive(Debug)]
pub enum Event {
    /// A server answered.
    Answered(Answer),
    /// A server will not; the others are still asked.
    Failed(Failure),
}

/// One question to several servers at once, over one socket, or over a connection to each. Driven as an [`Attempt`]:
/// transmits, then a packet or the timeout, then events, until [`is_over`](Self::is_over).
///
/// ```
/// use std::time::{Duration, Instant};
/// use natpipe::stun::{Query, Request};
///
/// let servers = ["192.0.2.1:3478".parse().unwrap(), "198.51.100.1:3478".parse().unwrap()];
/// let now = Instant::now();
/// let mut query = Query::new(&Request::new(), &servers, [7; 32], now).stagger(Duration::from_millis(100));
/// query.handle_timeout(now);
/// assert_eq!(query.poll_transmit().unwrap().to, servers[0]);
/// assert_eq!(query.poll_timeout(), Some(now + Duration::from_millis(100)));
/// ```
#[derive(Debug)]
pub struct Query {
    attempts: Vec<Attempt>,
    start: Instant,
    answered: usize,
    wanted: usize,
    events: VecDeque<Event>,
    dropped: Dropped,
}

impl Query {
    /// Asks these servers, each once, all at `start`, for one good answer. `seed` must come from a cryptographic source.
    pub fn new(request: &Request, servers: &[SocketAddr], seed: [u8; 32], start: Instant) -> Self {
        let mut random = StdRng::from_seed(seed);
        let mut attempts: Vec<Attempt> = Vec::new();
        for server in servers {
            if attempts.iter().any(|attempt| canonical(attempt.asked()) == canonical(*server)) {
                continue;
            }
            let mut seed = [0; 32];
            random.fill_bytes(&mut seed);
            attempts.push(Attempt::new(request, *server, seed, start));
        }
        let events = VecDeque::new();
        let mut query = Self { attempts, start, answered: 0, wanted: 1, events, dropped: Dropped::default() };
        query.collect(start);
        query
    }

    /// Asks each further server this much later, or as soon as one fails. Default zero. Call it before the first packet.
    pub fn stagger(mut self, step: Duration) -> Self {
        let mut start = self.start;
        for attempt in &mut self.attempts {
            attempt.postpone(start);
            start = later(start, step);
        }
        self
    }

    /// After how many answers it is over. Default 1; the number of servers to hear them all.
    pub fn wanted(mut self, answers: usize) -> Self {
        self.wanted = answers;
        self
    }

    /// Takes a packet. False if no server of this query sent it, so that it may be someone else's on the same socket.
    pub fn handle_packet(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) -> bool {
        let Ok(message) = Message::parse(bytes) else {
            self.dropped.malformed += 1;
            return false;
        };
        let id = message.id();
        let Some(attempt) = self.attempts.iter_mut().find(|attempt| attempt.is_for(&id)) else {
            self.dropped.unmatched += 1;
            return false;
        };
        attempt.handle_message(now, from, &message);
        self.collect(now);
        true
    }

    /// Tells that sending or connecting to this server failed for good: the others go on.
    pub fn handle_unreachable(&mut self, now: Instant, server: SocketAddr, source: io::Error) {
        if let Some(attempt) = self.attempts.iter_mut().find(|a| !a.is_over() && a.server() == server) {
            attempt.handle_unreachable(source);
            self.collect(now);
        }
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.is_over() {
            self.attempts.iter_mut().for_each(|attempt| attempt.handle_timeout(now));
            self.collect(now);
        }
    }

    /// The next bytes to send; none once it is over.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        if self.is_over() {
            return None;
        }
        self.attempts.iter_mut().find_map(Attempt::poll_transmit)
    }

    /// When to call [`handle_timeout`](Self::handle_timeout); nothing once it is over.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        self.attempts.iter().filter_map(Attempt::poll_timeout).min()
    }

    /// The next answer or failure, in the order in which they came.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether as many answered as were wanted, or none is left to answer. Events may be left.
    pub fn is_over(&self) -> bool {
        self.answered >= self.wanted || self.attempts.iter().all(Attempt::is_over)
    }

    /// What was dropped so far, of all servers.
    pub fn dropped(&self) -> Dropped {
        let mut sum = self.dropped;
        self.attempts.iter().for_each(|attempt| sum += attempt.dropped());
        sum
    }

    /// Turns outcomes into events; a failure lets the next server begin.
    fn collect(&mut self, now: Instant) {
        let mut failed = false;
        for outcome in self.attempts.iter_mut().filter_map(Attempt::poll_outcome) {
            failed |= outcome.is_err();
            self.answered += usize::from(outcome.is_ok());
            self.events.push_back(match outcome {
                Ok(answer) => Event::Answered(answer),
                Err(failure) => Event::Failed(failure),
            });
        }
        let next = self.attempts.iter_mut().find(|attempt| !attempt.has_begun());
        if let Some(next) = next.filter(|_| failed) {
            next.hurry(now);
        }
    }
}
