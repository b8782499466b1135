//! Waits: the sending half of a duct, in tasks.

use std::io;
use std::net::Shutdown;
use std::os::fd::BorrowedFd;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::io::{AsyncWriteExt, WriteHalf};
use tokio::runtime::RuntimeFlavor;
use tokio::time::timeout;

use super::burst::{Burst, FULL, WAIT};
use super::codec::Codec;
use super::error::SendError;
use super::link::{Deadline, Link};
use super::parting::{Parting, Progress};
use super::turns::{Taken, Turns};
use super::wire::{Outgoing, Refused};
use crate::base::task;
use crate::net::rights;
use crate::pipe::PipeStream;

/// What all handles that send share. When it goes, the other end is told.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) link: Arc<Link>,
    state: Turns<State>,
    progress: Progress,
    itself: Weak<Self>,
}

/// What one sender at a time has.
#[derive(Debug)]
struct State {
    outgoing: Outgoing,
    half: Option<WriteHalf<PipeStream>>,
    burst: Burst,
    broken: Option<io::ErrorKind>,
    /// A task is there that writes what waits.
    flushing: bool,
}

/// The turn of one sender. A message that it gives up is taken back, or, when it has begun, left to a task.
pub(crate) struct Turn<'a> {
    sending: &'a Sending,
    state: Taken<'a, State>,
    deadline: Deadline,
    /// Where the message begins that is being written.
    start: Option<usize>,
}

/// What became of a message that may wait for others.
pub(crate) enum Gathered<'a> {
    /// It waits, or is refused.
    Done(Result<(), SendError>),
    /// Not yet: it waits, and with it there is enough to write; or it is not to wait, or somebody has the state.
    No(Option<Turn<'a>>),
}

impl Sending {
    pub(crate) fn new(link: Arc<Link>, half: Option<WriteHalf<PipeStream>>) -> Arc<Self> {
        let outgoing = Outgoing::new(link.options.max_message);
        let state = State { outgoing, half, burst: Burst::default(), broken: None, flushing: false };
        let (state, progress) = (Turns::new(state), Progress::default());
        Arc::new_cyclic(|itself| Self { link, state, progress, itself: itself.clone() })
    }

    /// Sends a message that was not gathered.
    pub(crate) async fn send<T>(
        &self,
        codec: &impl Codec<T>,
        object: &T,
        limit: Option<Duration>,
        full: Option<Turn<'_>>,
    ) -> Result<(), SendError> {
        let mut turn = match full {
            Some(turn) => turn,
            None => {
                let mut turn = self.turn(limit).await?;
                turn.put(codec, object)?;
                if turn.waits() {
                    turn.state.outgoing.handle_sent();
                    turn.leave();
                    return Ok(());
                }
                turn
            }
        };
        turn.write(&[]).await?;
        let others_wait = turn.state.flushing;
        drop(turn);
        if others_wait {
            // A task that sends on and on lets others have their turn, with each piece of a burst.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Puts a message of a burst behind the others, in place: nothing is waited for, and most messages go this way.
    #[inline]
    pub(crate) fn gather<T>(&self, codec: &impl Codec<T>, object: &T, limit: Option<Duration>) -> Gathered<'_> {
        let Some(mut slot) = self.state.in_place() else { return Gathered::No(None) };
        let Some(state) = slot.as_deref_mut() else { return Gathered::No(None) };
        // Whoever finds as much as that waiting waits until it is written.
        let fits = state.flushing && state.broken.is_none() && state.outgoing.len() < FULL;
        let may_wait = self.link.options.gather && !self.link.answers() && !self.link.is_closed();
        if !fits || !may_wait || !state.burst.handle_next(Instant::now()) {
            return Gathered::No(None);
        }
        let start = match self.put(&mut state.outgoing, codec, object) {
            Ok(start) => start,
            Err(refused) => return Gathered::Done(Err(refused)),
        };
        if state.outgoing.len() < FULL {
            state.outgoing.handle_sent();
            return Gathered::Done(Ok(()));
        }
        match self.state.take_now(slot) {
            Ok(state) => {
                let deadline = Deadline::new(limit);
                Gathered::No(Some(Turn { sending: self, state, deadline, start: Some(start) }))
            }
            // It is in its place behind the others, and those who wait for their turn write it.
            Err(mut slot) => {
                if let Some(state) = slot.as_deref_mut() {
                    state.outgoing.handle_sent();
                }
                Gathered::Done(Ok(()))
            }
        }
    }

    fn put<T>(&self, outgoing: &mut Outgoing, codec: &impl Codec<T>, object: &T) -> Result<usize, SendError> {
        let put = outgoing.handle_message(|payload| codec.encode(object, payload));
        put.map_err(|refused: Refused| SendError::from_refused(refused, self.link.options.max_message))
    }

    /// Sends a message with descriptors: by itself, so that they arrive with it and no other.
    pub(crate) async fn send_with<T>(
        &self,
        codec: &impl Codec<T>,
        object: &T,
        fds: &[BorrowedFd<'_>],
        limit: Option<Duration>,
    ) -> Result<(), SendError> {
        if !self.link.is_unix() || fds.len() > rights::MOST {
            return Err(SendError::Descriptors { count: fds.len() });
        }
        let mut turn = self.turn(limit).await?;
        turn.write(&[]).await?;
        turn.put(codec, object)?;
        turn.write(fds).await
    }

    /// Writes what waits.
    pub(crate) async fn flush(&self, limit: Option<Duration>) -> Result<(), SendError> {
        self.turn(limit).await?.write(&[]).await
    }

    /// Writes what waits before a close, unless somebody is sending and does not come to an end.
    pub(crate) async fn flush_to_close(&self) {
        let now = || tokio::time::Instant::now().into_std();
        let mut parting = Parting::new(&self.progress, self.link.options.timeout, now());
        let mut taking = pin!(self.state.take());
        let state = loop {
            let Some(wait) = parting.poll_wait(now()) else { return };
            if let Ok(state) = timeout(wait, &mut taking).await {
                break state;
            }
        };
        if !self.link.is_closed() && state.broken.is_none() {
            let deadline = Deadline::new(parting.limit(now()));
            // What cannot be sent any more is told by nobody: the other end is gone, or takes nothing.
            let _ = Turn { sending: self, state, deadline, start: None }.write(&[]).await;
        }
    }

    async fn turn(&self, limit: Option<Duration>) -> Result<Turn<'_>, SendError> {
        let mut deadline = Deadline::new(limit);
        let state = deadline.within(self.state.take()).await;
        if self.link.is_closed() {
            return Err(SendError::NotConnected);
        }
        let Some(state) = state else {
            return Err(SendError::TimedOut { limit: deadline.limit.unwrap_or_default(), begun: false });
        };
        match state.broken {
            Some(kind) => Err(SendError::from_kind(kind)),
            None => Ok(Turn { sending: self, state, deadline, start: None }),
        }
    }
}

impl Turn<'_> {
    fn put<T>(&mut self, codec: &impl Codec<T>, object: &T) -> Result<(), SendError> {
        self.start = Some(self.sending.put(&mut self.state.outgoing, codec, object)?);
        Ok(())
    }

