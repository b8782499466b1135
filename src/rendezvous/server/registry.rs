//! Decides: what a rendezvous server does with each frame: who is registered, what is passed on to whom.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::counters::Counters;
use super::super::limits::Limits;
use super::super::wire::{Frame, RawPeer, Reason, Token, VERSION};
use super::accounts::Accounts;
use super::pairs::Waiting;
use super::peer::Peer;
use crate::key::PeerId;

/// One connection of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Conn(pub(super) u64);

/// What is to be done for a connection next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing until [`Registry::poll_wake`] names it.
    Wait,
    /// Ask again at this time, if it is not named before.
    At(Instant),
    /// Send what was written, and end the connection.
    End,
}

/// A peer did not keep to the protocol; its connection is to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer does not keep to the protocol: {0}")]
pub struct Violation(pub &'static str);

/// The state of a rendezvous server. `handle_*` takes what happens, `poll_*` gives what is to be done: after each
/// `handle_*`, ask [`poll_wake`](Self::poll_wake) until it is `None`, and for each connection that it names
/// [`poll_transmit`](Self::poll_transmit).
#[derive(Debug)]
pub struct Registry {
    pub(super) limits: Limits,
    pub(super) peers: HashMap<Conn, Peer>,
    pub(super) by_key: HashMap<RawPeer, Conn>,
    pub(super) accounts: Accounts,
    pub(super) waiting: Waiting,
    pub(super) wakes: Vec<Conn>,
    pub(super) counters: Counters,
    last: u64,
}

impl Registry {
    /// With nobody registered.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            peers: HashMap::new(),
            by_key: HashMap::new(),
            accounts: Accounts::default(),
            waiting: Waiting::default(),
            wakes: Vec::new(),
            counters: Counters::default(),
            last: 0,
        }
    }

    /// A connection comes from an address. False: a limit turns it away. Otherwise it ends with [`handle_left`](Self::handle_left).
    pub fn handle_arrival(&mut self, now: Instant, ip: IpAddr) -> bool {
        self.counters.connections += 1;
        let taken = self.accounts.arrive(now, ip, &self.limits);
        self.counters.turned_away += u64::from(!taken);
        taken
    }

    /// A connection's handshake is over: it has proved a key, or failed to.
    pub fn handle_handshake(&mut self, ip: IpAddr, proved: bool) {
        self.accounts.shaken(ip);
        self.counters.handshakes_failed += u64::from(!proved);
    }

    /// A connection that has proved its key registers. One with the same key that was there before is ended. Where a
    /// limit is reached, the connection is told so and ended.
    pub fn handle_registration(&mut self, now: Instant, peer: PeerId, ip: IpAddr) -> Conn {
        self.last += 1;
        let (conn, key) = (Conn(self.last), *peer.as_bytes());
        let mut new = Peer::new(key, ip, &self.limits, now);
        if let Some(before) = self.by_key.get(&key).copied() {
            self.dismiss(before, Reason::Replaced);
        } else if self.by_key.len() >= self.limits.peers {
            new.goodbye = Some(Reason::Busy);
            self.counters.turned_away += 1;
        }
        if new.goodbye.is_none() {
            let keepalive = self.limits.keepalive.as_secs() as u16;
            new.control.push(Frame::Welcome { version: VERSION, keepalive, window: self.limits.window }, 0);
            self.by_key.insert(key, conn);
        }
        self.peers.insert(conn, new);
        self.wakes.push(conn);
        conn
    }

    /// A frame came from a registered peer.
    ///
    /// # Errors
    /// [`Violation`]: call [`handle_violation`](Self::handle_violation).
    pub fn handle(&mut self, now: Instant, from: Conn, frame: Frame) -> Result<(), Violation> {
        let Some(peer) = self.peers.get_mut(&from) else { return Ok(()) };
        if peer.goodbye.is_some() {
            return Ok(());
        }
        match frame {
            Frame::Hello { version: 0 } => return Err(Violation("there is no version 0")),
            // Later versions of peers speak this one with a server that says so.
            Frame::Hello { .. } | Frame::Pong(_) => {}
            Frame::Ping(number) => {
                peer.pong = Some(number);
                self.wakes.push(from);
            }
            Frame::Signal { peer, sealed } => self.signal(now, from, peer, &sealed),
            Frame::Open { channel, peer, token, window } => self.open(now, from, channel, peer, token, window)?,
            Frame::Data { channel, bytes } => self.data(now, from, channel, bytes),
            Frame::Window { channel, more } => self.window(from, channel, more),
            Frame::Finish { channel } => self.finish(from, channel),
            Frame::Close { channel, why } => self.close(from, channel, why),
            Frame::Goodbye(_) => self.dismiss(from, Reason::Done),
            Frame::Welcome { .. } | Frame::Refused { .. } => return Err(Violation("only a server says this")),
        }
        Ok(())
    }

    fn signal(&mut self, now: Instant, from: Conn, to: RawPeer, sealed: &Bytes) {
        let Some(sender) = self.peers.get_mut(&from) else { return };
        let (key, allowed) = (sender.key, sender.signals.take(1, now));
        let receiver = self.by_key.get(&to).copied();
        let why = match receiver.and_then(|conn| Some((conn, self.peers.get_mut(&conn)?))) {
            _ if !allowed => Reason::Busy,
            None => Reason::NotThere,
            Some((_, peer)) if peer.control.is_full() => Reason::Busy,
            Some((conn, peer)) => {
                // A copy: the message must not keep alive the buffer that it came in.
                let sealed = Bytes::copy_from_slice(sealed);
                let bytes = sealed.len();
                peer.control.push(Frame::Signal { peer: key, sealed }, bytes);
                self.wakes.push(conn);
                self.counters.signals += 1;
                return;
            }
        };
        self.counters.signals_refused += 1;
        if let Some(sender) = self.peers.get_mut(&from)
            && !sender.control.is_full()
        {
            sender.control.push(Frame::Refused { peer: to, why }, 0);
            self.wakes.push(from);
        }
    }

    /// Says goodbye to a connection, and forgets what it has.
    fn dismiss(&mut self, conn: Conn, why: Reason) {
        self.forget_channels(conn);
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        peer.goodbye.get_or_insert(why);
        if self.by_key.get(&peer.key) == Some(&conn) {
            self.by_key.remove(&peer.key);
        }
        self.wakes.push(conn);
    }

    /// A peer does not keep to the protocol, or was silent too long: it is told why, and its connection ends.
    pub fn handle_violation(&mut self, conn: Conn, why: Reason) {
        self.counters.violations += 1;
        self.dismiss(conn, why);
    }

    /// A connection of a registered peer has ended.
    pub fn handle_gone(&mut self, conn: Conn) {
        self.dismiss(conn, Reason::Gone);
        self.peers.remove(&conn);
    }

    /// A connection has ended, registered or not.
    pub fn handle_left(&mut self, ip: IpAddr) {
        self.accounts.leave(ip);
    }

    /// Time has passed; to be called every second or so.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire(now);
        if self.last_swept_is_old(now) {
            self.accounts.forget(now);
        }
    }

    fn last_swept_is_old(&mut self, now: Instant) -> bool {
        const PERIOD: Duration = Duration::from_secs(60);
        let old = self.waiting.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= PERIOD);
        if old {
            self.waiting.swept = Some(now);
        }
        old
    }

    /// The server stops: everybody is told.
    pub fn handle_stop(&mut self) {
        let all: Vec<Conn> = self.peers.keys().copied().collect();
        for conn in all {
            self.dismiss(conn, Reason::Stopping);
        }
    }

    /// The next connection that has something to send. One may be named more than once.
    pub fn poll_wake(&mut self) -> Option<Conn> {
        self.wakes.pop()
    }

    /// Appends what is to be sent on a connection, up to about `budget` bytes. When something was appended, ask again after it
    /// was sent.
    pub fn poll_transmit(&mut self, now: Instant, conn: Conn, out: &mut Vec<u8>, budget: usize) -> Next {
        let Some(peer) = self.peers.get_mut(&conn) else { return Next::End };
        if let Some(why) = peer.goodbye {
            Frame::Goodbye(why).write(out);
            return Next::End;
        }
        let (relayed, again) = peer.transmit(now, out, budget);
        self.counters.relayed += relayed as u64;
        self.counters.buffered -= relayed as u64;
        again.map_or(Next::Wait, Next::At)
    }

    /// What was seen so far.
    pub fn counters(&self) -> Counters {
        Counters { peers: self.by_key.len() as u64, ..self.counters }
    }

    /// How long a connection may be silent.
    pub fn silence(&self) -> Duration {
        self.limits.keepalive * 3
    }

    /// The other end of a token's stream.
    pub(super) fn key_of(&self, conn: Conn) -> Option<RawPeer> {
        self.peers.get(&conn).map(|peer| peer.key)
    }
}

/// Whose stream waits for whom.
pub(super) type Meeting = (RawPeer, RawPeer, Token);
