//! Waits: one end of a duct, and its halves, in tasks.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use socket2::Socket;

use super::codec::{Codec, Json};
use super::error::{AttachError, RecvError, SendError, StartError};
use super::handover;
use super::link::Link;
use super::options::DuctOptions;
use super::receiving::Receiving;
use super::rights::Received;
use super::sending::{Gathered, Sending};
use crate::net::private;
use crate::pipe::Pipe;

/// One end of a duct: sends objects of type `T` and receives them.
///
/// It is a handle: clones are the same end, and tasks may share it. Each direction has a lock of its own, so one task
/// may wait for a message while another sends. Dropping the last handle closes it when what was sent is written; `close`
/// waits for that.
pub struct Duct<T, C = Json> {
    sender: DuctSender<T, C>,
    receiver: DuctReceiver<T, C>,
}

/// The sending half of a duct. When the last handle that sends is dropped, the other end receives what was sent, and
/// then the end.
pub struct DuctSender<T, C = Json> {
    sending: Arc<Sending>,
    codec: Arc<C>,
    object: PhantomData<fn(T)>,
}

/// The receiving half of a duct. When the last handle that receives is dropped, the other end cannot send any more
/// (over TCP: only when both halves are).
pub struct DuctReceiver<T, C = Json> {
    receiving: Arc<Receiving>,
    codec: Arc<C>,
    object: PhantomData<fn() -> T>,
}

/// The two ends of one duct.
pub type Pair<T, C = Json> = (Duct<T, C>, Duct<T, C>);

/// Two ends, connected, that speak JSON: `multiprocessing.Pipe()`, and the seed's
/// `create_psuedo_anonymous_duct_pair()`.
///
/// # Errors
/// [`AttachError`] when there is no runtime, or the process has no descriptors left.
pub fn pair<T>() -> Result<Pair<T>, AttachError>
where
    Json: Codec<T>,
{
    pair_with(DuctOptions::default(), Json)
}

/// As [`pair`], with options and a codec.
///
/// # Errors
/// As [`pair`].
pub fn pair_with<T, C: Codec<T>>(options: DuctOptions, codec: C) -> Result<Pair<T, C>, AttachError> {
    let (a, b) = private::pair()?;
    let codec = Arc::new(codec);
    Ok((Duct::attach(a, options.clone(), codec.clone())?, Duct::attach(b, options, codec)?))
}

/// Starts a program with the other end of a new duct. It finds that end by
/// [`DuctChild::from_env`](super::DuctChild::from_env), and a program in any language by the environment:
/// `NATPIPE_DUCT=fd:NUMBER` names an open descriptor, a connected Unix stream socket.
///
/// # Errors
/// [`StartError`] when the program cannot be started.
pub fn start<T>(command: Command) -> Result<(Child, Duct<T>), StartError>
where
    Json: Codec<T>,
{
    start_with(command, DuctOptions::default(), Json)
}

/// As [`start`], with options and a codec for this end.
///
/// # Errors
/// As [`start`].
pub fn start_with<T, C: Codec<T>>(
    command: Command,
    options: DuctOptions,
    codec: C,
) -> Result<(Child, Duct<T, C>), StartError> {
    let (child, socket) = handover::start(command)?;
    Ok((child, Duct::from_socket(socket, options, codec)?))
}

impl<T, C: Codec<T>> Duct<T, C> {
    /// A duct on a connected stream socket: a `UnixStream`, a `TcpStream`, an `OwnedFd` that is one.
    ///
    /// # Errors
    /// [`AttachError::Socket`] when it is no socket, or not connected; [`AttachError::NoRuntime`].
    pub fn from_socket(socket: impl Into<Socket>, options: DuctOptions, codec: C) -> Result<Self, AttachError> {
        Self::attach(socket.into(), options, Arc::new(codec))
    }

    pub(crate) fn attach(socket: Socket, options: DuctOptions, codec: Arc<C>) -> Result<Self, AttachError> {
        let link = Arc::new(Link::on_socket(socket, options)?);
        let sending = Sending::new(link.clone(), None);
        Ok(Self::of(sending, Receiving::new(link, None), codec))
    }

