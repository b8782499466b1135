//! Decides: one server's exchange, from the first request to an answer or a failure: transactions, proof, redirects, forms.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::address::canonical;
use super::attribute::{BINDING, Class, TransactionId, kind};
use super::credentials::{Challenge, Proof};
use super::message::Message;
use super::outcome::{Answer, Failure};
use super::request::{Form, Request};
use super::transaction::{Dropped, Due, Timer};
use crate::net::Scope;

/// Bytes to be sent. Over streams `to` names the connection; one that is not open yet is to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// The server, or the one that it sent us on to.
    pub to: SocketAddr,
    /// One message.
    pub bytes: Bytes,
}

/// The exchange with one server, to be driven: take [`poll_transmit`](Self::poll_transmit) until it is empty, wait for a
/// packet or until [`poll_timeout`](Self::poll_timeout), tell [`handle_packet`](Self::handle_packet) or
/// [`handle_timeout`](Self::handle_timeout), and begin again until [`poll_outcome`](Self::poll_outcome) has one.
#[derive(Debug)]
pub struct Attempt {
    request: Request,
    asked: SocketAddr,
    server: SocketAddr,
    random: StdRng,
    proof: Proof,
    classic: bool,
    visited: Vec<SocketAddr>,
    id: TransactionId,
    bytes: Bytes,
    timer: Timer,
    transmits: VecDeque<Transmit>,
    outcome: Option<Result<Answer, Failure>>,
    over: bool,
    dropped: Dropped,
}

impl Attempt {
    /// Will ask `server` at `start`. `seed` must come from a cryptographic source: transaction ids are made from it.
    pub fn new(request: &Request, server: SocketAddr, seed: [u8; 32], start: Instant) -> Self {
        let proof = Proof::new(request.credentials.clone());
        let (proof, failed) = match proof {
            Ok(proof) => (proof, None),
            Err(source) => (Proof::default(), Some(Failure::Credentials { server, source })),
        };
        let mut attempt = Self {
            request: request.clone(),
            asked: server,
            server,
            random: StdRng::from_seed(seed),
            proof,
            classic: request.form == Form::Classic,
            visited: vec![server],
            id: TransactionId::modern([0; 12]),
            bytes: Bytes::new(),
            timer: Timer::new(request.timing, request.stream, start),
            transmits: VecDeque::new(),
            outcome: None,
            over: false,
            dropped: Dropped::default(),
        };
        match failed {
            Some(failure) => attempt.end(Err(failure)),
            None => attempt.begin(start),
        }
        attempt
    }

    /// The server that was asked first.
    pub fn asked(&self) -> SocketAddr {
        self.asked
    }

    /// Whether the running transaction has this id.
    pub fn is_for(&self, id: &TransactionId) -> bool {
        !self.over && self.timer.sent() > 0 && self.id == *id
    }

    /// Takes a packet that came from `from`, over a stream from the connection to it. False if it does not belong here;
    /// it is counted then, as are answers that are not believed.
    pub fn handle_packet(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) -> bool {
        match Message::parse(bytes) {
            Ok(message) if self.is_for(&message.id()) => {
                self.handle_message(now, from, &message);
                true
            }
            Ok(_) => {
                self.dropped.unmatched += 1;
                false
            }
            Err(_) => {
                self.dropped.malformed += 1;
                false
            }
        }
    }

    /// Takes a message whose id [`is_for`](Self::is_for) this attempt.
    pub(super) fn handle_message(&mut self, now: Instant, from: SocketAddr, message: &Message<'_>) {
        if !self.may_come_from(from) {
            self.dropped.elsewhere += 1;
        } else if !self.is_answer(message) {
            self.dropped.malformed += 1;
        } else if !self.proof.accepts(message) {
            self.dropped.unauthentic += 1;
        } else if message.class() == Class::Success {
            self.succeed(now, from, message);
        } else {
            self.handle_error(now, message);
        }
    }

    /// Tells that sending to the server, or connecting to it, failed for good.
    pub fn handle_unreachable(&mut self, source: io::Error) {
        self.end(Err(Failure::Unreachable { server: self.server, source }));
    }

