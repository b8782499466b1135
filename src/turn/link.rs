//! Waits: the task between an allocation's core and its server: one pipe, read and written at once.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep_until, timeout};

use super::core::{Core, Event};
use super::frame::{self, Cut};
use super::{Lost, PermitError, Refused};
use crate::base::attention::Attention;
use crate::base::bell::Bell;
use crate::base::queue::{Limits, Queue};
use crate::pipe::{Pipe, RecvError};
use crate::stun::Proof;

/// Datagrams that wait in either direction. Where they come faster the oldest is lost; where they are sent faster the sender waits.
const WAITING: Limits = Limits { messages: 512, bytes: 1 << 20 };

/// The longest piece of a stream: channel data with the longest datagram.
const LONGEST: usize = 4 + (1 << 16);

/// How long giving the address back may take.
const PARTING: Duration = Duration::from_secs(2);

/// Permissions that are waited for at one time.
const ASKED: usize = 64;

/// How an allocation stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Asking,
    Open { relayed: SocketAddr, mapped: Option<SocketAddr> },
    NotAllocated(Refused),
    Redirected(SocketAddr),
    Lost(Lost),
}

/// What the task and the handles share.
pub(super) struct Link {
    state: Mutex<State>,
    standing: watch::Sender<Standing>,
    /// Its sender goes with the task.
    ended: watch::Receiver<()>,
    /// Something is to be written.
    write: Attention,
    /// The core has been told something.
    told: Attention,
}

struct State {
    core: Core,
    control: VecDeque<Bytes>,
    out: Queue<Bytes>,
    inbox: Queue<(SocketAddr, Bytes)>,
    readers: Bell,
    writers: Bell,
    asked: Vec<(IpAddr, oneshot::Sender<Result<(), PermitError>>)>,
    connecting: Vec<(SocketAddr, oneshot::Sender<Connected>)>,
    attempts: VecDeque<(SocketAddr, u32)>,
    over: bool,
}

/// The number of a connection that waits to be bound, or why there is none, where the server says.
type Connected = Result<u32, Option<Refused>>;

impl Link {
    /// With what its task has to hold until it ends.
    pub(super) fn new(core: Core) -> (Arc<Self>, watch::Sender<()>) {
        let (end, ended) = watch::channel(());
        let state = State {
            core,
            control: VecDeque::new(),
            out: Queue::new(WAITING),
            inbox: Queue::new(WAITING),
            readers: Bell::default(),
            writers: Bell::default(),
            asked: Vec::new(),
            connecting: Vec::new(),
            attempts: VecDeque::new(),
            over: false,
        };
        let link = Self {
            state: Mutex::new(state),
            standing: watch::Sender::new(Standing::Asking),
            ended,
            write: Attention::default(),
            told: Attention::default(),
        };
        (Arc::new(link), end)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    fn lost(&self) -> Lost {
        match &*self.standing.borrow() {
            Standing::Lost(lost) => lost.clone(),
            Standing::NotAllocated(refused) => Lost::Refused(refused.clone()),
            _ => Lost::Closed,
        }
    }

    // ---- for handles

    pub(super) async fn permit(&self, ip: IpAddr) -> Result<(), PermitError> {
        let (tell, told) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.over {
                return Err(self.lost().into());
            }
            state.asked.retain(|(_, asked)| !asked.is_closed());
            if state.asked.len() >= ASKED || !state.core.permit(Instant::now(), ip) {
                return Err(PermitError::TooMany);
            }
            state.asked.push((ip, tell));
        }
        self.told.raise();
        told.await.unwrap_or_else(|_| Err(self.lost().into()))
    }

    /// A connection of the server to a peer, to be bound; `None` when the server did not say why there is none.
    pub(super) async fn connect(&self, peer: SocketAddr) -> Connected {
        let (tell, told) = oneshot::channel();
        {
            let mut state = self.lock();
            state.connecting.retain(|(_, asked)| !asked.is_closed());
            if state.over || state.connecting.len() >= ASKED {
                return Err(None);
            }
            state.core.connect(Instant::now(), peer);
            state.connecting.push((peer, tell));
        }
        self.told.raise();
        told.await.unwrap_or(Err(None))
    }

    /// The next connection of a peer, to be bound.
    pub(super) fn poll_attempt(&self, cx: &Context<'_>) -> Poll<Result<(SocketAddr, u32), Lost>> {
        let mut state = self.lock();
        if let Some(attempt) = state.attempts.pop_front() {
            return Poll::Ready(Ok(attempt));
        }
        if state.over {
            return Poll::Ready(Err(self.lost()));
        }
        state.readers.wait(cx);
        Poll::Pending
    }

