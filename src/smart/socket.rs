//! Waits: the smart socket as its user holds it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle as Runtime;
use tokio::sync::oneshot;

use super::core::Core;
use super::desk::Taken;
use super::driver::{self, Dial};
use super::options::{Delivery, Options};
use super::{
    Abandoned, BindError, Builder, ConfirmError, Counters, Endpoint, Events, Identity, Message, Payload, PeerInfo,
    Receiver, RecvError, SendError, Sender, SocketClosed,
};
use crate::pipe::{Addr, OpenError, Pipe};

/// What all handles of a socket have in common; when it goes, the socket is closed.
struct Handle {
    core: Arc<Core>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.end();
    }
}

/// Messages among many peers, over connections that come and go by themselves.
///
/// It is a handle: clones are the same socket, and dropping the last one closes it without waiting
/// for what is on its way, which [`close`](Self::close) does.
#[derive(Clone)]
pub struct SmartSocket {
    handle: Arc<Handle>,
}

impl SmartSocket {
    /// A socket with everything at its default: round-robin, at most once, a random identity.
    ///
    /// # Errors
    /// [`OpenFailure::NoRuntime`](crate::pipe::OpenFailure::NoRuntime) outside a tokio runtime.
    pub fn new() -> Result<Self, OpenError> {
        Self::builder().build()
    }

