//! Waits: the sending half of a duct, on threads.

use std::cell::Cell;
use std::io;
use std::net::Shutdown;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::flusher::{self, Flusher};
use super::link::{Link, Medium, Sink};
use crate::duct::burst::{Burst, FULL};
use crate::duct::codec::Codec;
use crate::duct::error::SendError;
use crate::duct::parting::{Parting, Progress};
use crate::duct::wire::Outgoing;
use crate::net::rights;

/// Payloads from here on are written from where they are.
const LARGE: usize = 16 << 10;
/// What one system call is given to write. It returns when it has written all of it: a close sees by that whether a send goes on.
const PIECE: usize = 256 << 10;

/// What all handles that send share. When it goes, what waits is sent and the other end is told.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) link: Arc<Link>,
    state: Mutex<State>,
    progress: Progress,
    itself: Weak<Self>,
}

/// What one sender at a time has.
#[derive(Debug)]
pub(crate) struct State {
    outgoing: Outgoing,
    sink: Sink,
    burst: Burst,
    broken: Option<io::ErrorKind>,
    pub(crate) flusher: Flusher,
}

impl Sending {
    pub(crate) fn new(link: Arc<Link>, sink: Sink) -> Arc<Self> {
        let outgoing = Outgoing::new(link.options.max_message);
        let state = State { outgoing, sink, burst: Burst::default(), broken: None, flusher: Flusher::default() };
        let (state, progress) = (Mutex::new(state), Progress::default());
        Arc::new_cyclic(|itself| Self { link, state, progress, itself: itself.clone() })
    }

    pub(crate) fn send<T>(&self, codec: &impl Codec<T>, object: &T, limit: Option<Duration>) -> Result<(), SendError> {
        let (mut state, deadline) = self.lock(limit)?;
        let answers = self.link.take_answers();
        if let Some(payload) = codec.as_payload(object).filter(|payload| payload.len() >= LARGE) {
            let start = state.outgoing.handle_header(payload.len()).map_err(|refused| self.refused(refused))?;
            return self.write_out(&mut state, start, payload, &deadline);
        }
        let encoded = state.outgoing.handle_message(|payload| codec.encode(object, payload));
        let start = encoded.map_err(|refused| self.refused(refused))?;
        let waits = self.link.options.gather && state.burst.handle_message(deadline.begun(), answers);
        if waits && state.outgoing.len() < FULL && self.gather(&mut state) {
            state.outgoing.handle_sent();
            return Ok(());
        }
        self.write_out(&mut state, start, &[], &deadline)
    }

