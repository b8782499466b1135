//! Waits: the state that a pipe's handles and its driver share, and sending.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Poll;

use arc_swap::ArcSwapOption;
use socket2::Socket;
use tokio::runtime::Handle as Runtime;
use tokio::sync::watch;

use super::callbacks::{self, OnEnd, OnMessage, OnUp};
use super::counters::Counting;
use super::handle::Handle;
use super::hub::{Hub, Listeners};
use super::mailbox::WhenFull;
use super::receive::Receiving;
use super::serve::{Listener, Server};
use super::transport::{Kind, Transport};
use super::{Addr, End, HandlerId, NetConf, Pipe, SendError};
use crate::base::task;
use crate::base::turn::{Taken, Turn};

/// Where a pipe is in its life.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Life {
    /// Somebody wants it closed.
    pub(crate) closing: bool,
    /// That somebody is a handler of its own, which may run to its end.
    pub(crate) by_handler: bool,
    /// Which clients a server that is closing leaves open.
    pub(crate) keep: Keep,
    /// Nothing more will be received.
    pub(crate) ended: Option<End>,
    /// So many linked pipes have heard of the end.
    pub(crate) links_told: usize,
    /// This end has finished sending.
    pub(crate) write_finished: bool,
    /// Everything is released.
    pub(crate) done: bool,
}

/// A transport, held together by those who use it.
pub(crate) type Held = Arc<Box<dyn Transport>>;

/// Makes a transport one that can be held.
pub(crate) fn held(transport: impl Transport) -> Held {
    Arc::new(Box::new(transport))
}

const CLOSING: u8 = 1;
const BY_HANDLER: u8 = 2;
const WRITE_FINISHED: u8 = 4;

/// Which clients outlive their server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Keep {
    /// None: it was closed.
    #[default]
    None,
    /// Those that somebody else holds: its last handle was dropped.
    Accepted,
    /// All: it only stops listening.
    All,
}

/// Handlers that are in place before the first byte can arrive.
#[derive(Clone, Default)]
pub(crate) struct Handlers {
    pub(crate) message: Vec<OnMessage>,
    pub(crate) up: Vec<OnUp>,
    pub(crate) end: Vec<OnEnd>,
}

/// What every pipe of a configuration shares.
#[derive(Clone)]
pub(crate) struct Setting {
    pub(crate) conf: Arc<NetConf>,
    pub(crate) runtime: Runtime,
}

pub(crate) struct Core {
    pub(crate) id: u64,
    pub(crate) conf: Arc<NetConf>,
    pub(crate) runtime: Runtime,
    pub(crate) hub: Hub,
    pub(crate) counters: Counting,
    /// The reading side; a server has none.
    pub(crate) receiving: Option<Receiving>,
    /// Those who wait for the end.
    pub(crate) end_watchers: AtomicUsize,
    pub(crate) local: Addr,
    pub(crate) peer: Option<Addr>,
    pub(crate) life: watch::Sender<Life>,
    pub(crate) server: Option<Server>,
    /// The server that accepted this pipe.
    pub(crate) parent: Option<Arc<Core>>,
    /// Whose turn it is to write.
    writer: Turn,
    /// Pipes that are linked to this one.
    pub(crate) sources: AtomicUsize,
    /// The parts of `life` that each message asks for.
    flags: AtomicU8,
    transport: ArcSwapOption<Box<dyn Transport>>,
    raw: Mutex<Option<Socket>>,
    me: OnceLock<Weak<Handle>>,
}

/// What a pipe is made from.
struct Parts {
    local: Addr,
    peer: Option<Addr>,
    parent: Option<Arc<Core>>,
    transport: Option<Held>,
    server: Option<Server>,
    raw: Option<Socket>,
}

impl Core {
    /// A pipe over a transport that is connected, with its driver running.
    pub(crate) fn connected(transport: Held, setting: &Setting, handlers: Handlers, parent: Option<Arc<Self>>) -> Pipe {
        let (local, peer) = (transport.local_addr(), transport.peer_addr());
        let when_full = match transport.kind() {
            Kind::Stream => WhenFull::Wait,
            Kind::Datagram => WhenFull::DropOldest,
        };
        let parts = Parts { local, peer, parent, transport: Some(transport), server: None, raw: None };
        let pipe = Self::build(parts, setting, handlers, when_full);
        let core = pipe.core().clone();
        core.run_ups(&pipe, core.hub.ups());
        task::drive(&setting.runtime, super::drive::drive(core));
        pipe
    }

