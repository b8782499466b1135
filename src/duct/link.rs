//! Touches: reading and writing a socket or a pipe within a task.

use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::BufMut;
use socket2::{SockRef, Socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use super::error::AttachError;
use super::listening;
use super::options::DuctOptions;
use super::rights::Rights;
use super::wire::Incoming;
use crate::net::{SocketError, SocketStep, private, rights, sys};
use crate::pipe::{Pipe, PipeStream};

/// What the messages go over.
#[derive(Debug)]
pub(crate) enum Medium {
    Unix(UnixStream),
    Tcp(TcpStream),
    Pipe(Pipe),
}

/// What both directions of a duct have in common.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) medium: Medium,
    pub(crate) options: DuctOptions,
    pub(crate) runtime: Handle,
    closed: AtomicBool,
    /// A message was received since the last was sent, and none more is there: the other end may wait for what is
    /// sent next.
    answers: AtomicBool,
}

impl Link {
    /// On a connected stream socket.
    pub(crate) fn on_socket(socket: Socket, options: DuctOptions) -> Result<Self, AttachError> {
        let runtime = Handle::try_current().map_err(|_| AttachError::NoRuntime)?;
        let refused = |source| SocketError { step: SocketStep::Register, target: "a duct".into(), source };
        let medium = registered(socket).map_err(refused)?;
        Ok(Self::new(medium, options, runtime))
    }

    /// On a stream pipe.
    pub(crate) fn on_pipe(pipe: Pipe, options: DuctOptions) -> Result<Self, AttachError> {
        let runtime = Handle::try_current().map_err(|_| AttachError::NoRuntime)?;
        if pipe.is_datagram() {
            return Err(AttachError::Datagrams { pipe: format!("{pipe:?}") });
        }
        Ok(Self::new(Medium::Pipe(pipe), options, runtime))
    }

    fn new(medium: Medium, options: DuctOptions, runtime: Handle) -> Self {
        let [closed, answers] = [const { AtomicBool::new(false) }; 2];
        Self { medium, options, runtime, closed, answers }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Ends both directions, and wakes who waits for one.
    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        match &self.medium {
            Medium::Pipe(pipe) => pipe.close().await,
            _ => self.finish(Shutdown::Both),
        }
    }

    /// Tells the other end of a socket that nothing more comes, or that nothing more is taken.
    pub(crate) fn finish(&self, direction: Shutdown) {
        if let Some(socket) = self.descriptor() {
            // Fails where the other end has ended it already.
            let _ = SockRef::from(&socket).shutdown(direction);
        }
    }

    pub(crate) fn handle_received(&self, more: bool) {
        // Most often it stands so already, and a core that sends need not be told.
        if self.answers() == more {
            self.answers.store(!more, Ordering::Relaxed);
        }
    }

    /// Whether the other end may wait for what is sent now.
    pub(crate) fn answers(&self) -> bool {
        self.answers.load(Ordering::Relaxed)
    }

    /// As [`answers`](Self::answers), and what is sent now is the answer.
    pub(crate) fn take_answers(&self) -> bool {
        self.answers() && self.answers.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.medium {
            Medium::Unix(socket) => Some(socket.as_fd()),
            Medium::Tcp(socket) => Some(socket.as_fd()),
            Medium::Pipe(_) => None,
        }
    }

    pub(crate) fn is_unix(&self) -> bool {
        matches!(self.medium, Medium::Unix(_))
    }

    /// How many descriptors are taken with a message.
    pub(crate) fn max_descriptors(&self) -> usize {
        if self.is_unix() { self.options.max_descriptors } else { 0 }
    }

    /// Writes some of `bytes`, with descriptors that arrive with the first of them.
    pub(crate) async fn write(
        &self,
        half: &mut Option<WriteHalf<PipeStream>>,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<usize> {
        let now = |socket: BorrowedFd<'_>| match fds {
            [] => SockRef::from(&socket).send_with_flags(bytes, libc::MSG_NOSIGNAL),
            _ => rights::send(&socket, bytes, fds, false),
        };
        loop {
            // Most often there is room, and nobody needs to be asked.
            let done = match (self.descriptor(), &mut *half) {
                (Some(socket), _) => now(socket),
                (None, Some(half)) => return half.write(bytes).await,
                (None, None) => return Err(io::ErrorKind::NotConnected.into()),
            };
            match done {
                Err(error) if is_to_wait(&error) => {}
                done => return done,
            }
            let room = match &self.medium {
                Medium::Unix(socket) => socket.async_io(Interest::WRITABLE, || now(socket.as_fd())).await,
                Medium::Tcp(socket) => socket.async_io(Interest::WRITABLE, || now(socket.as_fd())).await,
                Medium::Pipe(_) => continue,
            };
            match room {
                Err(error) if is_to_wait(&error) => {}
                done => return done,
            }
        }
    }