    /// Sends a message with descriptors: by itself, so that they arrive with it and no other.
    pub(crate) fn send_with<T>(
        &self,
        codec: &impl Codec<T>,
        object: &T,
        fds: &[BorrowedFd<'_>],
        limit: Option<Duration>,
    ) -> Result<(), SendError> {
        if !matches!(self.link.medium, Medium::Socket { is_unix: true, .. }) || fds.len() > rights::MOST {
            return Err(SendError::Descriptors { count: fds.len() });
        }
        let (mut state, deadline) = self.lock(limit)?;
        self.write(&mut state, &[], &deadline).map_err(|stopped| self.stopped(stopped.kind, &deadline, false))?;
        let encoded = state.outgoing.handle_message(|payload| codec.encode(object, payload));
        let start = encoded.map_err(|refused| self.refused(refused))?;
        let State { outgoing, sink, .. } = &mut *state;
        match sink.write_with(&self.link, outgoing.poll_transmit(), fds, deadline.left()) {
            Ok(n) => outgoing.handle_written(n),
            Err(error) => {
                outgoing.take_back(start);
                return Err(self.stopped(error.kind(), &deadline, false));
            }
        }
        self.write_out(&mut state, start, &[], &deadline)
    }

    /// Writes what waits.
    pub(crate) fn flush(&self, limit: Option<Duration>) -> Result<(), SendError> {
        let (mut state, deadline) = self.lock(limit)?;
        self.write(&mut state, &[], &deadline).map_err(|stopped| self.stopped(stopped.kind, &deadline, true))
    }

    /// Writes what waits before a close, unless somebody is sending and does not come to an end.
    pub(crate) fn flush_to_close(&self) {
        let mut parting = Parting::new(&self.progress, self.link.options.timeout, Instant::now());
        let mut state = loop {
            let Some(wait) = parting.poll_wait(Instant::now()) else { return };
            if let Some(state) = self.state.try_lock_for(wait) {
                break state;
            }
        };
        if !self.link.is_closed() && state.broken.is_none() {
            // What cannot be sent any more is told by nobody: the other end is gone, or takes nothing.
            let _ = self.write(&mut state, &[], &Deadline::new(parting.limit(Instant::now())));
        }
    }

    /// Writes what waits and the socket takes at once, unless somebody sends at this moment.
    pub(crate) fn flush_now(&self) {
        if let Some(mut state) = self.state.try_lock() {
            let _ = self.write(&mut state, &[], &Deadline::new(Some(Duration::ZERO)));
        }
    }

    /// As [`flush_now`](Self::flush_now) when the process exits: waits until `until` for who sends at this moment.
    pub(crate) fn flush_at_exit(&self, until: Instant) {
        if let Some(mut state) = self.state.try_lock_until(until) {
            let _ = self.write(&mut state, &[], &Deadline::new(Some(until.saturating_duration_since(Instant::now()))));
        }
    }

    /// The flusher's turn: false when nothing waited.
    pub(crate) fn flush_turn(&self) -> (bool, MutexGuard<'_, State>) {
        let mut state = self.state.lock();
        let waited = !state.outgoing.is_empty() && state.broken.is_none();
        if waited {
            let deadline = Deadline::new(self.link.options.timeout);
            // An error is kept in `broken` for the next call; what timed out stays for it.
            let _ = self.write(&mut state, &[], &deadline);
        }
        (waited, state)
    }

    /// Takes the turn, and looks whether there is anything to send over.
    fn lock(&self, limit: Option<Duration>) -> Result<(MutexGuard<'_, State>, Deadline), SendError> {
        let deadline = Deadline::new(limit);
        let state = match self.state.try_lock() {
            Some(state) => state,
            None => deadline.lock(&self.state).ok_or_else(|| self.stopped(TIME_IS_UP, &deadline, false))?,
        };
        if self.link.is_closed() {
            return Err(SendError::NotConnected);
        }
        match state.broken {
            Some(kind) => Err(SendError::from_kind(kind)),
            None => Ok((state, deadline)),
        }
    }

    /// Leaves the messages to the flusher. False when there can be none: then they are written here.
    fn gather(&self, state: &mut State) -> bool {
        let there = flusher::wake(&mut state.flusher, &self.itself);
        self.link.set_gathered(there);
        there
    }

    /// Writes everything up to the message that begins at `start`, whose payload may stand in `payload`.
    fn write_out(&self, state: &mut State, start: usize, payload: &[u8], deadline: &Deadline) -> Result<(), SendError> {
        let Err(stopped) = self.write(state, payload, deadline) else { return Ok(()) };
        // A header alone is taken back only where no byte of it has gone.
        let begun = !state.outgoing.take_back(start);
        if begun {
            state.outgoing.handle_rest(&payload[stopped.written..]);
        }
        Err(self.stopped(stopped.kind, deadline, begun))
    }

    fn write(&self, state: &mut State, payload: &[u8], deadline: &Deadline) -> Result<(), Stopped> {
        let State { outgoing, sink, .. } = state;
        let mut written = 0;
        while !(outgoing.is_empty() && written == payload.len()) {
            self.progress.handle_turn(outgoing.owes());
            let (head, tail) = (piece(outgoing.poll_transmit()), piece(&payload[written..]));
            // The payload stands behind all of the rest.
            let tail = if head.len() == outgoing.len() { tail } else { &[] };
            match sink.write(&self.link, head, tail, deadline.left()) {
                Ok(n) => {
                    let of_head = n.min(head.len());
                    written += n - of_head;
                    outgoing.handle_written(of_head);
                    self.progress.handle_written(n);
                }
                Err(error) => {
                    let kind = error.kind();
                    if kind != TIME_IS_UP {
                        state.broken = Some(kind);
                    }
                    return Err(Stopped { kind, written });
                }
            }
        }
        self.progress.handle_turn(false);
        self.link.set_gathered(false);
        Ok(())
    }

    fn refused(&self, refused: crate::duct::wire::Refused) -> SendError {
        SendError::from_refused(refused, self.link.options.max_message)
    }

    fn stopped(&self, kind: io::ErrorKind, deadline: &Deadline, begun: bool) -> SendError {
        match kind {
            _ if self.link.is_closed() => SendError::NotConnected,
            TIME_IS_UP => SendError::TimedOut { limit: deadline.limit.unwrap_or_default(), begun },
            kind => SendError::from_kind(kind),
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let mut state = std::mem::replace(&mut self.state, Mutex::new(State::gone())).into_inner();
        state.flusher.end();
        if self.link.is_closed() {
            return;
        }
        if let Medium::Pipe { runtime, .. } = &self.link.medium {
            // A handle may be dropped inside a task, where nothing may block.
            return state.sink.finish_later(runtime, state.outgoing.poll_transmit().to_vec());
        }
        if state.broken.is_none() {
            // Nobody is left to be told: the other end sees the stream end early.
            let _ = self.write(&mut state, &[], &Deadline::new(self.link.options.timeout));
        }
        self.link.finish(Shutdown::Write);
    }
}

impl State {
    fn gone() -> Self {
        let (outgoing, sink) = (Outgoing::new(0), Sink::default());
        Self { outgoing, sink, burst: Burst::default(), broken: None, flusher: Flusher::default() }
    }
}

fn piece(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(PIECE)]
}

/// What the kernel says when time is up.
pub(crate) const TIME_IS_UP: io::ErrorKind = io::ErrorKind::WouldBlock;

/// Why writing stopped, and how much of the payload was written by then.
struct Stopped {
    kind: io::ErrorKind,
    written: usize,
}

/// When a call must be over.
#[derive(Debug)]
pub(crate) struct Deadline {
    pub(crate) limit: Option<Duration>,
    begun: Instant,
    /// Nothing was waited for yet: the whole limit is left.
    fresh: Cell<bool>,
}

impl Deadline {
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        Self { limit, begun: Instant::now(), fresh: Cell::new(true) }
    }

    /// When the call began.
    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    /// How long is left: at first the whole limit, so that a socket keeps the limit that it has, and the clock is read
    /// once a call.
    pub(crate) fn left(&self) -> Option<Duration> {
        let limit = self.limit?;
        if self.fresh.replace(false) { Some(limit) } else { Some(limit.saturating_sub(self.begun.elapsed())) }
    }

    pub(crate) fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> Option<MutexGuard<'a, T>> {
        let Some(limit) = self.limit else { return Some(mutex.lock()) };
        self.fresh.set(false);
        mutex.try_lock_for(limit)
    }
}
