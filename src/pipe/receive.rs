//! Waits: reading a transport, by the driver for all who listen, or straight by whoever receives.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;

use super::core::Core;
use super::dedup::Window;
use super::handle::Message;
use super::hub::Listeners;
use super::transport::{Kind, Reader, Received, Transport};
use super::{Addr, End, NetConf, RecvError, error};
use crate::base::attention::Attention;
use crate::base::turn::Turn;

/// Errors in a row that are no refusals, with no datagram between them, after which a datagram pipe counts as broken.
const DATAGRAM_ERRORS: u32 = 64;

/// What one read came to.
pub(crate) enum Step {
    /// A message for those who listen.
    Message(Message),
    /// A duplicate, or too long: counted and dropped.
    Dropped,
    /// A datagram of ours was refused; the pipe goes on.
    Refused(RecvError),
    /// Nothing more will come.
    End(End),
}

/// The reading side of a pipe.
///
/// While `recv` alone listens, the receiving task reads the socket itself: no other task runs and
/// no queue is passed. Otherwise the driver reads and delivers.
#[derive(Debug)]
pub(crate) struct Receiving {
    state: Mutex<State>,
    by_receivers: AtomicBool,
    /// Whose turn it is among the receivers.
    turn: Turn,
    /// Calls the receiver that reads: the driver takes over, or something was put into the inbox.
    pub(crate) call: Attention,
}

#[derive(Debug)]
struct State {
    /// The end that a receiver came upon, for the driver.
    end: Option<End>,
    reader: Reader,
    window: Option<Window>,
    errors: u32,
}

impl Receiving {
    pub(crate) fn new(conf: &NetConf, kind: Kind) -> Self {
        // A datagram is read whole whatever `reader_limit` says, to know that it is too long.
        let room = match kind {
            Kind::Stream => conf.reader_limit,
            Kind::Datagram => conf.reader_limit.max(1 << 16),
        };
        let window = conf.enable_msg_ids.then(|| Window::new(conf.max_msg_ids));
        let state = State { end: None, reader: Reader::new(room), window, errors: 0 };
        Self {
            state: Mutex::new(state),
            by_receivers: AtomicBool::new(false),
            turn: Turn::default(),
            call: Attention::default(),
        }
    }

    /// Leaves the reading to the receivers, or takes it from them.
    pub(crate) fn leave_to_receivers(&self, leave: bool) {
        // With the lock held nobody is in the middle of a read.
        let state = self.lock();
        let before = self.by_receivers.swap(leave, Ordering::SeqCst);
        drop(state);
        if before && !leave {
            self.call.raise();
        }
    }

    fn is_by_receivers(&self) -> bool {
        self.by_receivers.load(Ordering::SeqCst)
    }

    /// The end that a receiver came upon.
    pub(crate) fn end(&self) -> Option<End> {
        self.lock().end
    }

    /// Reads once, for the driver.
    pub(crate) fn poll(&self, core: &Core, transport: &dyn Transport, cx: &mut Context<'_>) -> Poll<Step> {
        self.lock().poll(core, transport, cx)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn poll(&mut self, core: &Core, transport: &dyn Transport, cx: &mut Context<'_>) -> Poll<Step> {
        Poll::Ready(match ready!(transport.poll_recv(cx, &mut self.reader)) {
            Ok(Received::End) => Step::End(End::Finished),
            Ok(Received::Data(data, from)) => {
                let from = from.or_else(|| core.peer.clone()).unwrap_or(Addr::Unnamed);
                self.sift(core, transport.kind(), Message { data, from })
            }
            Err(error) => self.survive(core, transport.kind(), &error),
        })
    }

    /// Counts a message, and drops a datagram that is too long and what is a duplicate. Of a stream nothing is too long: a
    /// transport may bring memory of its own.
    fn sift(&mut self, core: &Core, kind: Kind, message: Message) -> Step {
        self.errors = 0;
        core.count_in(message.data.len());
        if kind == Kind::Datagram && message.data.len() > core.conf.reader_limit {
            core.counters.dropped(1);
            return Step::Dropped;
        }
        if self.window.as_mut().is_some_and(|window| !window.is_new(&message.from, &message.data)) {
            core.counters.duplicate();
            return Step::Dropped;
        }
        Step::Message(message)
    }

    /// An error ends a stream; of datagrams one is told to the receiver, and many in a row are the end.
    fn survive(&mut self, core: &Core, kind: Kind, error: &io::Error) -> Step {
        if !is_refusal(error.kind()) {
            self.errors += 1;
        }
        if kind == Kind::Stream || self.errors > DATAGRAM_ERRORS {
            tracing::debug!(pipe = core.id, %error, "the pipe broke");
            return Step::End(End::Broken(error.kind()));
        }
        core.counters.failed();
        Step::Refused(error::refused(core.peer.as_ref().and_then(Addr::ip), error))
    }
}

/// What the network says of a datagram that was sent (ICMP): there are as many as were sent, and nothing is wrong with the socket.
fn is_refusal(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::ConnectionRefused | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable
    )
}

/// Keeps the driver reading; see [`Core::watch_end`].
pub(crate) struct EndWatch(Arc<Core>);

impl Drop for EndWatch {
    fn drop(&mut self) {
        self.0.end_watchers.fetch_sub(1, Ordering::AcqRel);
        self.0.hub.attention.raise();
    }
}

impl Core {
    /// The next message within `limit`: zero only takes what is there, `None` waits for ever.
    ///
    /// Cancel safe.
    pub(crate) async fn recv(&self, limit: Option<Duration>) -> Result<Message, RecvError> {
        if limit.is_some_and(|limit| limit.is_zero()) {
            return self.recv_now().await;
        }
        self.hub.inbox.timer.within(limit, || None, self.next_message()).await
    }

