//! Decides: where an MQTT broker is reached, as one line of text.

use std::fmt;
use std::str::FromStr;

use super::UrlError;
use super::url::{is_host, is_path, split_authority};
use crate::base::percent;

/// The longest URL that is taken: what fits into a ticket.
const MAX_URL: usize = 200;

/// How a broker is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BrokerCarrier {
    /// `mqtt://`: over TCP, which nothing protects but what natpipe seals itself.
    Mqtt,
    /// `mqtts://`: over TLS, which the system's roots verify.
    Mqtts,
    /// `ws://`: in a websocket.
    Ws,
    /// `wss://`: in a websocket over TLS, which the system's roots verify.
    Wss,
}

impl BrokerCarrier {
    const ALL: [Self; 4] = [Self::Mqtt, Self::Mqtts, Self::Ws, Self::Wss];

    fn scheme(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Mqtts => "mqtts",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Mqtt => 1883,
            Self::Mqtts => 8883,
            Self::Ws => 80,
            Self::Wss => 443,
        }
    }

    /// Whether it is a websocket.
    pub fn is_web(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }

    /// Whether TLS is around it.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Mqtts | Self::Wss)
    }
}

/// An MQTT broker: `mqtt://[USER:PASSWORD@]HOST[:PORT]`, `mqtts://…`, `ws://…/PATH` or `wss://…/PATH`. It is not trusted with
/// anything, so no key is named.
///
/// [`Display`](fmt::Display) and `Debug` leave user and password out; [`with_secrets`](Self::with_secrets) is the whole URL.
///
/// ```
/// use natpipe::key::BrokerUrl;
///
/// let url: BrokerUrl = "wss://ann:s%40crt@example.org/mqtt".parse()?;
/// assert_eq!((url.host(), url.port(), url.path()), ("example.org", 443, "/mqtt"));
/// assert_eq!(url.login(), Some(("ann", "s@crt")));
/// assert_eq!(url.to_string(), "wss://example.org/mqtt");
/// # Ok::<(), natpipe::key::UrlError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BrokerUrl {
    carrier: BrokerCarrier,
    host: String,
    port: u16,
    /// Of a websocket.
    path: String,
    login: Option<(String, String)>,
}

impl BrokerUrl {
    /// How it is reached.
    pub fn carrier(&self) -> BrokerCarrier {
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

    /// The path of its websocket: `/` where there is none.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// User and password.
    pub fn login(&self) -> Option<(&str, &str)> {
        self.login.as_ref().map(|(user, password)| (&**user, &**password))
    }

    /// `HOST:PORT`, an IPv6 address in brackets.
    pub fn authority(&self) -> String {
        let host = &self.host;
        if host.contains(':') { format!("[{host}]:{}", self.port) } else { format!("{host}:{}", self.port) }
    }

    /// The whole URL, password and all.
    pub fn with_secrets(&self) -> String {
        let login = self.login.as_ref().map(|(user, password)| format!("{}:{}@", coded(user), coded(password)));
        self.written(&login.unwrap_or_default())
    }

    fn written(&self, login: &str) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let port = if self.port == self.carrier.port() { String::new() } else { format!(":{}", self.port) };
        let path = if self.path == "/" { "" } else { &self.path };
        format!("{}://{login}{host}{port}{path}", self.carrier.scheme())
    }
}

impl FromStr for BrokerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text.len() > MAX_URL {
            return Err(UrlError::Long(MAX_URL));
        }
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::BrokerScheme)?;
        let carrier = BrokerCarrier::ALL.into_iter().find(|carrier| carrier.scheme().eq_ignore_ascii_case(scheme));
        let carrier = carrier.ok_or(UrlError::BrokerScheme)?;
        let (place, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let (login, authority) = match place.rsplit_once('@') {
            Some((login, authority)) => (Some(login), authority),
            None => (None, place),
        };
        let (host, port) = split_authority(authority)?;
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(UrlError::Port)?,
            None => carrier.port(),
        };
        if !is_host(host) {
            return Err(UrlError::Host);
        }
        if !is_path(path) || (path != "/" && !carrier.is_web()) {
            return Err(UrlError::Path);
        }
        let login = login.map(read_login).transpose()?;
        Ok(Self { carrier, host: host.to_owned(), port, path: path.to_owned(), login })
    }
}

fn read_login(text: &str) -> Result<(String, String), UrlError> {
    let (user, password) = text.split_once(':').ok_or(UrlError::Login)?;
    Ok((decoded(user)?, decoded(password)?))
}

fn decoded(text: &str) -> Result<String, UrlError> {
    let text = percent::decoded(text).and_then(|bytes| String::from_utf8(bytes).ok());
    text.filter(|text| !text.contains('\0')).ok_or(UrlError::Login)
}

fn coded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written(""))
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_written() {
        for (text, host, port, path) in [
            ("mqtt://example.org", "example.org", 1883, "/"),
            ("mqtts://example.org:443", "example.org", 443, "/"),
            ("MQTT://[2001:db8::1]:7000", "2001:db8::1", 7000, "/"),
            ("ws://10.0.0.1:8083/mqtt", "10.0.0.1", 8083, "/mqtt"),
            ("wss://a:b%3A%40@example.org/mqtt?x=y", "example.org", 443, "/mqtt?x=y"),
        ] {
            let url: BrokerUrl = text.parse().unwrap();
            assert_eq!((url.host(), url.port(), url.path()), (host, port, path), "{text}");
            assert_eq!(url.with_secrets().parse(), Ok(url), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, error) in [
            ("natpipe://example.org", UrlError::BrokerScheme),
            ("example.org", UrlError::BrokerScheme),
            ("mqtt://", UrlError::Host),
            ("mqtt://a b", UrlError::Host),
            ("mqtt://2001:db8::1", UrlError::Host),
            ("mqtt://a:0", UrlError::Port),
            ("mqtt://a:70000", UrlError::Port),
            ("mqtt://a/topic", UrlError::Path),
            ("ws://a/b c", UrlError::Path),
            ("mqtt://ann@a", UrlError::Login),
            ("mqtt://ann:%4@a", UrlError::Login),
            ("mqtt://ann:%ff@a", UrlError::Login),
            ("mqtt://ann:%00@a", UrlError::Login),
        ] {
            assert_eq!(text.parse::<BrokerUrl>(), Err(error), "{text}");
        }
        assert_eq!(format!("mqtt://{}", "a".repeat(300)).parse::<BrokerUrl>(), Err(UrlError::Long(MAX_URL)));
    }

    #[test]
    fn the_password_does_not_show() {
        let url: BrokerUrl = "mqtt://ann:swordfish@example.org".parse().unwrap();
        assert!(!format!("{url} {url:?}").contains("swordfish"));
        assert!(url.with_secrets().contains("ann:swordfish"));
    }
}
