//! Waits: a smart socket as two halves, which are a sink and a stream.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use futures_sink::Sink;

use super::{Identity, Message, Payload, RecvError, SendError, SmartSocket};

type Sending = Pin<Box<dyn Future<Output = Result<(), SendError>> + Send>>;

/// A message for a sink: for whom the mode says, or for one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The payload.
    pub data: Bytes,
    /// For whom.
    pub to: Option<Identity>,
}

impl<T: Into<Bytes>> From<T> for Outgoing {
    fn from(data: T) -> Self {
        Self { data: data.into(), to: None }
    }
}

/// The half that sends. It is a [`Sink`] of whatever becomes an [`Outgoing`], too: one message is
/// on its way into the socket at a time; flushing waits for that, not for the peers.
pub struct Sender {
    socket: SmartSocket,
    sending: Option<Sending>,
}

impl Sender {
    pub(crate) fn new(socket: SmartSocket) -> Self {
        Self { socket, sending: None }
    }

    /// As [`SmartSocket::send`].
    ///
    /// # Errors
    /// As there.
    pub async fn send<'a>(&self, payload: impl Into<Payload<'a>>) -> Result<(), SendError> {
        self.socket.send(payload).await
    }

    /// As [`SmartSocket::send_to`].
    ///
    /// # Errors
    /// As there.
    pub async fn send_to<'a>(&self, to: Identity, payload: impl Into<Payload<'a>>) -> Result<(), SendError> {
        self.socket.send_to(to, payload).await
    }

    /// The whole socket.
    pub fn socket(&self) -> &SmartSocket {
        &self.socket
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let Some(sending) = &mut self.sending else { return Poll::Ready(Ok(())) };
        let sent = ready!(sending.as_mut().poll(cx));
        self.sending = None;
        Poll::Ready(sent)
    }
}

impl<T: Into<Outgoing>> Sink<T> for Sender {
    type Error = SendError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.poll_sent(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, item: T) -> Result<(), SendError> {
        let Outgoing { data, to } = item.into();
        // Nearly always there is room, and nothing has to wait.
        match self.socket.try_send(data.clone(), to) {
            Err(SendError::Full) if self.socket.core().options.when_full == super::WhenFull::Wait => {
                let core = self.socket.core().clone();
                self.sending = Some(Box::pin(async move { core.send(data.into(), to, None).await.map(drop) }));
                Ok(())
            }
            done => done,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.poll_sent(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.poll_sent(cx)
    }
}

/// The half that receives. It is a [`Stream`] of messages, too, which ends when the socket is closed.
pub struct Receiver {
    socket: SmartSocket,
}

impl Receiver {
    pub(crate) fn new(socket: SmartSocket) -> Self {
        Self { socket }
    }

    /// As [`SmartSocket::recv`].
    ///
    /// # Errors
    /// As there. Cancel safe.
    pub async fn recv(&self) -> Result<Bytes, RecvError> {
        self.socket.recv().await
    }

    /// As [`SmartSocket::recv_from`].
    ///
    /// # Errors
    /// As there. Cancel safe.
    pub async fn recv_from(&self) -> Result<Message, RecvError> {
        self.socket.recv_from().await
    }

    /// The whole socket.
    pub fn socket(&self) -> &SmartSocket {
        &self.socket
    }
}

impl Stream for Receiver {
    type Item = Message;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        let core = self.socket.core();
        core.asked();
        Poll::Ready(ready!(core.inbox.poll_recv(cx)).map(|handed| {
            core.handed(&handed);
            Message { data: handed.payload, from: handed.from }
        }))
    }
}
