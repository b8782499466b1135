//! Waits: the pipe as its user holds it.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use socket2::Socket;

use super::callbacks::{on_end, on_message, on_up};
use super::core::{Core, Keep};
use super::hub::Sub;
use super::mailbox::{Mailbox, WhenFull};
use super::{
    AcceptError, Addr, Counters, End, Filter, HandlerId, Outcome, PipeStream, RecvError, SendError, Subscription,
};

/// A message and whom it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The bytes: a datagram, or what one read of a stream yielded.
    pub data: Bytes,
    /// The sender: of a stream, always its peer.
    pub from: Addr,
}

/// What all handles of a pipe have in common; when it goes, the pipe is closed.
pub(crate) struct Handle {
    core: Arc<Core>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.begin_drop();
    }
}

/// One end of a connection, a datagram socket, or a server: opened by
/// [`pipe_open`](super::pipe_open), the same to use whichever it is.
///
/// It is a handle: clones are the same pipe, and dropping the last one closes it, as
/// [`close`](Self::close) does, without waiting; only the clients that somebody has accepted from a
/// server live on with their owner then. Messages come in the order in which they arrived,
/// to every callback, every matching subscription, and the inbox that [`recv`](Self::recv) reads.
/// The inbox gets messages while nobody else listens, and from the first `recv` on.
#[derive(Clone)]
pub struct Pipe {
    handle: Arc<Handle>,
    /// Whom this handle answers, where the pipe has no single peer.
    answers: Option<Addr>,
}

