//! Touches: transports that are one socket of the kernel's: TCP, UDP, Unix.

use std::io::{ErrorKind, IoSlice, Result};
use std::net::SocketAddr;
#[cfg(unix)]
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::BufMut;
use socket2::SockRef;
use tokio::io::Interest;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::net::{TcpStream, UdpSocket};

use super::{Addr, Kind, Reader, Received, Transport};
use crate::net::sys;

/// A stream socket whose bytes are the pipe's own.
#[derive(Debug, Clone, Copy)]
pub enum PlainSocket<'a> {
    /// TCP.
    Tcp(&'a TcpStream),
    /// Unix.
    #[cfg(unix)]
    Unix(&'a UnixStream),
}

impl PlainSocket<'_> {
    /// Runs `io` when the socket can be read, and waits again where it then says that it would block.
    pub(crate) async fn read_with<T>(&self, io: impl FnMut() -> Result<T>) -> Result<T> {
        match self {
            Self::Tcp(socket) => socket.async_io(Interest::READABLE, io).await,
            #[cfg(unix)]
            Self::Unix(socket) => socket.async_io(Interest::READABLE, io).await,
        }
    }

    /// The same for writing.
    pub(crate) async fn write_with<T>(&self, io: impl FnMut() -> Result<T>) -> Result<T> {
        match self {
            Self::Tcp(socket) => socket.async_io(Interest::WRITABLE, io).await,
            #[cfg(unix)]
            Self::Unix(socket) => socket.async_io(Interest::WRITABLE, io).await,
        }
    }
}

#[cfg(unix)]
impl AsFd for PlainSocket<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

/// Writes once a socket is ready.
macro_rules! poll_send_with {
    ($socket:expr, $cx:expr, $ready:ident, $send:expr) => {
        loop {
            ready!($socket.$ready($cx))?;
            match $send {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    };
}

/// What the stream sockets of the runtime have in common, each under its own type.
pub(crate) trait StreamSocket: AsFd + Send + Sync + 'static {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<Result<()>>;
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<Result<()>>;
    fn try_read_with(&self, read: impl FnOnce() -> Result<usize>) -> Result<usize>;
    fn try_write(&self, data: &[u8]) -> Result<usize>;
    fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> Result<usize>;
    fn plain(&self) -> PlainSocket<'_>;
}

macro_rules! stream_socket {
    ($socket:ty, $plain:ident) => {
        impl StreamSocket for $socket {
            fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
                Self::poll_read_ready(self, cx)
            }

            fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
                Self::poll_write_ready(self, cx)
            }

            fn try_read_with(&self, read: impl FnOnce() -> Result<usize>) -> Result<usize> {
                self.try_io(Interest::READABLE, read)
            }

            fn try_write(&self, data: &[u8]) -> Result<usize> {
                Self::try_write(self, data)
            }

            fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> Result<usize> {
                Self::try_write_vectored(self, parts)
            }

            fn plain(&self) -> PlainSocket<'_> {
                PlainSocket::$plain(self)
            }
        }
    };
}

stream_socket!(TcpStream, Tcp);
#[cfg(unix)]
stream_socket!(UnixStream, Unix);

/// A connection over a stream socket.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    socket: S,
    local: Addr,
    peer: Addr,
}

impl Connection<TcpStream> {
    pub(crate) fn tcp(socket: TcpStream) -> Result<Self> {
        Ok(Self { local: socket.local_addr()?.into(), peer: socket.peer_addr()?.into(), socket })
    }
}

#[cfg(unix)]
impl Connection<UnixStream> {
    pub(crate) fn unix(socket: UnixStream) -> Result<Self> {
        let named =
            |addr: tokio::net::unix::SocketAddr| addr.as_pathname().map_or(Addr::Unnamed, |p| Addr::Unix(p.into()));
        Ok(Self { local: named(socket.local_addr()?), peer: named(socket.peer_addr()?), socket })
    }
}

impl<S: StreamSocket> Connection<S> {
    /// Reads what is there. A read that leaves room has emptied the socket: the readiness is cleared
    /// with it, and the next read waits at once instead of asking the kernel in vain.
    fn try_read(&self, buf: &mut impl BufMut) -> Result<usize> {
        let mut emptied = None;
        let read = self.socket.try_read_with(|| {
            let n = sys::recv(&self.socket, buf)?;
            if n > 0 && buf.has_remaining_mut() {
                emptied = Some(n);
                return Err(ErrorKind::WouldBlock.into());
            }
            Ok(n)
        });
        emptied.map_or(read, Ok)
    }
}

