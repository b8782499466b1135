//! Waits: a client's side of the upgrade.

use std::time::Duration;

use bytes::BytesMut;
use http::{HeaderValue, Response, StatusCode, Uri};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;

use super::head;
use super::incoming::{ReadHead, read_head};
use super::{Conf, ConnectError, Role, WebSocket, upgrade};

/// Bytes of the sentence that a server says with a refusal.
const REASON: usize = 200;
/// How long it may take to say it, behind the status.
const BODY: Duration = Duration::from_secs(1);

/// A WebSocket that a client has opened, and what the server said to it.
#[derive(Debug)]
pub struct Connected<S> {
    /// The connection.
    pub socket: WebSocket<S>,
    /// Status and headers.
    pub response: Response<()>,
    /// The subprotocol that both speak.
    pub subprotocol: Option<HeaderValue>,
}

/// Asks the server behind `stream` for a WebSocket. Only path and host of `url` (`ws://…` or `wss://…`) are used: the
/// stream is connected already, and encrypted where it is to be.
///
/// # Errors
/// [`ConnectError`]. Cancelling drops the connection.
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    url: &str,
    conf: &Conf,
) -> Result<Connected<S>, ConnectError> {
    let parsed = url.parse::<Uri>().ok().filter(|uri| matches!(uri.scheme_str(), Some("ws" | "wss")));
    let parsed = parsed.ok_or_else(|| ConnectError::Url { url: url.to_owned() })?;
    let upgrading = tokio::time::timeout(conf.handshake, upgrade_to(stream, url, &parsed, conf));
    upgrading.await.map_err(|_| ConnectError::TimedOut { url: url.to_owned(), limit: conf.handshake })?
}

async fn upgrade_to<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    url: &str,
    parsed: &Uri,
    conf: &Conf,
) -> Result<Connected<S>, ConnectError> {
    let failed = |source| ConnectError::Io { url: url.to_owned(), source };
    let wrong = |reason| ConnectError::NoWebSocket { url: url.to_owned(), reason };
    let key = generate_key();
    let request = upgrade::request(parsed, &key, conf).ok_or_else(|| ConnectError::Url { url: url.to_owned() })?;
    stream.write_all(&head::encode_request(&request)).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    let mut bytes = BytesMut::new();
    let end = read_head(&mut stream, &mut bytes, conf.max_head).await.map_err(|error| match error {
        ReadHead::Head(_) => wrong("what came back is no HTTP response"),
        ReadHead::Cut => wrong("it hung up without a response"),
        ReadHead::Io(source) => failed(source),
    })?;
    let response = head::response(&bytes.split_to(end)).map_err(|_| wrong("what came back is no HTTP response"))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let reading = tokio::time::timeout(BODY, read_body(&mut stream, &response, &mut bytes));
        // What has come by then is what there is: the status is what counts.
        let _in_time = reading.await;
        let reason = first_line(&bytes);
        return Err(ConnectError::Status { url: url.to_owned(), status: response.status(), reason });
    }
    upgrade::granted(&response, &key, conf).map_err(wrong)?;
    let subprotocol = response.headers().get(http::header::SEC_WEBSOCKET_PROTOCOL).cloned();
    let socket = WebSocket::after_upgrade(stream, bytes, Role::Client, conf).await;
    Ok(Connected { socket, response, subprotocol })
}

/// Reads a refusal's body, as far as it is of use. A proxy may keep the connection open behind it.
async fn read_body<S: AsyncRead + Unpin>(stream: &mut S, response: &Response<()>, body: &mut BytesMut) {
    let length =
        response.headers().get(http::header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let wanted = length.map_or(REASON, |length: usize| length.min(REASON));
    // What can not be read any more is left out.
    while body.len() < wanted && stream.read_buf(body).await.is_ok_and(|n| n > 0) {}
}

/// The first line of a refusal's body, for people.
fn first_line(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(REASON)]);
    text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect()
}