impl Pipe {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self::from_handle(Arc::new(Handle { core }))
    }

    pub(crate) fn from_handle(handle: Arc<Handle>) -> Self {
        Self { handle, answers: None }
    }

    pub(crate) fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }

    /// The same pipe, sending to `peer` when no destination is given.
    pub(crate) fn answering(self, peer: Addr) -> Self {
        Self { answers: Some(peer), ..self }
    }

    /// True when both are handles of one pipe.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.handle, &other.handle)
    }

    /// This end's address; port 0 has become the kernel's choice.
    pub fn local_addr(&self) -> &Addr {
        &self.core().local
    }

    /// The other end's address, where there is one other end. In a handler of datagrams it is the
    /// sender's.
    pub fn peer_addr(&self) -> Option<&Addr> {
        self.answers.as_ref().or(self.core().peer.as_ref())
    }

    /// Sends a message: all of it, or an error. Waits while the peer takes no more.
    ///
    /// # Errors
    /// [`SendError`] when it was not sent. A stream may then have sent a part.
    ///
    /// Cancelling: a datagram is sent whole or not; of a stream a part may be sent.
    pub async fn send(&self, data: impl AsRef<[u8]>) -> Result<(), SendError> {
        self.core().send(data.as_ref(), self.answers.as_ref()).await
    }

    /// Sends a datagram to an address, or, on a stream server, to its client of this address.
    ///
    /// # Errors
    /// As [`send`](Self::send); [`SendError::OtherDestination`] where the pipe has another peer.
    pub async fn send_to(&self, data: impl AsRef<[u8]>, dest: impl Into<Addr>) -> Result<(), SendError> {
        self.core().send(data.as_ref(), Some(&dest.into())).await
    }

    /// Says to the peer that nothing more will be sent; receiving goes on (half-close).
    ///
    /// # Errors
    /// [`SendError::Ended`] when the pipe is closed.
    pub async fn finish(&self) -> Result<(), SendError> {
        self.core().finish().await
    }

    /// The next message's bytes, within `recv_timeout`.
    ///
    /// # Errors
    /// [`RecvError::TimedOut`]; [`RecvError::Ended`] when the pipe has ended and everything was received.
    ///
    /// Cancel safe.
    pub async fn recv(&self) -> Result<Bytes, RecvError> {
        Ok(self.recv_from().await?.data)
    }

    /// The next message and its sender, within `recv_timeout`. On a server: of any of its clients.
    ///
    /// # Errors
    /// As [`recv`](Self::recv). Cancel safe.
    pub async fn recv_from(&self) -> Result<Message, RecvError> {
        self.recv_within(self.core().conf.recv_timeout).await
    }

    /// The next message within `limit`: zero only takes what is there, `None` waits for ever.
    ///
    /// # Errors
    /// As [`recv`](Self::recv). Cancel safe.
    pub async fn recv_within(&self, limit: impl Into<Option<Duration>>) -> Result<Message, RecvError> {
        if self.core().is_raw() {
            return Err(RecvError::SocketOnly);
        }
        self.core().claim();
        self.core().recv(limit.into()).await
    }

    /// Appends what comes next of a stream to `buffer`, which has room, and tells how much came. Waits
    /// as long as it takes.
    ///
    /// Cancel safe.
    #[cfg_attr(not(feature = "smart"), allow(dead_code, reason = "for those who parse in place"))]
    pub(crate) async fn recv_into(&self, buffer: &mut BytesMut) -> Result<usize, RecvError> {
        self.core().claim();
        self.core().recv_into(buffer).await
    }

    /// Puts a message in front of those that are yet to be received, as when it was read to learn
    /// what follows.
    pub fn put_back(&self, message: Message) {
        let bytes = message.data.len();
        self.core().put_back(message, bytes);
    }

    /// Exactly `n` bytes, however the stream cuts them into messages; the rest of the last message
    /// stays for the next `recv`. The timeout is for all of them together.
    ///
    /// # Errors
    /// As [`recv`](Self::recv); what had come by then is put back.
    ///
    /// Cancelling puts back what had come.
    pub async fn recv_n(&self, n: usize) -> Result<Bytes, RecvError> {
        let limit = self.core().conf.recv_timeout;
        let mut gathered = Gathered { pipe: self, bytes: BytesMut::new(), from: None, complete: false };
        let all = gathered.until(n);
        match limit {
            Some(limit) => tokio::time::timeout(limit, all).await.map_err(|_| RecvError::TimedOut(limit))??,
            None => all.await?,
        }
        Ok(gathered.split(n))
    }

    /// Sends a message and waits for the next one. A datagram is sent again up to `send_retry` times,
    /// each time waiting `recv_timeout` for a reply.
    ///
    /// # Errors
    /// [`io::Error`](std::io::Error) of kind `TimedOut` when no reply came; otherwise that of the
    /// [`SendError`] or [`RecvError`] inside.
    pub async fn request(&self, data: impl AsRef<[u8]>) -> std::io::Result<Message> {
        let tries = if self.is_datagram() { self.core().conf.send_retry.saturating_add(1) } else { 1 };
        let mut last = RecvError::TimedOut(Duration::ZERO);
        self.core().claim();
        for _ in 0..tries {
            self.send(data.as_ref()).await?;
            match self.recv_from().await {
                Err(error @ RecvError::TimedOut(_)) => last = error,
                reply => return Ok(reply?),
            }
        }
        Err(last.into())
    }

    /// A queue of one's own with the messages that `filter` takes, from now on. On a stream, one that
    /// is full and not read holds up everything that comes after.
    pub fn subscribe(&self, filter: Filter) -> Subscription {
        let core = self.core();
        let when_full = if self.is_datagram() { WhenFull::DropOldest } else { WhenFull::Wait };
        let sub = Arc::new(Sub { filter, mailbox: Mailbox::new(core.conf.limits(), when_full) });
        core.change_listeners(|listeners| listeners.subs.push(sub.clone()));
        if let Some(end) = core.end() {
            sub.mailbox.end(end);
        }
        Subscription::new(sub, core)
    }

    /// Calls `handler` with each message, its sender and a pipe that answers it. Handlers of a pipe
    /// run one after another in the order of the messages, and the next message waits for them; a
    /// handler that panics is counted and called again.
    ///
    /// A handler must not wait for the next message of its own pipe: it is the one that this waits for.
    ///
    /// On a server the handler gets the messages of all its clients, and their pipes.
    pub fn add_msg_cb<F, R, S>(&self, handler: F) -> HandlerId
    where
        F: Fn(Bytes, Addr, Pipe) -> R + Send + Sync + 'static,
        R: Outcome<S>,
    {
        let id = HandlerId::next();
        self.core().change_listeners(|listeners| listeners.handlers.push((id, on_message(handler))));
        id
    }

    /// Takes a message handler away. False when it is not there.
    pub fn del_msg_cb(&self, id: HandlerId) -> bool {
        let mut found = false;
        self.core().change_listeners(|listeners| {
            let before = listeners.handlers.len();
            listeners.handlers.retain(|(other, _)| *other != id);
            found = listeners.handlers.len() < before;
        });
        found
    }

    /// Calls `handler` with the pipe: at once on a connected pipe, on a server with each client that
    /// comes. It runs beside the reading, and is dropped when the pipe closes. A client that no other
    /// handler of the server listens to is the up handler's own: it closes when that lets go of it.
    pub fn add_up_cb<F, R, S>(&self, handler: F) -> HandlerId
    where
        F: Fn(Pipe) -> R + Send + Sync + 'static,
        R: Outcome<S>,
    {
        let (id, handler) = (HandlerId::next(), on_up(handler));
        if self.core().server.is_some() {
            self.core().hub.add_up(id, handler);
        } else if self.core().end().is_none() {
            self.core().run_ups(self, vec![handler]);
        }
        id
    }

    /// Takes an up handler away from a server. False when it is not there.
    pub fn del_up_cb(&self, id: HandlerId) -> bool {
        self.core().hub.del_up(id)
    }

    /// Calls `handler` once when nothing more will be received; at once when that is so already. On
    /// a server: at the end of each client, and of the server.
    pub fn add_end_cb<F, R, S>(&self, handler: F) -> HandlerId
    where
        F: Fn(End) -> R + Send + Sync + 'static,
        R: Outcome<S>,
    {
        let (id, handler) = (HandlerId::next(), on_end(handler));
        self.core().add_end(id, handler);
        // The end may have come before the handler did: then nobody else will run it.
        if let Some(end) = self.core().end() {
            for handler in self.core().hub.take_ends() {
                self.core().run_end_later(handler, end);
            }
        }
        id
    }

    /// Takes an end handler away. False when it is not there, or has run.
    pub fn del_end_cb(&self, id: HandlerId) -> bool {
        self.core().hub.del_end(id)
    }

    /// Sends on to `other` everything that comes in here, with back-pressure, and tells it the end.
    /// `other` stays open at least as long as it is linked. Twice the same link is one.
    pub fn add_pipe(&self, other: &Pipe) {
        self.core().link(other);
    }

    /// Takes a link away. False when it is not there.
    pub fn del_pipe(&self, other: &Pipe) -> bool {
        self.core().unlink(other)
    }

    /// The next client of a stream server. Waits as long as it takes.
    ///
    /// # Errors
    /// [`AcceptError::NotListening`] on any other pipe, [`AcceptError::Ended`] when the server is closed.
    ///
    /// Cancel safe.
    pub async fn accept(&self) -> Result<Pipe, AcceptError> {
        let server = self.core().server.as_ref().ok_or(AcceptError::NotListening)?;
        server.accept().await
    }

    /// Waits until nothing more will be received, and tells why.
    ///
    /// Cancel safe.
    pub async fn ended(&self) -> End {
        let _watching = self.core().watch_end();
        self.core().when(|life| life.ended.is_some()).await;
        self.core().end().unwrap_or(End::Closed)
    }

    /// Why nothing more will be received, if it is so.
    pub fn end(&self) -> Option<End> {
        self.core().end()
    }

    /// True until it was closed: a half-closed stream is open.
    pub fn is_open(&self) -> bool {
        !self.core().is_closing()
    }

    /// The certificate (DER) that the other end has shown and proved to be its own: that of a TLS server, or of a
    /// client that was asked for one.
    pub fn peer_certificate(&self) -> Option<Bytes> {
        self.core().transport()?.peer_certificate()
    }

    /// True when messages are datagrams.
    pub fn is_datagram(&self) -> bool {
        self.core().is_datagram()
    }

    /// What the pipe has carried so far; a server: all its clients together.
    pub fn counters(&self) -> Counters {
        self.core().counters.read()
    }

    /// Closes everything that the pipe owns, wakes every waiting `recv`, runs the handlers of the
    /// end, and returns when the socket is free. A server closes all its clients. From inside one of the
    /// pipe's own handlers it returns at once, and the handler may run to its end.
    pub async fn close(&self) {
        let core = self.core();
        core.begin_close();
        drop(core.take_raw());
        if core.has_driver() && !super::callbacks::is_inside(core.id) {
            core.done().await;
        }
    }

    /// Closes a server and leaves its clients open, served by its handlers or by who accepted them.
    pub async fn stop_listening(&self) {
        self.core().life.send_modify(|life| life.keep = Keep::All);
        self.close().await;
    }

    /// The pipe as `AsyncRead + AsyncWrite`. While the stream lives, nobody else writes.
    pub async fn into_stream(self) -> PipeStream {
        PipeStream::new(self).await
    }

    /// The socket of a pipe that was opened with `sock_only`, from which nothing was read.
    pub fn into_socket(self) -> Option<Socket> {
        self.core().take_raw()
    }
}