    /// A pipe that listens, with its driver running.
    pub(crate) fn listening(listener: Listener, setting: &Setting, handlers: Handlers) -> Pipe {
        let parts = Parts {
            local: listener.local.clone(),
            peer: None,
            parent: None,
            transport: None,
            server: Some(Server::new()),
            raw: None,
        };
        let pipe = Self::build(parts, setting, handlers, WhenFull::Wait);
        task::drive(&setting.runtime, super::serve::serve(pipe.core().clone(), listener));
        pipe
    }

    /// A pipe that only holds a socket.
    pub(crate) fn raw(socket: Socket, setting: &Setting) -> Pipe {
        let named = |addr: io::Result<socket2::SockAddr>| addr.ok().and_then(|a| a.as_socket()).map(Addr::Ip);
        let (local, peer) = (named(socket.local_addr()), named(socket.peer_addr()));
        let local = local.unwrap_or(Addr::Unnamed);
        let parts = Parts { local, peer, parent: None, transport: None, server: None, raw: Some(socket) };
        Self::build(parts, setting, Handlers::default(), WhenFull::Wait)
    }

    fn build(parts: Parts, setting: &Setting, handlers: Handlers, when_full: WhenFull) -> Pipe {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let core = Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            conf: setting.conf.clone(),
            runtime: setting.runtime.clone(),
            hub: Hub::new(&setting.conf, when_full),
            counters: Counting::default(),
            receiving: parts.transport.as_ref().map(|transport| Receiving::new(&setting.conf, transport.kind())),
            end_watchers: AtomicUsize::new(0),
            local: parts.local,
            peer: parts.peer,
            life: watch::Sender::new(Life::default()),
            server: parts.server,
            parent: parts.parent,
            writer: Turn::default(),
            sources: AtomicUsize::new(0),
            flags: AtomicU8::new(0),
            transport: ArcSwapOption::new(parts.transport),
            raw: Mutex::new(parts.raw),
            me: OnceLock::new(),
        });
        core.install(handlers);
        let pipe = Pipe::new(core.clone());
        // The cell is empty: it belongs to the value made above.
        let _ = core.me.set(Arc::downgrade(pipe.handle()));
        pipe
    }

    fn install(&self, handlers: Handlers) {
        if !handlers.message.is_empty() {
            let named = handlers.message.into_iter().map(|handler| (HandlerId::next(), handler));
            self.hub.change(|listeners| listeners.handlers.extend(named));
        }
        handlers.up.into_iter().for_each(|handler| self.hub.add_up(HandlerId::next(), handler));
        handlers.end.into_iter().for_each(|handler| self.hub.add_end(HandlerId::next(), handler));
    }

    /// Runs handlers of the beginning, each in a task of its own that ends with the pipe.
    pub(crate) fn run_ups(self: &Arc<Self>, pipe: &Pipe, ups: Vec<OnUp>) {
        for up in ups {
            let (core, pipe) = (self.clone(), pipe.clone());
            task::drive(&self.runtime, async move {
                tokio::select! {
                    biased;
                    () = core.when(|life| life.done) => {}
                    ran = callbacks::run(core.id, || up(pipe)) => core.note(ran),
                }
            });
        }
    }

    /// Runs one handler of the end in a task of its own: the pipe has ended already.
    pub(crate) fn run_end_later(self: &Arc<Self>, handler: OnEnd, end: End) {
        let core = self.clone();
        task::drive(&self.runtime, async move { core.note(callbacks::run(core.id, || handler(end)).await) });
    }

    /// Changes who listens, and tells the drivers that deliver to them.
    pub(crate) fn change_listeners(&self, change: impl FnOnce(&mut Listeners)) {
        self.hub.change(change);
        self.call_clients();
    }

    /// From now on `recv` gets every message.
    pub(crate) fn claim(&self) {
        if self.hub.claim() {
            self.call_clients();
        }
    }

    pub(crate) fn add_end(&self, id: HandlerId, handler: OnEnd) {
        self.hub.add_end(id, handler);
        self.call_clients();
    }

    /// Who listens to a server listens to its clients: their drivers look again.
    fn call_clients(&self) {
        for client in self.server.iter().flat_map(Server::all) {
            client.hub.attention.raise();
        }
    }

    /// Counts a handler that panicked.
    pub(crate) fn note(&self, ran: Result<(), callbacks::Panicked>) {
        if ran.is_err() {
            self.counters.panicked();
            tracing::warn!(pipe = self.id, "a handler panicked");
        }
    }

    /// Counts a message that came in, at the server too.
    pub(crate) fn count_in(&self, bytes: usize) {
        self.counters.received(bytes);
        if let Some(parent) = &self.parent {
            parent.counters.received(bytes);
        }
    }

    /// Counts bytes of a message that is counted already.
    pub(crate) fn count_bytes_in(&self, bytes: usize) {
        self.counters.received_bytes(bytes);
        if let Some(parent) = &self.parent {
            parent.counters.received_bytes(bytes);
        }
    }

    /// Counts a message that went out, at the server too.
    pub(crate) fn count_out(&self, bytes: usize) {
        self.counters.sent(bytes);
        if let Some(parent) = &self.parent {
            parent.counters.sent(bytes);
        }
    }

    /// A handle of this pipe, unless all have been dropped.
    pub(crate) fn handle(&self) -> Option<Pipe> {
        self.me.get()?.upgrade().map(Pipe::from_handle)
    }

    /// The transport, until the pipe lets go of it.
    pub(crate) fn transport(&self) -> Option<Held> {
        self.transport.load_full()
    }

    /// Lets go of the transport; it closes when nobody is in the middle of a call on it.
    pub(crate) fn take_transport(&self) -> Option<Held> {
        self.transport.swap(None)
    }

    pub(crate) fn take_raw(&self) -> Option<Socket> {
        lock(&self.raw).take()
    }

    pub(crate) fn is_raw(&self) -> bool {
        lock(&self.raw).is_some()
    }

    /// Asks the driver to close everything. Does not wait.
    pub(crate) fn begin_close(&self) {
        let by_handler = callbacks::is_inside(self.id);
        self.note_closing(by_handler);
        if !by_handler {
            self.wait_for_no_handler();
        }
        self.hub.attention.raise();
    }

    /// Closing from now on; who has said so first counts.
    pub(crate) fn note_closing(&self, by_handler: bool) {
        self.life.send_if_modified(|life| {
            let first = !life.closing;
            if first {
                life.closing = true;
                life.by_handler = by_handler;
                self.flags.fetch_or(if by_handler { CLOSING | BY_HANDLER } else { CLOSING }, Ordering::AcqRel);
            }
            first
        });
    }

    /// Who closes a pipe from outside does not wait for the handler that has closed it before: what that one waits for
    /// may be what the other one holds.
    fn wait_for_no_handler(&self) {
        self.life.send_if_modified(|life| {
            let waits = std::mem::take(&mut life.by_handler);
            if waits {
                self.flags.fetch_and(!BY_HANDLER, Ordering::AcqRel);
            }
            waits
        });
    }

    /// One that only holds a socket has no task: nothing of it ends later.
    pub(crate) fn has_driver(&self) -> bool {
        self.receiving.is_some() || self.server.is_some()
    }

    /// As `begin_close`, for the last handle that goes.
    pub(crate) fn begin_drop(&self) {
        if self.server.is_some() && !self.is_closing() {
            self.life.send_modify(|life| life.keep = Keep::Accepted);
        }
        self.begin_close();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.flags.load(Ordering::Acquire) & CLOSING != 0
    }

    /// Closing, and not on the word of a handler that may still run.
    pub(crate) fn is_closing_now(&self) -> bool {
        self.flags.load(Ordering::Acquire) & (CLOSING | BY_HANDLER) == CLOSING
    }

    pub(crate) fn is_write_finished(&self) -> bool {
        self.flags.load(Ordering::Acquire) & WRITE_FINISHED != 0
    }

    pub(crate) fn set_write_finished(&self) {
        self.flags.fetch_or(WRITE_FINISHED, Ordering::AcqRel);
        self.life.send_modify(|life| life.write_finished = true);
    }

    pub(crate) async fn done(&self) {
        self.when(|life| life.done).await;
    }

    /// Waits until the life of the pipe has come to a point. Cancel safe.
    pub(crate) async fn when(&self, reached: impl FnMut(&Life) -> bool) {
        // The sender lives in `self`, so the wait does not fail. What it yields locks the state, and
        // must be gone before anything else is: dropping a pipe changes its state.
        drop(self.life.subscribe().wait_for(reached).await);
    }

    /// The turn to write.
    pub(crate) async fn writing(&self) -> Taken<&Turn, Turn> {
        Turn::take(&self.writer).await
    }

    /// The turn to write, for as long as it is wanted.
    pub(crate) async fn writing_owned(self: &Arc<Self>) -> Taken<Arc<Self>, Self> {
        Turn::take(self.clone()).await
    }

    /// Sends a message whole, or says why not.
    pub(crate) async fn send(&self, data: &[u8], to: Option<&Addr>) -> Result<(), SendError> {
        if let Some(server) = &self.server {
            let dest = to.ok_or(SendError::NoDestination)?;
            let client = server.client(dest).ok_or_else(|| SendError::NoSuchClient { dest: dest.clone() })?;
            return Box::pin(client.send(data, None)).await;
        }
        let held = self.transport.load();
        let transport = held.as_ref().ok_or_else(|| self.why_closed())?;
        self.check_destination(transport.kind(), to)?;
        let _turn = self.writing().await;
        if self.is_closing_now() {
            return Err(self.why_closed());
        }
        if self.is_write_finished() {
            return Err(SendError::Finished);
        }
        self.unless_closed(write(&***transport, data, to)).await.map_err(|source| self.send_error(source, to))?;
        self.count_out(data.len());
        Ok(())
    }

    fn check_destination(&self, kind: Kind, to: Option<&Addr>) -> Result<(), SendError> {
        match (to, &self.peer) {
            (None, None) if kind == Kind::Datagram => Err(SendError::NoDestination),
            (Some(dest), Some(peer)) if dest != peer => {
                Err(SendError::OtherDestination { dest: dest.clone(), peer: peer.clone() })
            }
            _ => Ok(()),
        }
    }

    fn send_error(&self, source: io::Error, to: Option<&Addr>) -> SendError {
        if source.kind() == io::ErrorKind::ConnectionAborted && self.is_closing() {
            return self.why_closed();
        }
        if !self.is_datagram() {
            self.send_failed();
        }
        let dest = to.or(self.peer.as_ref()).cloned().unwrap_or(Addr::Unnamed);
        SendError::Io { dest, source }
    }

    /// A stream could not be written: when nothing more will be received either, it is over.
    pub(crate) fn send_failed(&self) {
        if self.end().is_some() && self.conf.do_close {
            self.begin_close();
        }
    }

    pub(crate) fn is_datagram(&self) -> bool {
        self.transport().is_some_and(|transport| transport.kind() == Kind::Datagram)
    }

    fn why_closed(&self) -> SendError {
        if self.is_raw() { SendError::SocketOnly } else { SendError::Ended(self.end().unwrap_or(End::Closed)) }
    }

    pub(crate) fn end(&self) -> Option<End> {
        self.life.borrow().ended
    }

    /// Says to the peer that nothing more will be sent.
    pub(crate) async fn finish(&self) -> Result<(), SendError> {
        let transport = self.transport().ok_or_else(|| self.why_closed())?;
        let _turn = self.writing().await;
        if self.is_write_finished() {
            return Ok(());
        }
        let shut = self.unless_closed(poll_fn(|cx| transport.poll_finish(cx))).await;
        self.set_write_finished();
        match shut {
            // The peer is gone already: it will not miss the word.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            shut => shut.map_err(|source| self.send_error(source, None)),
        }
    }

    /// Runs `work`, given up with `ConnectionAborted` when the pipe is closed meanwhile.
    pub(crate) async fn unless_closed<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let mut work = pin!(work);
        if let Some(done) = poll_once(work.as_mut()).await {
            return done;
        }
        tokio::select! {
            biased;
            () = self.when(|life| life.closing && !life.by_handler) => Err(io::ErrorKind::ConnectionAborted.into()),
            done = work => done,
        }
    }
}

impl AsRef<Turn> for Core {
    fn as_ref(&self) -> &Turn {
        &self.writer
    }
}

async fn poll_once<F: Future>(mut work: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|cx| {
        Poll::Ready(match work.as_mut().poll(cx) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        })
    })
    .await
}

/// Writes all of `data` and passes it on. Dropping it in the middle leaves a stream with a part.
async fn write(transport: &dyn Transport, data: &[u8], to: Option<&Addr>) -> io::Result<()> {
    let mut rest = data;
    loop {
        let n = poll_fn(|cx| transport.poll_send(cx, rest, to)).await?;
        if transport.kind() == Kind::Datagram {
            break;
        }
        rest = rest.get(n..).unwrap_or_default();
        if rest.is_empty() {
            break;
        }
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    poll_fn(|cx| transport.poll_flush(cx)).await
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