    /// What requests are signed with now.
    pub(super) fn proof(&self) -> Proof {
        self.lock().core.proof()
    }

    /// `WouldBlock` when the server does not take it now.
    pub(super) fn try_send(&self, data: &[u8], peer: SocketAddr) -> io::Result<()> {
        let mut state = self.lock();
        if state.over {
            return Err(self.lost().into());
        }
        if state.out.is_full() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let Some(bytes) = state.core.send(Instant::now(), peer, data) else {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the peer is not let in, or the datagram is too long",
            ));
        };
        let len = bytes.len();
        state.out.push(bytes, len);
        // A channel may be wanted, which the server has to be asked for though it says nothing itself.
        let asks = state.core.is_asking();
        drop(state);
        if asks {
            self.told.raise();
        }
        self.write.raise();
        Ok(())
    }

    pub(super) fn poll_writable(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        if state.over {
            return Poll::Ready(Err(self.lost().into()));
        }
        if state.out.is_full() {
            state.writers.wait(cx);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_recv(&self, cx: &Context<'_>) -> Poll<io::Result<(Bytes, SocketAddr)>> {
        let mut state = self.lock();
        if let Some((from, bytes)) = state.inbox.pop() {
            return Poll::Ready(Ok((bytes, from)));
        }
        if state.over {
            return Poll::Ready(Err(self.lost().into()));
        }
        state.readers.wait(cx);
        Poll::Pending
    }

    /// Waits until the task has ended.
    pub(super) async fn ended(&self) {
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }

    /// Gives the address back; the task does the rest.
    pub(super) fn close(&self) {
        self.lock().core.close(Instant::now());
        self.told.raise();
    }

    // ---- for the task

    /// Moves everything until the allocation is over, and gives it back.
    pub(super) async fn drive(self: Arc<Self>, pipe: Pipe, _end: watch::Sender<()>) {
        self.settle();
        {
            let (read, write) = (self.read(&pipe), self.write(&pipe));
            tokio::pin!(read, write);
            let lost = tokio::select! {
                lost = &mut read => lost,
                lost = &mut write => Some(lost),
            };
            match lost {
                // What is over by itself still has a last word to send.
                None => drop(timeout(PARTING, self.flush(&pipe)).await),
                Some(lost) => self.lose(lost),
            }
        }
        pipe.close().await;
        self.end();
    }

    /// Reads and keeps time. `None` when the allocation is over; else why the server can not be heard any more.
    async fn read(&self, pipe: &Pipe) -> Option<Lost> {
        let mut buffered = BytesMut::new();
        loop {
            let (due, over) = {
                let state = self.lock();
                (state.core.poll_timeout(), state.over)
            };
            if over {
                return None;
            }
            tokio::select! {
                got = pipe.recv_within(None) => match got {
                    Ok(message) => self.take(pipe, &mut buffered, message.data)?,
                    Err(RecvError::Refused { kind, .. }) if self.is_final(kind) => return Some(Lost::Broken(kind)),
                    Err(RecvError::Refused { kind, .. }) => tracing::debug!(%kind, "no way to the TURN server now"),
                    Err(error) => return Some(Lost::Broken(io::Error::from(error).kind())),
                },
                () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {
                    self.lock().core.handle_timeout(Instant::now());
                }
                () = self.told.wait() => {}
            }
            self.settle();
        }
    }

    /// Bytes of the server. `None` never: a stream that makes no sense is told by an error.
    fn take(&self, pipe: &Pipe, buffered: &mut BytesMut, data: Bytes) -> Option<()> {
        if pipe.is_datagram() {
            if let Some(cut) = frame::datagram(&data) {
                self.lock().handle(cut, &data);
            }
            return Some(());
        }
        buffered.extend_from_slice(&data);
        loop {
            match frame::cut(buffered, LONGEST) {
                Ok(Some((cut, len))) => {
                    let whole = Bytes::copy_from_slice(&buffered[..len]);
                    // The same piece, in memory that can be shared.
                    let cut = match cut {
                        Cut::Channel { number, data } => Cut::Channel { number, data: &whole[4..4 + data.len()] },
                        Cut::Message(_) => Cut::Message(&whole),
                    };
                    self.lock().handle(cut, &whole);
                    buffered.advance(len);
                }
                Ok(None) => return Some(()),
                Err(error) => {
                    tracing::debug!(%error, "what the server sends is no TURN");
                    self.lose(Lost::Nonsense);
                    return None;
                }
            }
        }
    }

    async fn write(&self, pipe: &Pipe) -> Lost {
        loop {
            self.write.wait().await;
            while let Some(bytes) = self.next() {
                let Err(error) = pipe.send(bytes).await else { continue };
                let kind = io::Error::from(error).kind();
                // A refusal is told where we read or where we write, as it happens.
                if !pipe.is_datagram() || !pipe.is_open() || self.is_final(kind) {
                    return Lost::Broken(kind);
                }
            }
        }
    }

    /// Whether what the network says (ICMP) means that the server is gone. A closed port does: with its process went all that it had
    /// lent. What one network has no way to the next may have.
    fn is_final(&self, kind: io::ErrorKind) -> bool {
        kind == io::ErrorKind::ConnectionRefused || *self.standing.borrow() == Standing::Asking
    }

    async fn flush(&self, pipe: &Pipe) {
        while let Some(bytes) = self.next() {
            if pipe.send(bytes).await.is_err() {
                return;
            }
        }
    }

    fn next(&self) -> Option<Bytes> {
        let mut state = self.lock();
        let next = state.control.pop_front().or_else(|| state.out.pop());
        if !state.out.is_full() {
            state.writers.ring();
        }
        next
    }

    /// Passes on what the core has to say.
    fn settle(&self) {
        let mut state = self.lock();
        while let Some(bytes) = state.core.poll_transmit() {
            state.control.push_back(bytes);
        }
        while let Some(event) = state.core.poll_event() {
            match event {
                Event::Allocated { relayed, mapped, .. } => {
                    self.standing.send_replace(Standing::Open { relayed, mapped });
                }
                Event::NotAllocated(refused) => state.stop(&self.standing, Standing::NotAllocated(refused)),
                Event::Redirected(to) => state.stop(&self.standing, Standing::Redirected(to)),
                Event::Lost(lost) => state.stop(&self.standing, Standing::Lost(lost)),
                Event::Permitted(ip) => state.answer(ip, &Ok(())),
                Event::NotPermitted(ip, Some(refused)) => state.answer(ip, &Err(PermitError::Refused { ip, refused })),
                Event::NotPermitted(ip, None) => state.answer(ip, &Err(PermitError::NoAnswer { ip })),
                Event::Connected(peer, connection) => state.connected(peer, Ok(connection)),
                Event::NotConnected(peer, refused) => state.connected(peer, Err(refused)),
                Event::Attempted(peer, connection) => {
                    // The server closes in 30 s what nobody binds.
                    if state.attempts.len() >= ASKED {
                        state.attempts.pop_front();
                    }
                    state.attempts.push_back((peer, connection));
                    state.readers.ring();
                }
            }
        }
        let any = !state.control.is_empty();
        drop(state);
        if any {
            self.write.raise();
        }
    }

    fn lose(&self, lost: Lost) {
        self.lock().stop(&self.standing, Standing::Lost(lost));
    }

    /// Nobody waits any more for what will not come.
    fn end(&self) {
        self.lock().stop(&self.standing, Standing::Lost(Lost::Closed));
    }
}

impl State {
    /// `whole` is what the piece was cut from.
    fn handle(&mut self, cut: Cut<'_>, whole: &Bytes) {
        if let Some((from, data)) = self.core.handle(Instant::now(), cut) {
            let data = whole.slice_ref(data);
            let len = data.len();
            self.inbox.push_dropping_oldest((from, data), len);
            self.readers.ring();
        }
    }

    fn answer(&mut self, ip: IpAddr, answer: &Result<(), PermitError>) {
        for at in (0..self.asked.len()).rev() {
            if self.asked[at].0 == ip {
                // Whoever asked may not want to know any more.
                let _ = self.asked.swap_remove(at).1.send(answer.clone());
            }
        }
    }

    fn connected(&mut self, peer: SocketAddr, how: Connected) {
        if let Some(at) = self.connecting.iter().position(|(asked, _)| *asked == peer) {
            // Whoever asked may not want to know any more.
            let _ = self.connecting.swap_remove(at).1.send(how);
        }
    }

    /// The first reason counts.
    fn stop(&mut self, standing: &watch::Sender<Standing>, why: Standing) {
        if !self.over {
            self.over = true;
            standing.send_replace(why);
        }
        self.asked.clear();
        self.connecting.clear();
        self.readers.ring();
        self.writers.ring();
    }
}