impl<'a> IntoFuture for &'a Pipe {
    type Output = Result<Pipe, AcceptError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    /// A server can be awaited for its next client.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.accept())
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pipe(#{} {}", self.core().id, self.local_addr())?;
        if let Some(peer) = self.peer_addr() {
            write!(f, " to {peer}")?;
        }
        f.write_str(")")
    }
}

/// Bytes gathered from several messages, put back where they came from unless they are complete.
struct Gathered<'a> {
    pipe: &'a Pipe,
    bytes: BytesMut,
    from: Option<Addr>,
    complete: bool,
}

impl Gathered<'_> {
    async fn until(&mut self, n: usize) -> Result<(), RecvError> {
        while self.bytes.len() < n {
            let message = self.pipe.recv_within(None).await?;
            self.bytes.extend_from_slice(&message.data);
            self.from = Some(message.from);
        }
        Ok(())
    }

    fn split(mut self, n: usize) -> Bytes {
        self.complete = true;
        let wanted = self.bytes.split_to(n).freeze();
        self.put_back();
        wanted
    }

    fn put_back(&mut self) {
        let rest = std::mem::take(&mut self.bytes).freeze();
        if let Some(from) = self.from.take().filter(|_| !rest.is_empty()) {
            let bytes = rest.len();
            self.pipe.core().put_back(Message { data: rest, from }, bytes);
        }
    }
}

impl Drop for Gathered<'_> {
    fn drop(&mut self) {
        if !self.complete {
            self.put_back();
        }
    }
}