    /// Begins to make a socket.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn start(options: Options, runtime: Runtime) -> Self {
        let sends_again = options.delivery == Delivery::AtLeastOnce;
        let core = Arc::new(Core::new(options, runtime));
        if sends_again {
            core.begin(driver::clerk(core.clone()));
        }
        Self { handle: Arc::new(Handle { core }) }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }

    /// Who this socket is.
    pub fn identity(&self) -> Identity {
        self.core().options.identity
    }

    /// Takes connections at an address, and tells which it is (port 0 has become the kernel's choice).
    /// May be called any number of times.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn bind(&self, at: impl Into<Endpoint>) -> Result<Addr, BindError> {
        self.core().check_open()?;
        let runtime = self.core().runtime.clone();
        let endpoint = at.into();
        let opening = {
            let _inside = runtime.enter();
            endpoint.server()
        };
        let server = opening.await?;
        self.bind_pipe(server)
    }

    /// Takes the clients of a server pipe, whatever it runs on. The socket owns it from now on.
    ///
    /// # Errors
    /// [`BindError::NotAServer`], [`BindError::Closed`].
    pub fn bind_pipe(&self, server: Pipe) -> Result<Addr, BindError> {
        self.core().check_open()?;
        let local = server.local_addr().clone();
        if server.is_datagram() || server.peer_addr().is_some() {
            return Err(BindError::NotAServer { local });
        }
        self.core().begin(driver::listen(self.core().clone(), server));
        Ok(local)
    }

    /// Connects, now and again whenever the connection ends, for the life of the socket. Returns at once;
    /// [`events`](Self::events) tell how it goes. May be called any number of times.
    ///
    /// # Errors
    /// [`SocketClosed`].
    pub fn connect(&self, to: impl Into<Endpoint>) -> Result<(), SocketClosed> {
        self.dial(Dial::At(Box::new(to.into())))
    }

    /// Connects by pipes that `open` opens, a new one for each connection: a pipe to a peer, or of any
    /// other kind.
    ///
    /// # Errors
    /// [`SocketClosed`].
    pub fn connect_by<F, R, E>(&self, open: F) -> Result<(), SocketClosed>
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<Pipe, E>> + Send + 'static,
        E: fmt::Display,
    {
        self.dial(Dial::By(Box::new(move || {
            let opened = open();
            Box::pin(async move { opened.await.map_err(|error| error.to_string()) })
        })))
    }

    fn dial(&self, to: Dial) -> Result<(), SocketClosed> {
        self.core().check_open()?;
        self.core().begin(driver::dial(self.core().clone(), to));
        Ok(())
    }

    /// Takes a stream pipe that is open as a connection, until it ends. The socket owns it from now on.
    ///
    /// # Errors
    /// [`SocketClosed`].
    pub fn attach(&self, pipe: Pipe) -> Result<(), SocketClosed> {
        self.core().check_open()?;
        let core = self.core().clone();
        self.core().begin(async move {
            driver::attend(core, pipe, false).await;
        });
        Ok(())
    }

    /// Sends a message to whom the mode says. With nobody connected it is kept until somebody is.
    /// Waits at the high-water mark where that is the rule.
    ///
    /// # Errors
    /// [`SendError`]. Cancelling: it is sent whole or not at all.
    pub async fn send<'a>(&self, payload: impl Into<Payload<'a>>) -> Result<(), SendError> {
        // A loop that only sends must leave the thread to others now and then.
        tokio::task::coop::consume_budget().await;
        self.core().send(payload.into(), None, None).await.map(drop)
    }

    /// Sends a message to one peer. If nobody is connected, or it is one that this end connects to
    /// and that is away, the message is kept.
    ///
    /// # Errors
    /// [`SendError`]. Cancelling: it is sent whole or not at all.
    pub async fn send_to<'a>(&self, to: Identity, payload: impl Into<Payload<'a>>) -> Result<(), SendError> {
        tokio::task::coop::consume_budget().await;
        self.core().send(payload.into(), Some(to), None).await.map(drop)
    }

    /// Sends at once or not at all.
    ///
    /// # Errors
    /// [`SendError`], of which `Full` at the high-water mark.
    pub fn try_send<'a>(
        &self,
        payload: impl Into<Payload<'a>>,
        to: impl Into<Option<Identity>>,
    ) -> Result<(), SendError> {
        self.core().try_send(&mut payload.into(), to.into(), &mut None).map(drop)
    }

    /// Sends a message, to one peer or to whom the mode says, and waits until it is acknowledged.
    /// Needs at-least-once.
    ///
    /// # Errors
    /// [`ConfirmError`]. Cancelling does not take the message back.
    pub async fn send_acknowledged<'a>(
        &self,
        payload: impl Into<Payload<'a>>,
        to: impl Into<Option<Identity>>,
    ) -> Result<(), ConfirmError> {
        let to = to.into();
        if !self.core().acknowledges(to) {
            return Err(ConfirmError::NoAcknowledgements);
        }
        let (receipt, told) = oneshot::channel();
        match self.core().send(payload.into(), to, Some(receipt)).await? {
            Taken::Dropped => Err(ConfirmError::Dropped),
            Taken::Queued(_) => told.await.unwrap_or(Err(ConfirmError::Abandoned)),
        }
    }

    /// The next message. Waits as long as it takes.
    ///
    /// # Errors
    /// [`RecvError::Closed`] when the socket is closed and everything was received. Cancel safe.
    pub async fn recv(&self) -> Result<Bytes, RecvError> {
        Ok(self.recv_from().await?.data)
    }

    /// The next message and who sent it.
    ///
    /// # Errors
    /// As [`recv`](Self::recv). Cancel safe.
    pub async fn recv_from(&self) -> Result<Message, RecvError> {
        tokio::task::coop::consume_budget().await;
        self.core().asked();
        let handed = poll_fn(|cx| self.core().inbox.poll_recv(cx)).await.ok_or(SocketClosed)?;
        self.core().handed(&handed);
        Ok(Message { data: handed.payload, from: handed.from })
    }

    /// From now on this socket gets of what is published only what begins with one of the topics that
    /// it has asked for. Natpipe's peers do not send the rest; what others send of it is dropped here
    /// and counted. Messages that are to be acknowledged come all the same.
    pub fn subscribe(&self, topic: impl AsRef<[u8]>) {
        self.core().want(Bytes::copy_from_slice(topic.as_ref()), true);
    }

    /// Takes a topic back; without any, everything comes again.
    pub fn unsubscribe(&self, topic: impl AsRef<[u8]>) {
        self.core().want(Bytes::copy_from_slice(topic.as_ref()), false);
    }

    /// What happens on the socket, from now on. Events that are not taken in time are lost, and
    /// [`Event::Missed`](super::Event::Missed) tells how many.
    pub fn events(&self) -> Events {
        Events { events: self.core().events() }
    }

    /// Who is connected, in the order in which they came.
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.core().peers()
    }

    /// What the socket has done so far.
    pub fn counters(&self) -> Counters {
        self.core().counters()
    }

    /// Two halves, for tasks that only send or only receive. The socket lives as long as one of them.
    pub fn split(&self) -> (Sender, Receiver) {
        (Sender::new(self.clone()), Receiver::new(self.clone()))
    }

    /// Takes no more messages, waits until all have left and were acknowledged (at most `linger`), and
    /// closes every connection.
    ///
    /// # Errors
    /// [`Abandoned`] when messages were left over. Cancelling while it waits leaves the connections
    /// as they are, but nothing more can be sent.
    pub async fn close(&self) -> Result<(), Abandoned> {
        let core = self.core();
        core.asked();
        let drained = tokio::time::timeout(core.options.linger, core.drain()).await.is_ok();
        let left = if drained { 0 } else { core.outstanding() };
        core.end();
        core.done().await;
        if left == 0 { Ok(()) } else { Err(Abandoned { messages: left }) }
    }
}

impl fmt::Debug for SmartSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmartSocket").field("identity", &self.identity()).finish_non_exhaustive()
    }
}
