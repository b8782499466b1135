//! Waits: one connection as its pool and its users see it; its session does the work.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use rmpv::Value;

use super::asking::Asking;
use super::core::{Core, OwnMeta};
use super::envelope::{self, Tag};
use super::{Ask, AskError, Left, Pack, PoolConf, Reply};
use crate::base::queue::Limits;
use crate::frame::ws::{Close, Role};
use crate::pipe::Addr;

/// What a member tells of itself.
pub type Meta = BTreeMap<String, Value>;

/// Names a connection within this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConId(u64);

impl ConId {
    fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

impl fmt::Display for ConId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {}", self.0)
    }
}

/// How a new member is made.
pub(super) struct Birth {
    pub(super) role: Role,
    pub(super) peer: Option<Addr>,
    pub(super) path: Box<str>,
    /// The other end is natpipe.
    pub(super) kin: bool,
}

pub(super) struct Member {
    pub(super) id: ConId,
    pub(super) birth: Birth,
    pub(super) conf: Arc<PoolConf>,
    meta: Mutex<Arc<Meta>>,
    state: Mutex<State>,
    session: AtomicWaker,
    /// Messages to be sent and asks to be answered.
    busy: AtomicUsize,
    /// What this end tells of itself, and whether a stranger has yet to be told.
    own_meta: Arc<OwnMeta>,
    meta_due: AtomicBool,
    /// It is closing, or has ended.
    leaving: AtomicBool,
}

#[derive(Default)]
struct State {
    out: VecDeque<Bytes>,
    out_bytes: usize,
    pending: HashMap<Tag, Pending>,
    waiting: VecDeque<Waker>,
    closing: Option<Close>,
    ended: Option<Left>,
}

/// An ask that this member has not yet answered to the end.
struct Pending {
    asking: Arc<Asking>,
    /// Parts that have come.
    received: u64,
    /// Parts that there are, once it is known.
    expected: Option<u64>,
}

/// What a reply turned out to be.
pub(super) enum Taken {
    Done,
    /// The asker has no room for it now.
    Later,
    /// Nobody asked, or not any more.
    Nobody,
}