    /// Lets time pass: requests are sent, sent again, given up.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.over {
            return;
        }
        match self.timer.due(now) {
            Due::Send => self.transmits.push_back(Transmit { to: self.server, bytes: self.bytes.clone() }),
            Due::TimedOut => self.give_up(now),
            Due::Nothing => {}
        }
    }

    /// The next bytes to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout); nothing once it is over.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.over).then(|| self.timer.next())
    }

    /// How it ended, once.
    pub fn poll_outcome(&mut self) -> Option<Result<Answer, Failure>> {
        self.outcome.take()
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// What was dropped so far.
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// The server that is asked now.
    pub(super) fn server(&self) -> SocketAddr {
        self.server
    }

    /// Whether a request was sent, or it is over already.
    pub(super) fn has_begun(&self) -> bool {
        self.over || self.timer.sent() > 0
    }

    /// Begins at `start` instead, if it has not begun.
    pub(super) fn postpone(&mut self, start: Instant) {
        if !self.has_begun() {
            self.timer = Timer::new(self.request.timing, self.request.stream, start);
        }
    }

    /// Begins at once if it has not begun.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.timer.hurry(now);
    }

    fn begin(&mut self, now: Instant) {
        self.id = self.new_id();
        match self.request.encode(self.id, &self.proof) {
            Ok(bytes) => self.bytes = bytes.into(),
            Err(source) => return self.end(Err(Failure::TooLong { server: self.server, source })),
        }
        self.timer = Timer::new(self.request.timing, self.request.stream, now);
    }

    /// A new transaction, its first request sent at once.
    fn again(&mut self, now: Instant) {
        self.begin(now);
        self.handle_timeout(now);
    }

    fn new_id(&mut self) -> TransactionId {
        let mut random = [0; 16];
        self.random.fill_bytes(&mut random);
        if self.classic {
            return TransactionId::classic(random);
        }
        let mut modern = [0; 12];
        modern.copy_from_slice(&random[..12]);
        TransactionId::modern(modern)
    }

    fn may_come_from(&self, from: SocketAddr) -> bool {
        let elsewhere_allowed = self.request.change.is_any() && !self.request.stream;
        match self.request.answer_from {
            Some(expected) => canonical(from) == canonical(expected),
            None => elsewhere_allowed || canonical(from) == canonical(self.server),
        }
    }

    /// Whether it is a whole answer to what was asked.
    fn is_answer(&self, message: &Message<'_>) -> bool {
        let whole = match message.class() {
            Class::Success => message.mapped().is_some_and(is_usable),
            Class::Error => message.error().is_some(),
            Class::Request | Class::Indication => false,
        };
        whole && message.method() == BINDING && message.fingerprint() != Some(false)
    }

    fn succeed(&mut self, now: Instant, from: SocketAddr, message: &Message<'_>) {
        let server = self.server;
        let attributes: Vec<u16> = message.not_understood().collect();
        if !self.classic && !attributes.is_empty() {
            return self.fall_back(now, Failure::NotUnderstood { server, attributes });
        }
        let Some(mapped) = message.mapped().map(canonical) else { return };
        if mapped.is_ipv4() != canonical(server).is_ipv4() {
            return self.end(Err(Failure::Family { server, mapped }));
        }
        self.end(Ok(Answer {
            asked: self.asked,
            from,
            mapped,
            plain: message.address(kind::MAPPED_ADDRESS),
            other: message.other_address(),
            origin: message.origin(),
            software: message.text(kind::SOFTWARE).map(printable),
            round_trip: self.timer.round_trip(now),
            requests: self.timer.sent(),
            classic: self.classic,
        }));
    }

    fn handle_error(&mut self, now: Instant, message: &Message<'_>) {
        let server = self.server;
        match self.proof.challenge(message) {
            Ok(Challenge::Retry) => return self.again(now),
            Ok(Challenge::Rejected) => return self.end(Err(Failure::Unauthorized { server })),
            Err(source) => return self.end(Err(Failure::Credentials { server, source })),
            Ok(Challenge::None) => {}
        }
        // `is_answer` has seen the error.
        let Some(error) = message.error() else { return };
        if error.code == 300 {
            return self.redirect(now, message.address(kind::ALTERNATE_SERVER));
        }
        let unknown: Vec<u16> = message.unknown_attributes().collect();
        let words_matter = error.code == 400 || error.code == 420 && !unknown.contains(&kind::CHANGE_REQUEST);
        let refused = Failure::Refused { server, code: error.code, reason: printable(&error.reason), unknown };
        if words_matter { self.fall_back(now, refused) } else { self.end(Err(refused)) }
    }

    /// Asks once more in RFC 3489's words, which prove nothing and so are no choice for credentials.
    fn fall_back(&mut self, now: Instant, failure: Failure) {
        if self.classic || self.request.form != Form::Either || self.request.credentials.is_some() {
            return self.end(Err(failure));
        }
        self.classic = true;
        self.again(now);
    }

    fn redirect(&mut self, now: Instant, to: Option<SocketAddr>) {
        let redirects = self.visited.len() as u32 - 1;
        let leads = |to: &SocketAddr| Scope::of(self.server.ip()).may_lead_to(Scope::of(to.ip()));
        let good = to.filter(|to| is_usable(*to) && to.is_ipv4() == self.server.is_ipv4()).filter(leads);
        match good.filter(|to| redirects < self.request.most_redirects && !self.visited.contains(to)) {
            None => self.end(Err(Failure::Redirected { server: self.server, to })),
            Some(to) => {
                self.visited.push(to);
                self.server = to;
                self.proof.forget_server();
                self.again(now);
            }
        }
    }

    fn give_up(&mut self, now: Instant) {
        let (server, dropped) = (self.server, self.dropped.unauthentic);
        let requests = self.timer.sent();
        self.end(Err(match dropped {
            0 => Failure::NoAnswer { server, requests, waited: self.timer.waited(now) },
            _ => Failure::Unauthentic { server, dropped },
        }));
    }

    /// The first outcome counts.
    fn end(&mut self, outcome: Result<Answer, Failure>) {
        if !std::mem::replace(&mut self.over, true) {
            self.outcome = Some(outcome);
            self.transmits.clear();
        }
    }
}

/// Whether a host can have this address, whatever a server says.
fn is_usable(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast()
}

/// A server's words without what would move a terminal's cursor, as many as RFC 8489 allows (sections 14.8 and 14.14).
fn printable(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(128).collect()
}
