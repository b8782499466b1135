//! Touches: reading and writing a socket, or a pipe from outside its runtime, within a limit of time.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BufMut;
use socket2::Socket;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::runtime::Handle;

use crate::base::task;
use crate::duct::DuctOptions;
use crate::duct::rights::Rights;
use crate::duct::wire::Incoming;
use crate::net::{rights, sys};
use crate::pipe::{Pipe, PipeStream};

/// The shortest limit that a socket is given: to the kernel zero is none at all.
const SHORTEST: Duration = Duration::from_micros(1);

/// What the messages go over.
#[derive(Debug)]
pub(crate) enum Medium {
    Socket { socket: Socket, is_unix: bool },
    Pipe { pipe: Pipe, runtime: Handle },
}

/// What both directions of a duct have in common.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) medium: Medium,
    pub(crate) options: DuctOptions,
    closed: AtomicBool,
    /// A message was received since the last was sent, and none more is there: the other end may wait for what is
    /// sent next.
    answers: AtomicBool,
    /// Messages wait to be written.
    gathered: AtomicBool,
}

impl Link {
    pub(crate) fn new(medium: Medium, options: DuctOptions) -> Self {
        let [closed, answers, gathered] = [const { AtomicBool::new(false) }; 3];
        Self { medium, options, closed, answers, gathered }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Ends both directions, and wakes who waits for one.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        match &self.medium {
            // Fails where the other end has ended it already.
            Medium::Socket { socket, .. } => drop(socket.shutdown(Shutdown::Both)),
            Medium::Pipe { pipe, runtime } => runtime.block_on(pipe.close()),
        }
    }

    /// Tells the other end that nothing more comes, or that nothing more is taken.
    pub(crate) fn finish(&self, direction: Shutdown) {
        if let Medium::Socket { socket, .. } = &self.medium {
            let _ = socket.shutdown(direction);
        }
    }

    pub(crate) fn handle_received(&self, more: bool) {
        self.answers.store(!more, Ordering::Relaxed);
    }

    /// Whether the other end may wait for what is sent now.
    pub(crate) fn take_answers(&self) -> bool {
        let answers = self.answers.load(Ordering::Relaxed);
        if answers {
            self.answers.store(false, Ordering::Relaxed);
        }
        answers
    }

    pub(crate) fn set_gathered(&self, waiting: bool) {
        self.gathered.store(waiting, Ordering::Relaxed);
    }

    pub(crate) fn has_gathered(&self) -> bool {
        self.gathered.load(Ordering::Relaxed)
    }

    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.medium {
            Medium::Socket { socket, .. } => Some(socket.as_fd()),
            Medium::Pipe { .. } => None,
        }
    }

    /// How many descriptors are taken with a message.
    pub(crate) fn max_descriptors(&self) -> usize {
        match &self.medium {
            Medium::Socket { is_unix: true, .. } => self.options.max_descriptors,
            _ => 0,
        }
    }
}

/// The writing side.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    half: Option<WriteHalf<PipeStream>>,
    /// The limit that the socket has.
    limit: Option<Option<Duration>>,
}

impl Sink {
    pub(crate) fn new(half: Option<WriteHalf<PipeStream>>) -> Self {
        Self { half, limit: None }
    }

    /// Writes some of `head` and `tail` within `left`: `None` waits for ever, zero does not wait. Time that is up is
    /// `WouldBlock`.
    pub(crate) fn write(&mut self, link: &Link, head: &[u8], tail: &[u8], left: Option<Duration>) -> io::Result<usize> {
        match (&link.medium, &mut self.half) {
            (Medium::Pipe { runtime, .. }, Some(half)) => {
                let some = if head.is_empty() { tail } else { head };
                runtime.block_on(within(left, half.write(some)))
            }
            (Medium::Socket { socket, .. }, _) => {
                let mut flags = libc::MSG_NOSIGNAL;
                match left {
                    Some(Duration::ZERO) => flags |= libc::MSG_DONTWAIT,
                    _ => self.set_limit(socket, left)?,
                }
                uninterrupted(|| match tail {
                    [] => socket.send_with_flags(head, flags),
                    _ => socket.send_vectored_with_flags(&[IoSlice::new(head), IoSlice::new(tail)], flags),
                })
            }
            (Medium::Pipe { .. }, None) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Writes some of `bytes`, with descriptors that arrive with the first of them.
    pub(crate) fn write_with(
        &mut self,
        link: &Link,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
        left: Option<Duration>,
    ) -> io::Result<usize> {
        let Medium::Socket { socket, is_unix: true } = &link.medium else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        self.set_limit(socket, left)?;
        uninterrupted(|| rights::send(socket, bytes, fds, left != Some(Duration::ZERO)))
    }

    /// Writes the rest and the end of a pipe in a task of its runtime.
    pub(crate) fn finish_later(&mut self, runtime: &Handle, rest: Vec<u8>) {
        if let Some(mut half) = self.half.take() {
            task::drive(runtime, async move {
                // Fails where the pipe has ended already, and nobody is left to be told.
                let _ = half.write_all(&rest).await;
                let _ = half.shutdown().await;
            });
        }
    }

    fn set_limit(&mut self, socket: &Socket, left: Option<Duration>) -> io::Result<()> {
        if self.limit != Some(left) {
            socket.set_write_timeout(left.map(|left| left.max(SHORTEST)))?;
            self.limit = Some(left);
        }
        Ok(())
    }
}

/// The reading side.
#[derive(Debug, Default)]
pub(crate) struct Source {
    half: Option<ReadHalf<PipeStream>>,
    /// The limit that the socket has.
    limit: Option<Option<Duration>>,
}

impl Source {
    pub(crate) fn new(half: Option<ReadHalf<PipeStream>>) -> Self {
        Self { half, limit: None }
    }

    /// Reads once, as [`Sink::write`] writes.
    pub(crate) fn read(
        &mut self,
        link: &Link,
        incoming: &mut Incoming,
        held: &mut Rights,
        left: Option<Duration>,
    ) -> io::Result<()> {
        let mut buf = incoming.room();
        let room = buf.remaining_mut();
        let n = match (&link.medium, &mut self.half) {
            (Medium::Pipe { runtime, .. }, Some(half)) => runtime.block_on(within(left, half.read_buf(&mut buf)))?,
            (Medium::Socket { socket, .. }, _) => {
                let wait = left != Some(Duration::ZERO);
                if wait {
                    self.set_limit(socket, left)?;
                }
                match link.max_descriptors() {
                    0 => {
                        let flags = if wait { 0 } else { libc::MSG_DONTWAIT };
                        uninterrupted(|| sys::recv_with(socket, &mut buf, flags))?
                    }
                    most => {
                        let read = uninterrupted(|| rights::recv(socket, &mut buf, most, wait))?;
                        incoming.handle_read(read.bytes, room);
                        held.handle_read(incoming.come(), read.fds, read.lost, most);
                        return Ok(());
                    }
                }
            }
            (Medium::Pipe { .. }, None) => return Err(io::ErrorKind::NotConnected.into()),
        };
        incoming.handle_read(n, room);
        Ok(())
    }

    fn set_limit(&mut self, socket: &Socket, left: Option<Duration>) -> io::Result<()> {
        if self.limit != Some(left) {
            socket.set_read_timeout(left.map(|left| left.max(SHORTEST)))?;
            self.limit = Some(left);
        }
        Ok(())
    }
}

fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

async fn within<T>(left: Option<Duration>, call: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match left {
        None => call.await,
        Some(left) => tokio::time::timeout(left, call).await.unwrap_or(Err(io::ErrorKind::WouldBlock.into())),
    }
}
