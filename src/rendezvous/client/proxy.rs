//! Waits: through an HTTP proxy to a server (CONNECT, RFC 9110 section 9.3.6).

use std::fmt;
use std::io;
use std::str::FromStr;

use data_encoding::BASE64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest answer of a proxy before the tunnel begins.
const HEAD: usize = 8 * 1024;
/// The port of a proxy's URL that names none.
const PORT: u16 = 80;

/// An HTTP proxy: `http://[USER:PASSWORD@]HOST[:PORT]`. The password shows in no log.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    authority: String,
    /// `USER:PASSWORD` in base64 (RFC 7617).
    credentials: Option<String>,
}

/// Why a text is no proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// It does not begin with `http://`.
    #[error("a proxy's URL begins with http://; no other kind is known")]
    Scheme,
    /// The host or the port is missing, or can not be one.
    #[error("the proxy's URL has no HOST:PORT")]
    Host,
}

impl FromStr for Proxy {
    type Err = ProxyError;

    fn from_str(text: &str) -> Result<Self, ProxyError> {
        let rest = text.strip_prefix("http://").ok_or(ProxyError::Scheme)?;
        let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        let named = place.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
        let (host, port) = match named {
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0).ok_or(ProxyError::Host)?),
            None => (place, PORT),
        };
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let sendable = host.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || !sendable || (host.contains(':') && !bracketed) {
            return Err(ProxyError::Host);
        }
        let credentials = user.map(|user| BASE64.encode(&percent_decoded(user)));
        Ok(Self { authority: format!("{host}:{port}"), credentials })
    }
}

/// `%41` as `A` (RFC 3986 section 2.1).
fn percent_decoded(text: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let decoded = digits.filter(|_| byte == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(decoded.unwrap_or(byte));
        rest = if decoded.is_some() { &after[2..] } else { after };
    }
    out
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({})", self.authority)
    }
}

impl Proxy {
    /// Where the proxy is: `HOST:PORT`.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// Host and port.
    #[cfg(feature = "mqtt")]
    pub(super) fn place(&self) -> (String, u16) {
        let (host, port) = self.authority.rsplit_once(':').unwrap_or((&self.authority, ""));
        (host.to_owned(), port.parse().unwrap_or(PORT))
    }

    /// User and password.
    #[cfg(feature = "mqtt")]
    pub(super) fn login(&self) -> Option<(String, String)> {
        let decoded = BASE64.decode(self.credentials.as_ref()?.as_bytes()).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let (user, password) = text.split_once(':').unwrap_or((&text, ""));
        Some((user.to_owned(), password.to_owned()))
    }

    /// Makes a connection to the proxy one to `server` (`HOST:PORT`).
    pub(super) async fn tunnel(&self, stream: &mut TcpStream, server: &str) -> io::Result<()> {
        let mut request = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n");
        if let Some(credentials) = &self.credentials {
            request.push_str(&format!("Proxy-Authorization: Basic {credentials}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        let head = self.head(stream).await?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
        match status {
            Some(200..=299) => Ok(()),
            Some(407) => Err(self.refused(io::ErrorKind::PermissionDenied, "wants a user and a password, or others")),
            Some(status) => {
                Err(self.refused(io::ErrorKind::ConnectionRefused, &format!("answers with status {status}")))
            }
            None => Err(self.refused(io::ErrorKind::InvalidData, "does not answer in HTTP")),
        }
    }

    /// Byte by byte: what follows the head is the server's.
    async fn head(&self, stream: &mut TcpStream) -> io::Result<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= HEAD {
                return Err(self.refused(io::ErrorKind::InvalidData, "does not come to the end of its answer"));
            }
            head.push(stream.read_u8().await?);
        }
        Ok(String::from_utf8_lossy(&head).into_owned())
    }

    fn refused(&self, kind: io::ErrorKind, how: &str) -> io::Error {
        io::Error::new(kind, format!("the proxy {} {how}", self.authority))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(text: &str) -> Result<Proxy, ProxyError> {
        text.parse()
    }

    #[test]
    fn urls_of_proxies_are_read() {
        assert_eq!(proxy("http://proxy.example:3128/").unwrap().authority, "proxy.example:3128");
        assert_eq!(proxy("http://proxy.example").unwrap().authority, "proxy.example:80");
        assert_eq!(proxy("http://[2001:db8::1]:8080").unwrap().authority, "[2001:db8::1]:8080");
        assert_eq!(proxy("http://[2001:db8::1]").unwrap().authority, "[2001:db8::1]:80");
        let with = proxy("http://ann:s%40fe%zz@proxy.example:1").unwrap();
        assert_eq!(with.credentials.as_deref(), Some(BASE64.encode(b"ann:s@fe%zz").as_str()));
        assert_eq!(format!("{with} {with:?}"), "http://proxy.example:1 Proxy(proxy.example:1)");
    }

    #[test]
    fn what_is_no_proxy_is_refused() {
        assert_eq!(proxy("socks5://proxy:1"), Err(ProxyError::Scheme));
        assert_eq!(proxy("proxy:3128"), Err(ProxyError::Scheme));
        for wrong in
            ["http://", "http://:80", "http://a:0", "http://a:99999", "http://a b:1", "http://::1:80", "http://a:"]
        {
            assert_eq!(proxy(wrong), Err(ProxyError::Host), "{wrong}");
        }
    }
}
