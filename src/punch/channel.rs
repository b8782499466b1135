//! Waits: how two peers talk before there is a hole: short messages in order, over anything.

use std::future::Future;
use std::io;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::message::MOST;
use crate::pipe::{Pipe, PipeStream};

/// Short messages to the other peer and from it, in order: a pipe, a rendezvous, two people with a clipboard.
///
/// Who carries them can forge or withhold them, but for what the channel itself protects: a hole that is punched is to
/// the one who knows the secrets that were sent over the channel.
pub trait Channel: Send {
    /// Sends one message of at most 4,096 bytes.
    ///
    /// # Errors
    /// The channel is broken.
    fn send(&mut self, message: Bytes) -> impl Future<Output = io::Result<()>> + Send;

    /// The next message. Cancel safe.
    ///
    /// # Errors
    /// The channel is broken, or has ended, or a message is too long.
    fn recv(&mut self) -> impl Future<Output = io::Result<Bytes>> + Send;
}

/// A stream pipe as a channel: each message with its length in two bytes before it.
pub struct PipeChannel {
    stream: PipeStream,
    received: Vec<u8>,
}

impl PipeChannel {
    /// Takes a pipe that nobody else reads or writes.
    pub async fn new(pipe: Pipe) -> Self {
        Self { stream: pipe.into_stream().await, received: Vec::new() }
    }

    /// A whole message out of what was received.
    fn take(&mut self) -> io::Result<Option<Bytes>> {
        let Some((len, rest)) = self.received.split_first_chunk::<2>() else { return Ok(None) };
        let len = usize::from(u16::from_be_bytes(*len));
        if len > MOST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message of the channel is too long"));
        }
        if rest.len() < len {
            return Ok(None);
        }
        let message = Bytes::copy_from_slice(&rest[..len]);
        self.received.drain(..2 + len);
        Ok(Some(message))
    }
}

impl Channel for PipeChannel {
    async fn send(&mut self, message: Bytes) -> io::Result<()> {
        let len = u16::try_from(message.len()).ok().filter(|len| usize::from(*len) <= MOST);
        let len = len.ok_or(io::ErrorKind::InvalidInput)?;
        let framed = [&len.to_be_bytes()[..], &message].concat();
        self.stream.write_all(&framed).await?;
        self.stream.flush().await
    }

    async fn recv(&mut self) -> io::Result<Bytes> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
