//! Waits: standard input and output as one stream, which is broken when the output takes no more.

use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, Stdin, Stdout};

use crate::output::OutputError;

/// Why the output took no more. A process has one.
static FAILED: Mutex<Option<io::Error>> = Mutex::new(None);

/// That the output took all that a stream of this kind was to write.
///
/// # Errors
/// [`OutputError`] otherwise, once.
pub fn written() -> anyhow::Result<()> {
    let failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner).take();
    failed.map_or(Ok(()), |error| Err(OutputError(error).into()))
}

/// The input may stay open for ever, at a terminal for one: when the output fails, reading does as well.
pub struct Stdio {
    input: Stdin,
    output: Stdout,
    broken: Option<io::ErrorKind>,
    /// Who waits for input.
    reader: Option<Waker>,
}

impl Stdio {
    pub fn new() -> Self {
        Self { input: tokio::io::stdin(), output: tokio::io::stdout(), broken: None, reader: None }
    }

    /// Lets through what became of writing, and notes a failure.
    fn noted<T>(&mut self, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let Poll::Ready(Err(error)) = wrote else { return wrote };
        let kind = error.kind();
        FAILED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.broken = Some(kind);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Err(kind.into()))
    }
}

impl AsyncRead for Stdio {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(kind) = self.broken {
            return Poll::Ready(Err(kind.into()));
        }
        let read = Pin::new(&mut self.input).poll_read(cx, buf);
        self.reader = read.is_pending().then(|| cx.waker().clone());
        read
    }
}

impl AsyncWrite for Stdio {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.output).poll_write(cx, data);
        self.noted(wrote)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.output).poll_flush(cx);
        self.noted(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.output).poll_shutdown(cx);
        self.noted(shut)
    }
}
