//! Waits: the receiving half of a duct, on threads.

use std::net::Shutdown;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::link::{Link, Source};
use super::sending::{Deadline, Sending, TIME_IS_UP};
use crate::duct::codec::Codec;
use crate::duct::error::{RecvError, is_gone};
use crate::duct::rights::{Received, Rights, take};
use crate::duct::wire::{Fault, Incoming};

/// What all handles that receive share.
#[derive(Debug)]
pub(crate) struct Receiving {
    pub(crate) link: Arc<Link>,
    /// What waits to be sent goes before a wait: the other end may wait for it.
    sending: Weak<Sending>,
    state: Mutex<State>,
}

/// What one receiver at a time has.
#[derive(Debug)]
struct State {
    incoming: Incoming,
    source: Source,
    rights: Rights,
}

impl Receiving {
    pub(crate) fn new(link: Arc<Link>, source: Source, sending: &Arc<Sending>) -> Arc<Self> {
        let incoming = Incoming::new(link.options.max_message);
        let state = State { incoming, source, rights: Rights::default() };
        Arc::new(Self { link, sending: Arc::downgrade(sending), state: Mutex::new(state) })
    }

    pub(crate) fn recv<T>(&self, codec: &impl Codec<T>, limit: Option<Duration>) -> Result<Received<T>, RecvError> {
        let (mut state, deadline) = self.lock(limit)?;
        let len = self.wait(&mut state, &deadline)?;
        let State { incoming, rights, .. } = &mut *state;
        let taken = take(incoming, rights, len, codec, self.link.max_descriptors());
        self.link.handle_received(matches!(incoming.poll_message(), Ok(Some(_))));
        taken
    }

    /// Whether `recv` would return now: with a message, or with an error other than that of time.
    pub(crate) fn poll(&self, limit: Option<Duration>) -> Result<bool, RecvError> {
        let there = self.lock(limit).and_then(|(mut state, deadline)| self.wait(&mut state, &deadline));
        match there {
            Err(error @ RecvError::NotConnected) => Err(error),
            Err(RecvError::TimedOut { .. }) => Ok(false),
            Ok(_) | Err(_) => Ok(true),
        }
    }

    fn lock(&self, limit: Option<Duration>) -> Result<(MutexGuard<'_, State>, Deadline), RecvError> {
        let deadline = Deadline::new(limit);
        let state = match self.state.try_lock() {
            Some(state) => state,
            None => deadline.lock(&self.state).ok_or_else(|| too_late(&deadline))?,
        };
        if self.link.is_closed() { Err(RecvError::NotConnected) } else { Ok((state, deadline)) }
    }

    /// Reads until a message is whole; returns the length of its payload.
    fn wait(&self, state: &mut State, deadline: &Deadline) -> Result<usize, RecvError> {
        loop {
            let limit = state.incoming.limit();
            match state.incoming.poll_message() {
                Ok(Some(len)) => return Ok(len),
                Ok(None) => {}
                Err(_) if self.link.is_closed() => return Err(RecvError::NotConnected),
                Err(fault) => return Err(RecvError::from_fault(fault, limit)),
            }
            if self.link.has_gathered()
                && let Some(sending) = self.sending.upgrade()
            {
                sending.flush_now();
            }
            let State { incoming, source, rights } = state;
            match source.read(&self.link, incoming, rights, deadline.left()) {
                Ok(()) => {}
                Err(error) if error.kind() == TIME_IS_UP => return Err(too_late(deadline)),
                Err(error) if is_gone(error.kind()) => incoming.handle_fault(Fault::Ended { inside: false }),
                Err(error) => incoming.handle_fault(Fault::Broken(error.kind())),
            }
        }
    }
}

fn too_late(deadline: &Deadline) -> RecvError {
    RecvError::TimedOut { limit: deadline.limit.unwrap_or_default() }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        // A sender at the other end learns at once that nobody takes what it sends.
        self.link.finish(Shutdown::Read);
    }
}
