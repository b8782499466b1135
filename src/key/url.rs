//! Decides: where a server is reached and by which key it is known, as one line of text.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use super::{PeerId, PeerIdError};

/// The port of `natpipe://` URLs that name none: that of STUN (RFC 8489), which the server speaks as well.
pub const DEFAULT_PORT: u16 = 3478;

/// Longest host name (RFC 1035 section 2.3.4) and longest path that are taken.
const MAX_HOST: usize = 253;
const MAX_PATH: usize = 200;

/// How a server is reached. Whichever it is, inside of it both ends prove their keys with TLS 1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// `natpipe://`: straight over TCP, and where that does not pass through a websocket on the same port.
    Natpipe,
    /// `ws://`: through a websocket, for example behind a reverse proxy.
    Ws,
    /// `wss://`: through a websocket in the web's TLS, which the system's roots verify.
    Wss,
}

impl Carrier {
    const ALL: [Self; 3] = [Self::Natpipe, Self::Ws, Self::Wss];

    fn scheme(self) -> &'static str {
        match self {
            Self::Natpipe => "natpipe",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Natpipe => DEFAULT_PORT,
            Self::Ws => 80,
            Self::Wss => 443,
        }
    }
}

/// A rendezvous server: `natpipe://HOST:PORT/#KEY`, `ws://HOST:PORT/PATH#KEY` or `wss://…`. As the key is part of
/// it no certificate authority is needed: who has another key is not the server.
///
/// ```
/// use natpipe::key::ServerUrl;
///
/// let text = format!("natpipe://example.org:443/#{}", natpipe::Identity::generate()?.peer_id());
/// let url: ServerUrl = text.parse()?;
/// assert_eq!((url.host(), url.port()), ("example.org", 443));
/// assert_eq!(url.to_string(), text);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerUrl {
    carrier: Carrier,
    host: String,
    port: u16,
    path: String,
    key: PeerId,
}

/// Why a text is no server's URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// It begins with none of the schemes.
    #[error("a server's URL begins with natpipe://, ws:// or wss://")]
    Scheme,
    /// No key follows: the URL was cut, or is another server's.
    #[error("the server's key is missing: the URL ends with # and 52 letters and digits")]
    NoKey,
    /// The key can not be read.
    #[error("the server's key can not be read: {0}")]
    Key(#[from] PeerIdError),
    /// The host is missing, or can not be a name or an address.
    #[error("the URL's host is missing or is no name or address; an IPv6 address is written in brackets")]
    Host,
    /// The port is no number from 1 to 65535.
    #[error("the URL's port is no number from 1 to 65535")]
    Port,
    /// The path has characters that can not be sent, or is too long, or the scheme has none.
    #[error("the URL's path can not be sent")]
    Path,
    /// It begins with none of the schemes of brokers.
    #[error("a broker's URL begins with mqtt://, mqtts://, ws:// or wss://")]
    BrokerScheme,
    /// It is neither a server's URL nor a broker's.
    #[error("a place to meet begins with natpipe://, mqtt://, mqtts://, ws:// or wss://")]
    PlaceScheme,
    /// User and password can not be read.
    #[error(
        "user and password stand before the host as USER:PASSWORD@, other characters than letters and digits as %41"
    )]
    Login,
    /// It is too long.
    #[error("the URL is longer than {0} characters")]
    Long(usize),
}

impl ServerUrl {
    /// A server at a host (a name, or an address without brackets) and port, straight or by websocket.
    ///
    /// # Errors
    /// [`UrlError::Host`], [`UrlError::Port`].
    pub fn new(carrier: Carrier, host: &str, port: u16, key: PeerId) -> Result<Self, UrlError> {
        Self { carrier, host: host.to_owned(), port, path: "/".to_owned(), key }.checked()
    }

    /// The same with a path, for a reverse proxy that tells servers by it. It begins with `/`.
    ///
    /// # Errors
    /// [`UrlError::Path`].
    pub fn with_path(self, path: &str) -> Result<Self, UrlError> {
        Self { path: path.to_owned(), ..self }.checked()
    }

    fn checked(self) -> Result<Self, UrlError> {
        if !is_host(&self.host) {
            return Err(UrlError::Host);
        }
        if self.port == 0 {
            return Err(UrlError::Port);
        }
        if !is_path(&self.path) {
            return Err(UrlError::Path);
        }
        Ok(self)
    }