impl Member {
    pub(super) fn new(birth: Birth, core: &Core) -> Arc<Self> {
        Arc::new(Self {
            id: ConId::next(),
            meta_due: AtomicBool::new(!birth.kin),
            birth,
            conf: core.conf.clone(),
            own_meta: core.meta.clone(),
            leaving: AtomicBool::new(false),
            meta: Mutex::default(),
            state: Mutex::default(),
            session: AtomicWaker::new(),
            busy: AtomicUsize::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn meta(&self) -> Arc<Meta> {
        self.meta.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes other metadata; false when they are the same.
    pub(super) fn set_meta(&self, meta: Meta) -> bool {
        let mut now = self.meta.lock().unwrap_or_else(PoisonError::into_inner);
        let other = **now != meta;
        if other {
            *now = Arc::new(meta);
        }
        other
    }

    /// The metadata of this end are others now: a stranger is told with the next request.
    pub(super) fn meta_is_due(&self) {
        self.meta_due.store(true, Ordering::Relaxed);
    }

    /// This end's metadata where this member has yet to be told; whoever takes them tells it, or says that they are due again.
    pub(super) fn take_due_meta(&self) -> Option<Bytes> {
        let due = self.meta_due.load(Ordering::Relaxed) && self.meta_due.swap(false, Ordering::Relaxed);
        due.then(|| self.own_meta.get()).flatten()
    }

    /// True when nobody new is to ask it.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// How much it has to do.
    pub(super) fn load(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    fn gone(&self, left: &Left) -> AskError {
        AskError::Gone { con: self.id, why: left.to_string() }
    }

    fn is_full(state: &State, limits: Limits) -> bool {
        !state.out.is_empty() && (state.out.len() >= limits.messages || state.out_bytes >= limits.bytes)
    }

    /// Queues a frame, with the ask that waits for its answer.
    ///
    /// # Errors
    /// [`AskError::Gone`], or [`AskError::Full`]: nothing is queued then.
    pub(super) fn push(&self, frame: Bytes, ask: Option<(Tag, &Arc<Asking>)>) -> Result<(), AskError> {
        let mut state = self.lock();
        if let Some(left) = &state.ended {
            return Err(self.gone(left));
        }
        if let Some(close) = &state.closing {
            return Err(self.gone(&Left::ByUs(close.clone())));
        }
        if Self::is_full(&state, self.conf.queue) {
            return Err(AskError::Full { con: self.id });
        }
        self.busy.fetch_add(1 + usize::from(ask.is_some()), Ordering::Relaxed);
        if let Some((tag, asking)) = ask {
            asking.begin();
            state.pending.insert(tag, Pending { asking: asking.clone(), received: 0, expected: None });
        }
        state.out_bytes += frame.len();
        state.out.push_back(frame);
        drop(state);
        self.session.wake();
        Ok(())
    }

    /// Ready when the queue has room, or the member is gone.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.ended.is_some() || state.closing.is_some() || !Self::is_full(&state, self.conf.queue) {
            return Poll::Ready(());
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.waiting.push_back(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Nobody waits for this ask any more; the peer is told where it understands.
    pub(super) fn forget(&self, tag: &Tag) {
        let mut state = self.lock();
        if state.pending.remove(tag).is_none() {
            return;
        }
        self.busy.fetch_sub(1, Ordering::Relaxed);
        if self.birth.kin && state.ended.is_none() && state.closing.is_none() {
            let frame = envelope::cancel(tag);
            self.busy.fetch_add(1, Ordering::Relaxed);
            state.out_bytes += frame.len();
            state.out.push_back(frame);
            drop(state);
            self.session.wake();
        }
    }

    /// Asks the session to say goodbye.
    pub(super) fn close(&self, close: Close) {
        self.lock().closing.get_or_insert(close);
        self.leaving.store(true, Ordering::Relaxed);
        self.session.wake();
    }

    // What follows is the session's.

    pub(super) fn watch(&self, cx: &Context<'_>) {
        self.session.register(cx.waker());
    }

    pub(super) fn closing(&self) -> Option<Close> {
        self.lock().closing.clone()
    }

    pub(super) fn has_queued(&self) -> bool {
        !self.lock().out.is_empty()
    }

    /// Moves what is to be sent into `out`, at most `most` frames.
    pub(super) fn take_out(&self, out: &mut Vec<Bytes>, most: usize) {
        let mut state = self.lock();
        let n = state.out.len().min(most);
        if n == 0 {
            return;
        }
        out.extend(state.out.drain(..n));
        state.out_bytes -= out.iter().map(Bytes::len).sum::<usize>();
        if state.out.is_empty() && state.out.capacity() > 64 {
            state.out = VecDeque::new();
        }
        self.busy.fetch_sub(n, Ordering::Relaxed);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Hands a part of an answer to its asker.
    pub(super) fn answered(&self, tag: &Tag, part: &Part, cx: &Context<'_>) -> Taken {
        let mut state = self.lock();
        let Some(pending) = state.pending.get_mut(tag) else { return Taken::Nobody };
        if pending.asking.poll_room(cx).is_pending() {
            return Taken::Later;
        }
        pending.received += 1;
        if part.done {
            pending.expected = Some(part.count.unwrap_or(pending.received));
        }
        let last = pending.expected.is_some_and(|expected| pending.received >= expected);
        let asking = pending.asking.clone();
        if last {
            state.pending.remove(tag);
            self.busy.fetch_sub(1, Ordering::Relaxed);
        }
        drop(state);
        asking.put(part.answer(self.id), last);
        Taken::Done
    }

    /// The connection has ended: everybody who waits learns it. True the first time.
    pub(super) fn end(&self, left: &Left) -> bool {
        let mut state = self.lock();
        if state.ended.is_some() {
            return false;
        }
        state.ended = Some(left.clone());
        self.leaving.store(true, Ordering::Relaxed);
        state.out = VecDeque::new();
        state.out_bytes = 0;
        let pending = std::mem::take(&mut state.pending);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for Pending { asking, .. } in pending.into_values() {
            asking.put(Some(Err(self.gone(left))), true);
        }
        waiting.into_iter().for_each(Waker::wake);
        true
    }
}

/// A reply, as far as its asker is concerned.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) msg: Option<super::Packed>,
    pub(super) done: bool,
    pub(super) count: Option<u64>,
    pub(super) err: Option<String>,
}

impl Part {
    fn answer(&self, con: ConId) -> Option<Result<Reply, AskError>> {
        match (&self.err, &self.msg) {
            (Some(reason), _) => Some(Err(AskError::Router { con, reason: reason.clone() })),
            (None, Some(msg)) => Some(Ok(Reply { con, msg: msg.clone() })),
            (None, None) => None,
        }
    }
}

/// A connection of a pool. It does not hold the connection open: that is its pool's.
#[derive(Clone)]
pub struct Con(pub(super) Arc<Member>);

impl Con {
    /// Its name within this process.
    pub fn id(&self) -> ConId {
        self.0.id
    }

    /// The other end's address, where it has one.
    pub fn peer_addr(&self) -> Option<&Addr> {
        self.0.birth.peer.as_ref()
    }

    /// Whether this end connected, or was connected to.
    pub fn role(&self) -> Role {
        self.0.birth.role
    }

    /// The path with which the connection began (`/ws`).
    pub fn path(&self) -> &str {
        &self.0.birth.path
    }

    /// What the other end has told of itself; empty until it has.
    pub fn meta(&self) -> Arc<Meta> {
        self.0.meta()
    }

    /// A message to this connection alone.
    pub fn ask(&self, msg: impl Pack) -> Ask {
        Ask::to_one(self.clone(), msg.pack())
    }

    /// Says goodbye: to the peer with this code (1000, or one from 3000 to 4999), to those who wait for its answers with an
    /// error. It does not wait; [`Event::Left`](super::Event::Left) tells the end.
    pub fn close(&self, code: u16, reason: impl Into<String>) {
        self.0.close(Close::new(code, reason));
    }

    /// How the connection ended, if it has.
    pub fn left(&self) -> Option<Left> {
        self.0.lock().ended.clone()
    }
}

impl PartialEq for Con {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl fmt::Debug for Con {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Con({})", self.0.id.0)
    }
}
