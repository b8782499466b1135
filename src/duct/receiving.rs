//! Waits: the receiving half of a duct, in tasks.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::ReadHalf;
use tokio::sync::{Mutex, MutexGuard};

use super::codec::Codec;
use super::error::{RecvError, is_gone};
use super::link::{Deadline, Link};
use super::rights::{Received, Rights, take};
use super::wire::{Fault, Incoming};
use crate::pipe::PipeStream;

/// What all handles that receive share.
#[derive(Debug)]
pub(crate) struct Receiving {
    pub(crate) link: Arc<Link>,
    state: Mutex<State>,
}

/// What one receiver at a time has.
#[derive(Debug)]
struct State {
    incoming: Incoming,
    half: Option<ReadHalf<PipeStream>>,
    rights: Rights,
}

impl Receiving {
    pub(crate) fn new(link: Arc<Link>, half: Option<ReadHalf<PipeStream>>) -> Arc<Self> {
        let incoming = Incoming::new(link.options.max_message);
        Arc::new(Self { link, state: Mutex::new(State { incoming, half, rights: Rights::default() }) })
    }

    pub(crate) async fn recv<T>(
        &self,
        codec: &impl Codec<T>,
        limit: Option<Duration>,
    ) -> Result<Received<T>, RecvError> {
        // Who receives what is there already lets others have their turn all the same.
        tokio::task::consume_budget().await;
        let mut deadline = Deadline::new(limit);
        let mut state = self.lock(&mut deadline).await?;
        let len = self.wait(&mut state, &mut deadline).await?;
        let State { incoming, rights, .. } = &mut *state;
        let taken = take(incoming, rights, len, codec, self.link.max_descriptors());
        self.link.handle_received(matches!(incoming.poll_message(), Ok(Some(_))));
        taken
    }

    /// Whether `recv` would return now: with a message, or with an error other than that of time.
    pub(crate) async fn poll(&self, limit: Option<Duration>) -> Result<bool, RecvError> {
        let mut deadline = Deadline::new(limit);
        let there = match self.lock(&mut deadline).await {
            Ok(mut state) => self.wait(&mut state, &mut deadline).await.map(drop),
            Err(error) => Err(error),
        };
        match there {
            Err(error @ RecvError::NotConnected) => Err(error),
            Err(RecvError::TimedOut { .. }) => Ok(false),
            Ok(()) | Err(_) => Ok(true),
        }
    }

    async fn lock(&self, deadline: &mut Deadline) -> Result<MutexGuard<'_, State>, RecvError> {
        let state = match self.state.try_lock() {
            Ok(state) => state,
            Err(_) => deadline.within(self.state.lock()).await.ok_or_else(|| too_late(deadline))?,
        };
        if self.link.is_closed() { Err(RecvError::NotConnected) } else { Ok(state) }
    }

    /// Reads until a message is whole; returns the length of its payload.
    async fn wait(&self, state: &mut State, deadline: &mut Deadline) -> Result<usize, RecvError> {
        if let Some(len) = self.whole(state)? {
            return Ok(len);
        }
        if deadline.is_now() {
            return self.wait_for_nothing(state).ok_or_else(|| too_late(deadline))?;
        }
        let reading = async {
            loop {
                let State { incoming, half, rights } = state;
                let read = self.link.read(half, incoming, rights).await;
                note(incoming, read);
                if let Some(len) = self.whole(state)? {
                    return Ok(len);
                }
            }
        };
        deadline.within(reading).await.unwrap_or_else(|| Err(too_late(deadline)))
    }

    /// Reads what is there, and nothing that is yet to come. The runtime may not have heard of it yet: the socket is
    /// asked itself.
    fn wait_for_nothing(&self, state: &mut State) -> Option<Result<usize, RecvError>> {
        loop {
            let State { incoming, half, rights } = state;
            let read = match half {
                None => self.link.read_now(incoming, rights).map(drop),
                Some(half) => read_half_now(half, incoming),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => note(incoming, read),
            }
            if let Some(whole) = self.whole(state).transpose() {
                return Some(whole);
            }
        }
    }

    fn whole(&self, state: &mut State) -> Result<Option<usize>, RecvError> {
        let limit = state.incoming.limit();
        match state.incoming.poll_message() {
            Err(_) if self.link.is_closed() => Err(RecvError::NotConnected),
            whole => whole.map_err(|fault| RecvError::from_fault(fault, limit)),
        }
    }
}

/// What a read that failed says of those to come.
fn note(incoming: &mut Incoming, read: io::Result<()>) {
    match read {
        Ok(()) => {}
        Err(error) if is_gone(error.kind()) => incoming.handle_fault(Fault::Ended { inside: false }),
        Err(error) => incoming.handle_fault(Fault::Broken(error.kind())),
    }
}

/// One look at a pipe, without waiting.
fn read_half_now(half: &mut ReadHalf<PipeStream>, incoming: &mut Incoming) -> io::Result<()> {
    use std::task::{Context, Poll, Waker};
    use tokio::io::AsyncReadExt;
    let mut buf = incoming.room();
    let room = bytes::BufMut::remaining_mut(&buf);
    let reading = std::pin::pin!(half.read_buf(&mut buf));
    match reading.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(read) => {
            let n = read?;
            incoming.handle_read(n, room);
            Ok(())
        }
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
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