    /// A duct on an open pipe, whatever it goes over, a peer's included. The pipe is the duct's from then on.
    ///
    /// # Errors
    /// [`AttachError::Datagrams`] when the pipe is no stream.
    pub async fn over(pipe: Pipe, options: DuctOptions, codec: C) -> Result<Self, AttachError> {
        let link = Arc::new(Link::on_pipe(pipe.clone(), options)?);
        let (reads, writes) = tokio::io::split(pipe.into_stream().await);
        let sending = Sending::new(link.clone(), Some(writes));
        Ok(Self::of(sending, Receiving::new(link, Some(reads)), Arc::new(codec)))
    }

    fn of(sending: Arc<Sending>, receiving: Arc<Receiving>, codec: Arc<C>) -> Self {
        Self {
            sender: DuctSender { sending, codec: codec.clone(), object: PhantomData },
            receiver: DuctReceiver { receiving, codec, object: PhantomData },
        }
    }

    /// Sends an object, within the options' timeout. It returns when the kernel has the message, or, for one that
    /// closely follows another, when it is gathered (see [`DuctOptions::gather`]; a task writes it as soon as those that
    /// are ready have had their turn): an error of that is the next call's.
    ///
    /// # Errors
    /// [`SendError`].
    ///
    /// Cancelling: the message is not sent, unless a part of it has gone; then the rest follows, and the stream stays in
    /// step.
    pub async fn send(&self, object: &T) -> Result<(), SendError> {
        self.sender.send(object).await
    }

    /// As [`send`](Self::send), within `limit`: `None` waits for ever, zero does not wait.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send_within(&self, object: &T, limit: impl Into<Option<Duration>>) -> Result<(), SendError> {
        self.sender.send_within(object, limit).await
    }

    /// Sends an object and copies of descriptors with it, over a Unix socket (SCM_RIGHTS). The other end gets them by
    /// [`recv_with_descriptors`](Self::recv_with_descriptors), or as ancillary data of the message's first byte.
    ///
    /// # Errors
    /// [`SendError`]; [`SendError::Descriptors`] when they cannot go here.
    pub async fn send_with_descriptors(&self, object: &T, descriptors: &[BorrowedFd<'_>]) -> Result<(), SendError> {
        self.sender.send_with_descriptors(object, descriptors).await
    }

    /// The next object, within the options' timeout.
    ///
    /// # Errors
    /// [`RecvError`]. After [`RecvError::TimedOut`] and [`RecvError::Decode`] the duct goes on where it was.
    ///
    /// Cancel safe.
    pub async fn recv(&self) -> Result<T, RecvError> {
        self.receiver.recv().await
    }

    /// As [`recv`](Self::recv), within `limit`: `None` waits for ever, zero only takes what is there.
    ///
    /// # Errors
    /// [`RecvError`].
    pub async fn recv_within(&self, limit: impl Into<Option<Duration>>) -> Result<T, RecvError> {
        self.receiver.recv_within(limit).await
    }

    /// The next object with the descriptors that came with it, up to
    /// [`max_descriptors`](DuctOptions::max_descriptors).
    ///
    /// # Errors
    /// [`RecvError`].
    pub async fn recv_with_descriptors(&self) -> Result<Received<T>, RecvError> {
        self.receiver.recv_with_descriptors().await
    }

    /// True when `recv` would return at once: a whole message is there, or the other end is closed, or nothing more
    /// can be received. False when `limit` has passed.
    ///
    /// # Errors
    /// [`RecvError::NotConnected`] when it was closed here.
    ///
    /// Cancel safe.
    pub async fn poll(&self, limit: impl Into<Option<Duration>>) -> Result<bool, RecvError> {
        self.receiver.poll(limit).await
    }

    /// Hands everything that was sent to the kernel.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn flush(&self) -> Result<(), SendError> {
        self.sender.flush().await
    }

    /// Sends what waits and ends both directions, for all handles; who waits in one is woken with
    /// [`NotConnected`](RecvError::NotConnected). The other end receives what was sent, and then the end, unless it takes
    /// nothing for as long as the options' [`timeout`](DuctOptions::timeout). Who sends at this moment ends that first; one
    /// of whose message nothing moved for half a second is woken too. The descriptor is free when the last handle is dropped.
    pub async fn close(&self) {
        self.sender.close().await;
    }

    /// The socket, for `poll(2)` and its like; a duct over a pipe has none. Messages may be waiting in the duct's
    /// buffer while the socket has nothing: when it becomes readable, receive until `poll(Duration::ZERO)` is false.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.sender.sending.link.descriptor()
    }

    /// The two halves.
    pub fn split(self) -> (DuctSender<T, C>, DuctReceiver<T, C>) {
        (self.sender, self.receiver)
    }
}

