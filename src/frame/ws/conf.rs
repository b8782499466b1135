//! Holds: the options of a WebSocket.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Options of a WebSocket, as client and as server.
#[derive(Clone, Debug)]
pub struct Conf {
    pub(super) max_message: usize,
    pub(super) max_head: usize,
    pub(super) handshake: Duration,
    pub(super) read_buffer: usize,
    pub(super) write_buffer: usize,
    pub(super) subprotocols: Vec<HeaderValue>,
    pub(super) headers: HeaderMap,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            max_message: 4 << 20,
            max_head: 16 << 10,
            handshake: Duration::from_secs(15),
            read_buffer: 4 << 10,
            write_buffer: 64 << 10,
            subprotocols: Vec::new(),
            headers: HeaderMap::new(),
        }
    }
}

impl Conf {
    /// Bytes of the longest message that is taken; a longer one closes with 1009. Default 4 MiB. This much memory a
    /// peer can make this end hold.
    pub fn max_message(self, bytes: usize) -> Self {
        Self { max_message: bytes, ..self }
    }

    /// Bytes of the longest HTTP request or response that is read. Default 16 KiB.
    pub fn max_head(self, bytes: usize) -> Self {
        Self { max_head: bytes, ..self }
    }

    /// How long the upgrade may take. Default 15 s.
    pub fn handshake(self, limit: Duration) -> Self {
        Self { handshake: limit, ..self }
    }

    /// Bytes that one read takes, and memory that an idle connection keeps. Default 4 KiB.
    pub fn read_buffer(self, bytes: usize) -> Self {
        Self { read_buffer: bytes.max(16), ..self }
    }

    /// Bytes of fed messages that are gathered before they are written without a flush. Default 64 KiB.
    pub fn write_buffer(self, bytes: usize) -> Self {
        Self { write_buffer: bytes, ..self }
    }

    /// A client offers this subprotocol, a server speaks it; several may be added, a server's preferred first. What is
    /// no token (RFC 6455 section 4.1) is left out.
    pub fn subprotocol(mut self, name: &str) -> Self {
        let token =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&b));
        if let (true, Ok(value)) = (token, HeaderValue::from_str(name)) {
            self.subprotocols.push(value);
        }
        self
    }

    /// A header of the request, or of the response with which a server accepts. Those of the upgrade itself
    /// (`Upgrade`, `Connection`, `Sec-WebSocket-…`) are not replaced by it.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        if !super::upgrade::is_own(&name) {
            self.headers.append(name, value);
        }
        self
    }

    pub(crate) fn frames(&self) -> WebSocketConfig {
        WebSocketConfig::default()
            .read_buffer_size(self.read_buffer)
            .write_buffer_size(self.write_buffer)
            .max_message_size(Some(self.max_message))
            .max_frame_size(Some(self.max_message))
    }
}