    /// Whether the message waits for others.
    fn waits(&mut self) -> bool {
        let link = &self.sending.link;
        let answers = link.take_answers();
        let State { burst, outgoing, .. } = &mut *self.state;
        link.options.gather && burst.handle_message_of_task(Instant::now(), answers) && outgoing.len() < FULL
    }

    /// Leaves what waits to a task.
    fn leave(&mut self) {
        self.start = None;
        if !self.state.flushing
            && let Some(sending) = self.sending.itself.upgrade()
        {
            self.state.flushing = true;
            task::drive(&self.sending.link.runtime, flush(sending));
        }
    }

    /// Writes everything; descriptors go with the first byte.
    async fn write(&mut self, mut fds: &[BorrowedFd<'_>]) -> Result<(), SendError> {
        let State { outgoing, half, burst, .. } = &mut *self.state;
        let Sending { link, progress, .. } = self.sending;
        let stopped = loop {
            if outgoing.is_empty() {
                burst.handle_written();
                self.start = None;
                return Ok(());
            }
            progress.handle_turn(outgoing.owes());
            match self.deadline.within(link.write(half, outgoing.poll_transmit(), fds)).await {
                Some(Ok(n)) => {
                    outgoing.handle_written(n);
                    progress.handle_written(n);
                    fds = &[];
                }
                Some(Err(error)) => break Some(error.kind()),
                None => break None,
            }
        };
        let begun = self.start.take().is_some_and(|start| !outgoing.take_back(start));
        match stopped {
            _ if link.is_closed() => Err(SendError::NotConnected),
            None => Err(SendError::TimedOut { limit: self.deadline.limit.unwrap_or_default(), begun }),
            Some(kind) => {
                self.state.broken = Some(kind);
                Err(SendError::from_kind(kind))
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Set only when the call was given up.
        if let Some(start) = self.start.take()
            && !self.state.outgoing.take_back(start)
        {
            self.leave();
        }
    }
}

/// How long the task below waits at least for a socket that is full. The duct's own limit is for those who call, and may be zero.
const ROOM: Duration = Duration::from_secs(1);

/// Writes the messages of a burst when their sender does not get to it. Ends when nothing waits, or nothing can be
/// written, or nobody but it has the duct and the other end takes nothing.
async fn flush(sending: Arc<Sending>) {
    let many = sending.link.runtime.runtime_flavor() != RuntimeFlavor::CurrentThread;
    let limit = sending.link.options.timeout.map(|limit| limit.max(ROOM));
    loop {
        // The senders that are ready go first: their messages then go together. Where they run beside this task, they
        // are given a moment.
        let begun = Instant::now();
        tokio::task::yield_now().await;
        while many && begun.elapsed() < WAIT {
            tokio::task::yield_now().await;
        }
        let done = sending.flush(limit).await;
        let alone = Arc::strong_count(&sending) == 1;
        let mut state = sending.state.take().await;
        let goes_on = matches!(done, Err(SendError::TimedOut { .. })) && !alone;
        if !goes_on && (state.outgoing.is_empty() || done.is_err()) {
            state.flushing = false;
            return;
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        match self.state.get_mut().and_then(|state| state.half.take()) {
            None => self.link.finish(Shutdown::Write),
            Some(mut half) => task::drive(&self.link.runtime, async move {
                // Fails where the pipe has ended already.
                let _ = half.shutdown().await;
            }),
        }
    }
}