impl<T, C: Codec<T>> DuctSender<T, C> {
    /// See [`Duct::send`].
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(&self, object: &T) -> Result<(), SendError> {
        self.send_within(object, self.sending.link.options.timeout).await
    }

    /// See [`Duct::send_within`].
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send_within(&self, object: &T, limit: impl Into<Option<Duration>>) -> Result<(), SendError> {
        let limit = limit.into();
        match self.sending.gather(&*self.codec, object, limit) {
            Gathered::Done(done) => done,
            Gathered::No(full) => self.sending.send(&*self.codec, object, limit, full).await,
        }
    }

    /// See [`Duct::send_with_descriptors`].
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send_with_descriptors(&self, object: &T, descriptors: &[BorrowedFd<'_>]) -> Result<(), SendError> {
        self.sending.send_with(&*self.codec, object, descriptors, self.sending.link.options.timeout).await
    }

    /// See [`Duct::flush`].
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn flush(&self) -> Result<(), SendError> {
        self.sending.flush(self.sending.link.options.timeout).await
    }

    /// See [`Duct::close`].
    pub async fn close(&self) {
        self.sending.flush_to_close().await;
        self.sending.link.close().await;
    }
}

impl<T, C: Codec<T>> DuctReceiver<T, C> {
    /// See [`Duct::recv`].
    ///
    /// # Errors
    /// [`RecvError`].
    pub async fn recv(&self) -> Result<T, RecvError> {
        self.recv_within(self.receiving.link.options.timeout).await
    }

    /// See [`Duct::recv_within`].
    ///
    /// # Errors
    /// [`RecvError`].
    pub async fn recv_within(&self, limit: impl Into<Option<Duration>>) -> Result<T, RecvError> {
        let received = match self.receiving.recv_in_place(&*self.codec) {
            Some(received) => received,
            None => self.receiving.recv(&*self.codec, limit.into()).await,
        };
        Ok(received?.object)
    }

    /// See [`Duct::recv_with_descriptors`].
    ///
    /// # Errors
    /// [`RecvError`].
    pub async fn recv_with_descriptors(&self) -> Result<Received<T>, RecvError> {
        self.receiving.recv(&*self.codec, self.receiving.link.options.timeout).await
    }

    /// See [`Duct::poll`].
    ///
    /// # Errors
    /// [`RecvError::NotConnected`].
    pub async fn poll(&self, limit: impl Into<Option<Duration>>) -> Result<bool, RecvError> {
        self.receiving.poll(limit.into()).await
    }
}

impl<T, C> Clone for Duct<T, C> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), receiver: self.receiver.clone() }
    }
}

impl<T, C> Clone for DuctSender<T, C> {
    fn clone(&self) -> Self {
        Self { sending: self.sending.clone(), codec: self.codec.clone(), object: PhantomData }
    }
}

impl<T, C> Clone for DuctReceiver<T, C> {
    fn clone(&self) -> Self {
        Self { receiving: self.receiving.clone(), codec: self.codec.clone(), object: PhantomData }
    }
}

impl<T, C> fmt::Debug for Duct<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Duct").field(&self.sender.sending.link.medium).finish()
    }
}

impl<T, C> fmt::Debug for DuctSender<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DuctSender").field(&self.sending.link.medium).finish()
    }
}

impl<T, C> fmt::Debug for DuctReceiver<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DuctReceiver").field(&self.receiving.link.medium).finish()
    }
}
