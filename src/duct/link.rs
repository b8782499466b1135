//! Touches: reading and writing a socket or a pipe within a task.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BufMut;
use socket2::{SockRef, Socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use super::error::AttachError;
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
        self.answers.store(!more, Ordering::Relaxed);
    }

    /// Whether the other end may wait for what is sent now.
    pub(crate) fn take_answers(&self) -> bool {
        self.answers.load(Ordering::Relaxed) && self.answers.swap(false, Ordering::Relaxed)
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
        loop {
            let done = match (&self.medium, &mut *half) {
                (Medium::Unix(socket), _) => {
                    socket.async_io(Interest::READABLE, || self.read_now(incoming, held)).await
                }
                (Medium::Tcp(socket), _) => socket.async_io(Interest::READABLE, || self.read_now(incoming, held)).await,
                (Medium::Pipe(_), Some(half)) => {
                    let mut buf = incoming.room();
                    let room = buf.remaining_mut();
                    let n = half.read_buf(&mut buf).await?;
                    incoming.handle_read(n, room);
                    Ok(())
                }
                (Medium::Pipe(_), None) => Err(io::ErrorKind::NotConnected.into()),
            };
            match done {
                Err(error) if is_to_wait(&error) => {}
                done => return done,
            }
        }
    }

    /// Reads a socket once, whatever the runtime knows of it.
    pub(crate) fn read_now(&self, incoming: &mut Incoming, held: &mut Rights) -> io::Result<()> {
        let Some(socket) = self.descriptor() else { return Err(io::ErrorKind::WouldBlock.into()) };
        let mut buf = incoming.room();
        let room = buf.remaining_mut();
        match self.max_descriptors() {
            0 => {
                let n = sys::recv_with(&socket, &mut buf, 0)?;
                incoming.handle_read(n, room);
            }
            most => {
                let read = rights::recv(&socket, &mut buf, most, false)?;
                incoming.handle_read(read.bytes, room);
                held.handle_read(incoming.come(), read.fds, read.lost, most);
            }
        }
        Ok(())
    }
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
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    if found.is_empty() { Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")) } else { Ok(found) }
}

fn is_to_wait(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// When a call must be over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) limit: Option<Duration>,
    at: Option<Instant>,
}

impl Deadline {
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        // Further away than the clock can count is for ever.
        Self { limit, at: limit.and_then(|limit| Instant::now().checked_add(limit)) }
    }

    pub(crate) fn is_now(&self) -> bool {
        self.limit == Some(Duration::ZERO)
    }

    /// The output, or `None` when time was up first.
    pub(crate) async fn within<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        match self.at {
            None => Some(work.await),
            Some(at) => timeout_at(at, work).await.ok(),
        }
    }
}