impl<S: StreamSocket> Transport for Connection<S> {
    fn kind(&self) -> Kind {
        Kind::Stream
    }

    fn local_addr(&self) -> Addr {
        self.local.clone()
    }

    fn peer_addr(&self) -> Option<Addr> {
        Some(self.peer.clone())
    }

    fn poll_recv(&self, cx: &mut Context<'_>, reader: &mut Reader) -> Poll<Result<Received>> {
        loop {
            ready!(self.socket.poll_read_ready(cx))?;
            match reader.fill(|buf| self.try_read(buf)) {
                Ok((_, 0)) => return Poll::Ready(Ok(Received::End)),
                Ok((data, _)) => return Poll::Ready(Ok(Received::Data(data, None))),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_send(&self, cx: &mut Context<'_>, data: &[u8], _to: Option<&Addr>) -> Poll<Result<usize>> {
        poll_send_with!(self.socket, cx, poll_write_ready, self.socket.try_write(data))
    }

    fn poll_send_vectored(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        poll_send_with!(self.socket, cx, poll_write_ready, self.socket.try_write_vectored(parts))
    }

    fn poll_finish(&self, _cx: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(SockRef::from(&self.socket).shutdown(std::net::Shutdown::Write))
    }

    fn plain_socket(&self) -> Option<PlainSocket<'_>> {
        Some(self.socket.plain())
    }
}

/// A UDP socket, connected to its one peer or open to all.
pub(crate) struct Udp {
    socket: Arc<UdpSocket>,
    /// Waits for an error of the socket's: a refusal (ICMP) of what was sent to the one peer.
    refusal: Mutex<Option<Refusal>>,
    local: SocketAddr,
    peer: Option<SocketAddr>,
}

impl Udp {
    pub(crate) fn new(socket: UdpSocket) -> Result<Self> {
        let (local, peer) = (socket.local_addr()?, socket.peer_addr().ok());
        let socket = Arc::new(socket);
        let refusal = Mutex::new(peer.map(|_| refusal(socket.clone())));
        Ok(Self { socket, refusal, local, peer })
    }

    /// Tells of a refusal; the runtime wakes readers for datagrams only.
    fn poll_refusal(&self, cx: &mut Context<'_>) -> Result<()> {
        let mut waiting = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Poll::Ready(())) = waiting.as_mut().map(|waiting| waiting.as_mut().poll(cx)) else { return Ok(()) };
        *waiting = Some(refusal(self.socket.clone()));
        // Registers for the next one; what is ready now was taken.
        if let Some(waiting) = waiting.as_mut() {
            let _ = waiting.as_mut().poll(cx);
        }
        self.socket.take_error()?.map_or(Ok(()), Err)
    }

    fn try_send(&self, data: &[u8], to: Option<&Addr>) -> Result<usize> {
        match (self.peer, to.and_then(Addr::ip)) {
            (Some(_), _) => self.socket.try_send(data),
            (None, Some(dest)) => self.socket.try_send_to(data, dest),
            (None, None) => Err(ErrorKind::NotConnected.into()),
        }
    }
}

type Refusal = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Ready when the socket has an error, which is then no longer noted as ready.
fn refusal(socket: Arc<UdpSocket>) -> Refusal {
    Box::pin(async move {
        let _ = socket.ready(Interest::ERROR).await;
        let _ = socket.try_io(Interest::ERROR, || Err::<(), _>(ErrorKind::WouldBlock.into()));
    })
}

impl Transport for Udp {
    fn kind(&self) -> Kind {
        Kind::Datagram
    }

    fn local_addr(&self) -> Addr {
        self.local.into()
    }

    fn peer_addr(&self) -> Option<Addr> {
        self.peer.map(Addr::Ip)
    }

    fn poll_recv(&self, cx: &mut Context<'_>, reader: &mut Reader) -> Poll<Result<Received>> {
        loop {
            if self.socket.poll_recv_ready(cx)?.is_pending() {
                self.poll_refusal(cx)?;
                return Poll::Pending;
            }
            match reader.fill(|buf| self.socket.try_recv_buf_from(buf)) {
                Ok((data, (_, from))) => return Poll::Ready(Ok(Received::Data(data, Some(from.into())))),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_send(&self, cx: &mut Context<'_>, data: &[u8], to: Option<&Addr>) -> Poll<Result<usize>> {
        poll_send_with!(self.socket, cx, poll_send_ready, self.try_send(data, to))
    }

    fn poll_finish(&self, _cx: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
}
