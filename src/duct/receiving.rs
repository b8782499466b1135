//! Waits: the receiving half of a duct, in tasks.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::ReadHalf;

use super::codec::Codec;
use super::error::{RecvError, is_gone};
use super::link::{Deadline, Link};
use super::rights::{Received, Rights, take};
use super::turns::{Taken, Turns};
use super::wire::{Fault, Incoming};
use crate::pipe::PipeStream;

/// What all handles that receive share.
#[derive(Debug)]
pub(crate) struct Receiving {
    pub(crate) link: Arc<Link>,
    state: Turns<State>,
}

/// What one receiver at a time has.
#[derive(Debug)]
struct State {
    incoming: Incoming,
    half: Option<ReadHalf<PipeStream>>,
    rights: Rights,
    /// How many messages were received in place since others had their turn.
    in_place: u8,
}

/// So many messages are received in place before others have their turn: as the runtime has it for its own channels.
const TURN: u8 = 128;

impl Receiving {
    pub(crate) fn new(link: Arc<Link>, half: Option<ReadHalf<PipeStream>>) -> Arc<Self> {
        let incoming = Incoming::new(link.options.max_message);
        Arc::new(Self { link, state: Turns::new(State { incoming, half, rights: Rights::default(), in_place: 0 }) })
    }

    /// A message that may have to be waited for.
    pub(crate) async fn recv<T>(
        &self,
        codec: &impl Codec<T>,
        limit: Option<Duration>,
    ) -> Result<Received<T>, RecvError> {
        let mut deadline = Deadline::new(limit);
        let mut state = self.take(&mut deadline).await?;
        if std::mem::take(&mut state.in_place) >= TURN {
            drop(state);
            tokio::task::yield_now().await;
            state = self.take(&mut deadline).await?;
        }
        let len = self.wait(&mut state, &mut deadline).await?;
        self.taken(&mut state, len, codec)
    }

    /// A message that is there already. `None`: there is none, or somebody has the state, or others are to have their
    /// turn first.
    #[inline]
    pub(crate) fn recv_in_place<T>(&self, codec: &impl Codec<T>) -> Option<Result<Received<T>, RecvError>> {
        let mut slot = self.state.in_place()?;
        let state = slot.as_deref_mut()?;
        let Ok(Some(len)) = state.incoming.poll_message() else { return None };
        if self.link.is_closed() || state.in_place >= TURN {
            return None;
        }
        state.in_place += 1;
        Some(self.taken(state, len, codec))
    }

    #[inline]
    fn taken<T>(&self, state: &mut State, len: usize, codec: &impl Codec<T>) -> Result<Received<T>, RecvError> {
        let State { incoming, rights, .. } = state;
        let taken = take(incoming, rights, len, codec, self.link.max_descriptors());
        self.link.handle_received(matches!(incoming.poll_message(), Ok(Some(_))));
        taken
    }

    /// Whether `recv` would return now: with a message, or with an error other than that of time.
    pub(crate) async fn poll(&self, limit: Option<Duration>) -> Result<bool, RecvError> {
        let mut deadline = Deadline::new(limit);
        let there = match self.take(&mut deadline).await {
            Ok(mut state) => self.wait(&mut state, &mut deadline).await.map(drop),
            Err(error) => Err(error),
        };
        match there {
            Err(error @ RecvError::NotConnected) => Err(error),
            Err(RecvError::TimedOut { .. }) => Ok(false),
            Ok(()) | Err(_) => Ok(true),
        }
    }

    async fn take(&self, deadline: &mut Deadline) -> Result<Taken<'_, State>, RecvError> {
        let state = deadline.within(self.state.take()).await.ok_or_else(|| too_late(deadline))?;
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
                let State { incoming, half, rights, .. } = state;
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
            let State { incoming, half, rights, .. } = state;
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