    /// How it is reached.
    pub fn carrier(&self) -> Carrier {
        self.carrier
    }

    /// Its name or address, an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its path: `/` where there is none.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its key.
    pub fn key(&self) -> PeerId {
        self.key
    }

    /// `HOST:PORT`, an IPv6 address in brackets.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

pub(super) fn is_path(path: &str) -> bool {
    let sendable = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'"' | b'<' | b'>' | b'\\');
    path.starts_with('/') && path.len() <= MAX_PATH && path.bytes().all(sendable)
}

pub(super) fn is_host(host: &str) -> bool {
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let address = host.split('%').next().is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok());
    let zone = host.split_once('%').is_none_or(|(_, zone)| !zone.is_empty() && zone.bytes().all(of_name));
    let name = !host.is_empty() && host.bytes().all(of_name);
    host.len() <= MAX_HOST && (name || (address && zone))
}

impl FromStr for ServerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let carrier = Carrier::ALL.into_iter().find(|carrier| carrier.scheme().eq_ignore_ascii_case(scheme));
        let carrier = carrier.ok_or(UrlError::Scheme)?;
        let (place, key) = rest.split_once('#').ok_or(UrlError::NoKey)?;
        if key.is_empty() {
            return Err(UrlError::NoKey);
        }
        let key = key.parse()?;
        let (authority, path) = place.find('/').map_or((place, "/"), |at| place.split_at(at));
        let (host, port) = split_authority(authority)?;
        let port = match port {
            Some(port) => port.parse().map_err(|_| UrlError::Port)?,
            None => carrier.port(),
        };
        Self { carrier, host: host.to_owned(), port, path: path.to_owned(), key }.checked()
    }
}

pub(super) fn split_authority(text: &str) -> Result<(&str, Option<&str>), UrlError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or(UrlError::Host)?;
        if !host.contains(':') {
            return Err(UrlError::Host);
        }
        return match after {
            "" => Ok((host, None)),
            _ => after.strip_prefix(':').map(|port| (host, Some(port))).ok_or(UrlError::Host),
        };
    }
    match text.split_once(':') {
        Some((_, port)) if port.contains(':') => Err(UrlError::Host),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}#{}", self.carrier.scheme(), self.authority(), self.path, self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Identity;

    fn read(text: &str) -> Result<ServerUrl, UrlError> {
        text.replace("KEY", &Identity::from_seed([5; 32]).peer_id().to_string()).parse()
    }

    #[test]
    fn every_form_is_read_and_written() {
        for (text, host, port, path) in [
            ("natpipe://example.org:443/#KEY", "example.org", 443, "/"),
            ("natpipe://example.org#KEY", "example.org", DEFAULT_PORT, "/"),
            ("natpipe://[2001:db8::1]:7000/#KEY", "2001:db8::1", 7000, "/"),
            ("natpipe://[fe80::1%eth0]:7000/#KEY", "fe80::1%eth0", 7000, "/"),
            ("ws://10.0.0.1/meet#KEY", "10.0.0.1", 80, "/meet"),
            ("WSS://example.org/meet/here?a=b#KEY", "example.org", 443, "/meet/here?a=b"),
        ] {
            let url = read(text).unwrap();
            assert_eq!((url.host(), url.port(), url.path()), (host, port, path), "{text}");
            assert_eq!(url.to_string().parse(), Ok(url), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, error) in [
            ("https://example.org/#KEY", UrlError::Scheme),
            ("example.org:443", UrlError::Scheme),
            ("natpipe://example.org:443/", UrlError::NoKey),
            ("natpipe://example.org:443/#", UrlError::NoKey),
            ("natpipe://example.org:443/#abc", UrlError::Key(PeerIdError::Length(3))),
            ("natpipe://:443/#KEY", UrlError::Host),
            ("natpipe://2001:db8::1/#KEY", UrlError::Host),
            ("natpipe://[example]/#KEY", UrlError::Host),
            ("natpipe://a b/#KEY", UrlError::Host),
            ("natpipe://a\r\nX:443/#KEY", UrlError::Host),
            ("natpipe://example.org:0/#KEY", UrlError::Port),
            ("natpipe://example.org:70000/#KEY", UrlError::Port),
            ("ws://example.org/a b#KEY", UrlError::Path),
        ] {
            assert_eq!(read(text), Err(error), "{text}");
        }
    }
}