    /// What is there: one look at the inbox, and at the socket where receivers read it.
    async fn recv_now(&self) -> Result<Message, RecvError> {
        let mut next = pin!(self.next_message());
        let looked = poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await;
        match looked {
            Poll::Ready(taken) => taken,
            Poll::Pending => Err(RecvError::TimedOut(Duration::ZERO)),
        }
    }

    /// Puts a message back in front, where it came from.
    pub(crate) fn put_back(&self, message: Message, bytes: usize) {
        self.hub.inbox.put_back(message, bytes);
        if let Some(receiving) = &self.receiving {
            receiving.call.raise();
        }
    }

    /// While this lives, the driver reads, so that the end is noticed though nobody receives.
    pub(crate) fn watch_end(self: &Arc<Self>) -> EndWatch {
        self.end_watchers.fetch_add(1, Ordering::AcqRel);
        self.hub.attention.raise();
        EndWatch(self.clone())
    }

    /// True when `recv` is the only one that listens, and so may read by itself.
    pub(crate) fn only_receivers_listen(&self, listeners: &Listeners) -> bool {
        self.hub.is_claimed()
            && listeners.is_empty()
            && self.end_watchers.load(Ordering::Acquire) == 0
            && !self.hub.awaits_end()
            && self.parent.as_ref().is_none_or(|parent| !parent.listens() && !parent.hub.awaits_end())
    }

    /// The next message of the inbox, read straight from the socket while nobody else listens.
    ///
    /// Cancel safe.
    pub(crate) async fn next_message(&self) -> Result<Message, RecvError> {
        loop {
            // In this order: what the driver puts into the inbox, it puts there before it leaves the
            // reading to the receivers.
            let direct = self.receiving.as_ref().filter(|receiving| receiving.is_by_receivers());
            if let Some(taken) = self.hub.inbox.try_take() {
                return taken;
            }
            if let Some(receiving) = direct
                && let Some(read) = self.read_directly(receiving).await
            {
                return read;
            }
            let waits = || !self.receiving.as_ref().is_some_and(Receiving::is_by_receivers);
            self.hub.inbox.wait_while(waits).await;
        }
    }

    /// Appends what comes next of a stream to `buffer`, which has room: straight from the socket where
    /// nobody else listens. Returns how much came.
    ///
    /// Cancel safe.
    pub(crate) async fn recv_into(&self, buffer: &mut BytesMut) -> Result<usize, RecvError> {
        let before = buffer.len();
        loop {
            let direct = self.receiving.as_ref().filter(|receiving| receiving.is_by_receivers());
            if let Some(taken) = self.hub.inbox.try_take() {
                buffer.extend_from_slice(&taken?.data);
                return Ok(buffer.len() - before);
            }
            if let Some(receiving) = direct
                && let Some(read) = self.read_into(receiving, buffer).await
            {
                return read.map(|()| buffer.len() - before);
            }
            let waits = || !self.receiving.as_ref().is_some_and(Receiving::is_by_receivers);
            self.hub.inbox.wait_while(waits).await;
        }
    }

    /// As `read_directly`, into memory of the caller's.
    async fn read_into(&self, receiving: &Receiving, buffer: &mut BytesMut) -> Option<Result<(), RecvError>> {
        let transport = self.transport()?;
        let _turn = Turn::take(&receiving.turn).await;
        poll_fn(|cx| {
            receiving.call.watch(cx);
            if receiving.call.lower() {
                return Poll::Ready(None);
            }
            let mut state = receiving.lock();
            if !receiving.is_by_receivers() {
                return Poll::Ready(None);
            }
            let before = buffer.len();
            state.reader.lend(std::mem::take(buffer));
            let step = state.poll(self, &**transport, cx);
            *buffer = state.reader.take_back();
            Poll::Ready(match ready!(step) {
                Step::Message(message) => {
                    self.count_bytes_in(buffer.len() - before);
                    // What a transport brings in memory of its own is counted already.
                    buffer.extend_from_slice(&message.data);
                    Some(Ok(()))
                }
                Step::Dropped => {
                    self.count_bytes_in(buffer.len() - before);
                    Some(Ok(()))
                }
                Step::Refused(error) => Some(Err(error)),
                Step::End(end) => {
                    state.end = Some(end);
                    self.hub.attention.raise();
                    Some(Err(RecvError::Ended(end)))
                }
            })
        })
        .await
    }

    /// Reads the socket in the receiving task. `None` when that is the driver's part, or when the
    /// inbox should be looked at again.
    async fn read_directly(&self, receiving: &Receiving) -> Option<Result<Message, RecvError>> {
        let transport = self.transport()?;
        let _turn = Turn::take(&receiving.turn).await;
        poll_fn(|cx| {
            receiving.call.watch(cx);
            if receiving.call.lower() {
                return Poll::Ready(None);
            }
            let mut state = receiving.lock();
            while receiving.is_by_receivers() {
                match ready!(state.poll(self, &**transport, cx)) {
                    Step::Message(message) => return Poll::Ready(Some(Ok(message))),
                    Step::Dropped => {}
                    Step::Refused(error) => return Poll::Ready(Some(Err(error))),
                    Step::End(end) => {
                        state.end = Some(end);
                        self.hub.attention.raise();
                        return Poll::Ready(Some(Err(RecvError::Ended(end))));
                    }
                }
            }
            Poll::Ready(None)
        })
        .await
    }
}
