//! Waits: messages with lengths, read from and written to any stream.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::lengths::{self, Decoder, TooLong};

/// The most that one read adds to the buffer.
const READ: usize = 16 << 10;

/// Why no message was read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A message is announced as longer than the limit: the stream can not be read on.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// The stream ended within a message.
    #[error("the stream ended within a message; the other end went away while it sent")]
    Cut,
    /// Reading failed.
    #[error("reading a message failed: {0}")]
    Io(#[from] io::Error),
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => error,
            ReadError::TooLong(error) => error.into(),
            ReadError::Cut => Self::new(io::ErrorKind::UnexpectedEof, error),
        }
    }
}

/// Reads messages with lengths from a stream.
#[derive(Debug)]
pub struct Reader<S> {
    stream: S,
    decoder: Decoder,
}

impl<S: AsyncRead + Unpin> Reader<S> {
    /// A reader of messages of up to `limit` bytes.
    pub fn new(stream: S, limit: usize) -> Self {
        Self { stream, decoder: Decoder::new(limit) }
    }

    /// The next message; `None` when the stream has ended between two.
    ///
    /// # Errors
    /// [`ReadError`]. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        loop {
            if let Some(message) = self.decoder.poll_message()? {
                return Ok(Some(message));
            }
            let buffer = self.decoder.buffer_mut();
            buffer.reserve(READ);
            if self.stream.read_buf(buffer).await? == 0 {
                return if self.decoder.is_between_messages() { Ok(None) } else { Err(ReadError::Cut) };
            }
        }
    }

    /// The stream; what was read of it and not given out is lost.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

/// Writes one message with its length, and flushes.
///
/// # Errors
/// Kind `InvalidData` when it is longer than `limit`: nothing is written then; otherwise those of the stream.
///
/// Cancelling may leave a part of it written.
pub async fn write(stream: &mut (impl AsyncWrite + Unpin), payload: &[u8], limit: usize) -> io::Result<()> {
    let mut out = BytesMut::new();
    lengths::encode(payload, limit, &mut out)?;
    stream.write_all(&out).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_cross_a_stream_and_its_end_is_told_from_a_cut() {
        let (mut near, far) = tokio::io::duplex(7);
        let mut reader = Reader::new(far, 100);
        let writing = tokio::spawn(async move {
            for message in [&b"hello"[..], b"", &[1; 100]] {
                write(&mut near, message, 100).await.unwrap();
            }
            assert!(write(&mut near, &[1; 101], 100).await.is_err());
            near.write_all(&[0, 0]).await.unwrap();
        });
        assert_eq!(reader.next().await.unwrap().unwrap(), "hello");
        assert_eq!(reader.next().await.unwrap().unwrap(), "");
        assert_eq!(reader.next().await.unwrap().unwrap().len(), 100);
        assert!(matches!(reader.next().await, Err(ReadError::Cut)));
        writing.await.unwrap();
    }
}
