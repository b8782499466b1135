//! Waits: a pipe as `AsyncRead + AsyncWrite`.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::core::Core;
use super::handle::Message;
use super::transport::Transport;
use super::{End, Pipe, RecvError};
use crate::base::turn::Taken;

type Next = Pin<Box<dyn Future<Output = Result<Message, RecvError>> + Send>>;

/// A pipe as a byte stream, for everything that wants `AsyncRead + AsyncWrite`.
///
/// Reading takes from the pipe's inbox. Shutting down finishes sending; dropping drops the pipe.
/// Datagrams are read one after another as bytes, and each write sends one.
pub struct PipeStream {
    pipe: Pipe,
    rest: Bytes,
    next: Option<Next>,
    /// Ready when the pipe is closed by another handle.
    closed: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Nobody else writes meanwhile.
    _turn: Taken<Arc<Core>, Core>,
}

impl PipeStream {
    pub(crate) async fn new(pipe: Pipe) -> Self {
        pipe.core().claim();
        let turn = pipe.core().writing_owned().await;
        let core = pipe.core().clone();
        let closed = Box::pin(async move { core.when(|life| life.closing).await });
        Self { pipe, rest: Bytes::new(), next: None, closed, _turn: turn }
    }

    /// Runs a call on the transport; a pipe that is closed meanwhile ends the wait.
    fn poll_on<T>(
        &mut self,
        cx: &mut Context<'_>,
        call: impl FnOnce(&Pipe, &dyn Transport, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let Some(transport) = self.pipe.core().transport().filter(|_| self.pipe.is_open()) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        match call(&self.pipe, &**transport, cx) {
            Poll::Pending if self.closed.as_mut().poll(cx).is_ready() => {
                Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
            }
            done => done,
        }
    }

    /// The pipe: its addresses, counters and end.
    pub fn pipe(&self) -> &Pipe {
        &self.pipe
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        let core = self.pipe.core();
        let taken = match self.next.take() {
            None => core.hub.inbox.try_take(),
            Some(next) => {
                self.next = Some(next);
                None
            }
        };
        let taken = match taken {
            Some(taken) => taken,
            None => {
                let core = core.clone();
                let next = self.next.get_or_insert_with(|| Box::pin(async move { core.next_message().await }));
                let taken = ready!(next.as_mut().poll(cx));
                self.next = None;
                taken
            }
        };
        Poll::Ready(match taken {
            Ok(message) => Ok(Some(message.data)),
            Err(RecvError::Ended(End::Finished | End::Closed)) => Ok(None),
            Err(error) => Err(error.into()),
        })
    }
}

impl AsyncRead for PipeStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.poll_message(cx))? {
                Some(data) => self.rest = data,
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..n]);
        self.rest.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PipeStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let sent = self.poll_on(cx, |pipe, transport, cx| transport.poll_send(cx, data, pipe.peer_addr()));
        let n = ready!(sent)?;
        self.pipe.core().count_out(n);
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.pipe.is_datagram() {
            let first = parts.iter().find(|part| !part.is_empty());
            return self.poll_write(cx, first.map_or(&[], |part| part));
        }
        let n = ready!(self.poll_on(cx, |_, transport, cx| transport.poll_send_vectored(cx, parts)))?;
        self.pipe.core().count_out(n);
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        !self.pipe.is_datagram()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_on(cx, |_, transport, cx| transport.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.pipe.is_open() {
            return Poll::Ready(Ok(()));
        }
        let shut = ready!(self.poll_on(cx, |_, transport, cx| transport.poll_finish(cx)));
        self.pipe.core().set_write_finished();
        Poll::Ready(match shut {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            shut => shut,
        })
    }
}

impl std::fmt::Debug for PipeStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PipeStream").field(&self.pipe).finish()
    }
}
