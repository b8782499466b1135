//! Waits: a server's side of the upgrade.

use bytes::BytesMut;
use http::{HeaderValue, Request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::head::{self, HeadError};
use super::{Conf, Refusal, Role, UpgradeError, WebSocket, upgrade};

/// A request for a WebSocket that has come and is not yet answered. Dropping it drops the connection.
#[derive(Debug)]
pub struct Incoming<S> {
    stream: S,
    request: Request<()>,
    /// Bytes that came behind the request.
    rest: BytesMut,
}

/// A WebSocket that a server has accepted, and the request that it began with.
#[derive(Debug)]
pub struct Accepted<S> {
    /// The connection.
    pub socket: WebSocket<S>,
    /// Path and headers.
    pub request: Request<()>,
    /// The subprotocol that both speak.
    pub subprotocol: Option<HeaderValue>,
}

/// Reads a request and grants it: [`Incoming::read`] and [`Incoming::accept`] in one.
///
/// # Errors
/// [`UpgradeError`]; the client has been answered. Cancelling drops the connection.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(stream: S, conf: &Conf) -> Result<Accepted<S>, UpgradeError> {
    Incoming::read(stream, conf).await?.accept(conf).await
}

impl<S: AsyncRead + AsyncWrite + Unpin> Incoming<S> {
    /// Reads the request of a client. One that is none for a WebSocket is answered with 400, 405, 426, 431 or 505.
    ///
    /// # Errors
    /// [`UpgradeError`]. Cancelling drops the connection.
    pub async fn read(mut stream: S, conf: &Conf) -> Result<Self, UpgradeError> {
        let mut bytes = BytesMut::new();
        let reading = tokio::time::timeout(conf.handshake, read_head(&mut stream, &mut bytes, conf.max_head));
        let read = reading.await.map_err(|_| UpgradeError::TimedOut { limit: conf.handshake })?;
        let request = match read {
            Ok(end) => head::request(&bytes.split_to(end)).map_err(refused),
            Err(ReadHead::Head(error)) => Err(refused(error)),
            Err(ReadHead::Cut) => return Err(UpgradeError::Cut),
            Err(ReadHead::Io(error)) => return Err(error.into()),
        };
        match request.and_then(|request| upgrade::check(&request).map(|()| request)) {
            Ok(request) => Ok(Self { stream, request, rest: bytes }),
            Err(refusal) => Err(answer_no(stream, refusal).await),
        }
    }

    /// The request: path, headers.
    pub fn request(&self) -> &Request<()> {
        &self.request
    }

    /// Grants it.
    ///
    /// # Errors
    /// [`UpgradeError::Io`] when the answer can not be sent. Cancelling drops the connection.
    pub async fn accept(self, conf: &Conf) -> Result<Accepted<S>, UpgradeError> {
        let Self { mut stream, request, rest } = self;
        let response = upgrade::response(&request, conf)?;
        stream.write_all(&head::encode_response(&response, "")).await?;
        stream.flush().await?;
        let subprotocol = response.headers().get(http::header::SEC_WEBSOCKET_PROTOCOL).cloned();
        let socket = WebSocket::after_upgrade(stream, rest, Role::Server, conf).await;
        Ok(Accepted { socket, request, subprotocol })
    }

    /// Says no, and closes. The error tells what was said, or that it could not be.
    pub async fn refuse(self, refusal: Refusal) -> UpgradeError {
        answer_no(self.stream, refusal).await
    }
}

async fn answer_no<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, refusal: Refusal) -> UpgradeError {
    let (response, body) = upgrade::refusal(&refusal);
    let bytes = head::encode_response(&response, &body);
    let said = async {
        stream.write_all(&bytes).await?;
        stream.flush().await?;
        stream.shutdown().await
    };
    match said.await {
        Ok(()) => refusal.into(),
        Err(error) => error.into(),
    }
}

fn refused(error: HeadError) -> Refusal {
    match error {
        HeadError::TooLong => {
            Refusal::new(http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the request is too long")
        }
        HeadError::NoHttp => Refusal::bad("this is no HTTP request"),
    }
}

/// Why no head was read.
pub(super) enum ReadHead {
    Head(HeadError),
    Cut,
    Io(std::io::Error),
}

/// Reads until a head is whole, and tells where it ends.
pub(super) async fn read_head<S: AsyncRead + Unpin>(
    stream: &mut S,
    bytes: &mut BytesMut,
    limit: usize,
) -> Result<usize, ReadHead> {
    let mut seen = 0;
    loop {
        if let Some(end) = head::end(bytes, seen, limit).map_err(ReadHead::Head)? {
            return Ok(end);
        }
        // What begins neither as a request nor as a response is not waited for.
        if seen == 0 && !bytes.is_empty() && !bytes.starts_with(b"HTTP") && !head::may_be_request(bytes) {
            return Err(ReadHead::Head(HeadError::NoHttp));
        }
        seen = bytes.len();
        match stream.read_buf(bytes).await {
            Ok(0) => return Err(ReadHead::Cut),
            Ok(_) => {}
            Err(error) => return Err(ReadHead::Io(error)),
        }
    }
}
