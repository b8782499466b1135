//! Waits: frames out of a byte stream, with no buffer held while nothing comes.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::ready;

use bytes::BytesMut;
use tokio::io::{AsyncRead, ReadBuf};

use super::wire::{Frame, FrameError};

/// Bytes that one read takes: a TLS record.
const READ: usize = 16 * 1024;

/// The receiving half of a connection.
pub(super) struct Frames<R> {
    io: R,
    received: BytesMut,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(super) fn new(io: R) -> Self {
        Self { io, received: BytesMut::new() }
    }

    /// Waits for more bytes; false at the end of the stream. Cancel safe.
    pub(super) async fn fill(&mut self) -> io::Result<bool> {
        let Self { io, received } = self;
        poll_fn(|cx| {
            let mut room = [MaybeUninit::uninit(); READ];
            let mut room = ReadBuf::uninit(&mut room);
            ready!(Pin::new(&mut *io).poll_read(cx, &mut room))?;
            received.extend_from_slice(room.filled());
            std::task::Poll::Ready(Ok(!room.filled().is_empty()))
        })
        .await
    }

    /// The next frame that is complete.
    pub(super) fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        let frame = Frame::read(&mut self.received)?;
        if self.received.is_empty() && self.received.capacity() > 0 {
            self.received = BytesMut::new();
        }
        Ok(frame)
    }
}