    /// Reads once.
    ///
    /// Cancel safe.
    pub(crate) async fn read(
        &self,
        half: &mut Option<ReadHalf<PipeStream>>,
        incoming: &mut Incoming,
        held: &mut Rights,
    ) -> io::Result<()> {
        let Some(half) = half else { return self.read_socket(incoming, held).await };
        let mut buf = incoming.room();
        let room = buf.remaining_mut();
        let n = half.read_buf(&mut buf).await?;
        incoming.handle_read(n, room);
        Ok(())
    }

    async fn read_socket(&self, incoming: &mut Incoming, held: &mut Rights) -> io::Result<()> {
        let got = AtomicBool::new(false);
        // To say that nothing is left makes the runtime wait for more: so the next read need not ask in vain.
        let read = || match self.read_now(incoming, held) {
            Ok(drained) => {
                got.store(true, Ordering::Relaxed);
                if drained { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        };
        match &self.medium {
            Medium::Unix(socket) => unless_got(socket.async_io(Interest::READABLE, read), &got).await,
            Medium::Tcp(socket) => unless_got(socket.async_io(Interest::READABLE, read), &got).await,
            Medium::Pipe(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Reads a socket once, whatever the runtime knows of it, and tells whether nothing is left.
    pub(crate) fn read_now(&self, incoming: &mut Incoming, held: &mut Rights) -> io::Result<bool> {
        let Some(socket) = self.descriptor() else { return Err(io::ErrorKind::WouldBlock.into()) };
        let mut buf = incoming.room();
        let room = buf.remaining_mut();
        match self.max_descriptors() {
            0 => {
                let (n, drained) = sys::drain(&socket, &mut buf)?;
                incoming.handle_read(n, room);
                Ok(drained)
            }
            most => {
                let read = rights::recv(&socket, &mut buf, most, false)?;
                incoming.handle_read(read.bytes, room);
                held.handle_read(incoming.come(), read.fds, read.lost, most);
                // It may have ended at descriptors.
                Ok(false)
            }
        }
    }
}

/// Waits for the reading to end, but not once it has got something.
async fn unless_got(reading: impl Future<Output = io::Result<()>>, got: &AtomicBool) -> io::Result<()> {
    let mut reading = pin!(reading);
    poll_fn(|cx| match reading.as_mut().poll(cx) {
        Poll::Pending if got.load(Ordering::Relaxed) => Poll::Ready(Ok(())),
        polled => polled,
    })
    .await
}

/// Hands a connected socket to the runtime.
fn registered(socket: Socket) -> io::Result<Medium> {
    socket.set_nonblocking(true)?;
    Ok(if socket.peer_addr()?.is_unix() {
        Medium::Unix(UnixStream::from_std(socket.into())?)
    } else {
        Medium::Tcp(TcpStream::from_std(socket.into())?)
    })
}

/// The next connection of a listener that does not block.
pub(crate) async fn accept(listener: &Socket) -> io::Result<Socket> {
    Handle::try_current().map_err(|_| io::Error::other(AttachError::NoRuntime))?;
    // The runtime watches a copy of the descriptor while this waits.
    let copy = listener.try_clone()?;
    if listener.local_addr()?.is_unix() {
        let (stream, _) = UnixListener::from_std(copy.into())?.accept().await?;
        return Ok(stream.into_std()?.into());
    }
    let (stream, _) = TcpListener::from_std(copy.into())?.accept().await?;
    stream.set_nodelay(true)?;
    Ok(stream.into_std()?.into())
}

/// Waits for a connection that is underway.
pub(crate) async fn connected(socket: Socket) -> io::Result<Socket> {
    Handle::try_current().map_err(|_| io::Error::other(AttachError::NoRuntime))?;
    let stream = TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    private::finish(stream.into_std()?.into())
}

/// The addresses of a name, asked of the system.
pub(crate) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    listening::some(tokio::net::lookup_host((host, port)).await?)
}

fn is_to_wait(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// When a call must be over. The clock is first read when something must be waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) limit: Option<Duration>,
    at: Option<Instant>,
}

impl Deadline {
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        Self { limit, at: None }
    }

    pub(crate) fn is_now(&self) -> bool {
        self.limit == Some(Duration::ZERO)
    }

    /// The output, or `None` when time was up first.
    pub(crate) async fn within<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        // What is done at once needs no timer, which would cost more than a small message.
        if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await {
            return Some(done);
        }
        // Further away than the clock can count is for ever.
        self.at = self.at.or_else(|| Instant::now().checked_add(self.limit?));
        match self.at {
            None => Some(work.await),
            Some(at) => timeout_at(at, work).await.ok(),
        }
    }
}
