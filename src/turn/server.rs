//! Holds: a TURN server: where it is, how it is spoken to, and with which account.

use std::fmt;
use std::str::FromStr;

use super::Account;
use crate::base::percent;

/// What carries the bytes to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Over {
    /// Datagrams.
    Udp,
    /// A connection.
    Tcp,
    /// A connection in TLS.
    Tls,
}

/// A TURN server. As text, what RFC 7065 writes, with the account in it:
/// `turn:USER:PASSWORD@HOST[:PORT][?transport=udp|tcp]`, `turns:USER:PASSWORD@HOST[:PORT]` for TLS, and
/// `turn:[USER@]HOST?secret=SECRET` for a secret that is shared with the server. `%` and two digits stand for any byte in user,
/// password and secret. Printing it shows neither password nor secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnServer {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) over: Over,
    pub(super) account: Account,
}

/// Where TURN is spoken (RFC 8656 section 3.1), and over TLS.
const PORT: u16 = 3478;
const TLS_PORT: u16 = 5349;

/// The longest text that is read.
const LONGEST: usize = 1024;

/// The text is no TURN server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}: a TURN server is turn:USER:PASSWORD@HOST[:PORT][?transport=udp|tcp], turns:… for TLS, or turn:HOST?secret=SECRET"
)]
pub struct TurnServerError(&'static str);

impl TurnServer {
    /// A server with its account.
    pub fn new(host: impl Into<String>, port: u16, over: Over, account: Account) -> Self {
        Self { host: host.into(), port, over, account }
    }

    /// Its name or address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What carries the bytes to it.
    pub fn over(&self) -> Over {
        self.over
    }
}

impl fmt::Display for TurnServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.over == Over::Tls { "turns" } else { "turn" };
        let transport = if self.over == Over::Tcp { "?transport=tcp" } else { "" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}:[{}]:{}{transport}", self.host, self.port),
            false => write!(f, "{scheme}:{}:{}{transport}", self.host, self.port),
        }
    }
}

impl FromStr for TurnServer {
    type Err = TurnServerError;

    fn from_str(text: &str) -> Result<Self, TurnServerError> {
        if text.len() > LONGEST {
            return Err(TurnServerError("too long"));
        }
        let (scheme, rest) = text.split_once(':').ok_or(TurnServerError("no scheme"))?;
        let tls = match scheme {
            "turn" => false,
            "turns" => true,
            _ => return Err(TurnServerError("its scheme is neither turn nor turns")),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (user, place) = rest.rsplit_once('@').map_or((None, rest), |(user, place)| (Some(user), place));
        let Query { over, secret } = query.parse()?;
        let over = match (tls, over) {
            (true, None | Some(Over::Tcp)) => Over::Tls,
            (true, _) => return Err(TurnServerError("TLS is spoken over TCP only")),
            (false, over) => over.unwrap_or(Over::Udp),
        };
        let (host, port) = place_of(place)?;
        let port = port.unwrap_or(if tls { TLS_PORT } else { PORT });
        let account = match (secret, user.map(|user| user.split_once(':').ok_or(user))) {
            (Some(secret), None) => Account::shared_secret("", secret),
            (Some(secret), Some(Err(user))) => Account::shared_secret(plain(user)?, secret),
            (None, Some(Ok((user, password)))) => Account::long_term(plain(user)?, plain(password)?),
            (Some(_), Some(Ok(_))) => return Err(TurnServerError("a password and a secret are one too many")),
            (None, _) => return Err(TurnServerError("it has no password")),
        };
        Ok(Self { host, port, over, account })
    }
}

#[derive(Default)]
struct Query {
    over: Option<Over>,
    secret: Option<String>,
}

impl FromStr for Query {
    type Err = TurnServerError;

    fn from_str(text: &str) -> Result<Self, TurnServerError> {
        let mut query = Self::default();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("transport", "udp")) => query.over = Some(Over::Udp),
                Some(("transport", "tcp")) => query.over = Some(Over::Tcp),
                Some(("secret", secret)) if !secret.is_empty() => query.secret = Some(plain(secret)?),
                _ => return Err(TurnServerError("what stands after ? is not known")),
            }
        }
        Ok(query)
    }
}

fn place_of(text: &str) -> Result<(String, Option<u16>), TurnServerError> {
    let port = |text: &str| match text.parse() {
        Ok(0) | Err(_) => Err(TurnServerError("its port is none")),
        Ok(port) => Ok(Some(port)),
    };
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or(TurnServerError("its address is not closed by ]"))?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| TurnServerError("its address is none"))?;
            (host, if rest.is_empty() { None } else { port(rest.strip_prefix(':').unwrap_or("no port"))? })
        }
        None => match text.split_once(':') {
            Some((host, at)) => (host, port(at)?),
            None => (text, None),
        },
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    if host.is_empty() || !host.chars().all(fits) {
        return Err(TurnServerError("it has no host"));
    }
    Ok((host.to_owned(), port))
}

fn plain(text: &str) -> Result<String, TurnServerError> {
    let wrong = TurnServerError("% stands before two hexadecimal digits");
    percent::decoded(text).and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(wrong)
}

#[cfg(test)]
mod unit {
    use super::*;

    fn read(text: &str) -> TurnServer {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn servers_are_read_from_what_people_write() {
        let account = Account::long_term("ann", "hush");
        let server = |host: &str, port, over| TurnServer::new(host, port, over, account.clone());
        assert_eq!(read("turn:ann:hush@turn.example"), server("turn.example", 3478, Over::Udp));
        assert_eq!(read("turn:ann:hush@192.0.2.1:99?transport=tcp"), server("192.0.2.1", 99, Over::Tcp));
        assert_eq!(read("turns:ann:hush@[2001:db8::1]"), server("2001:db8::1", 5349, Over::Tls));
        assert_eq!(read("turns:ann:hush@[2001:db8::1]:7?transport=tcp").port(), 7);
        let odd = TurnServer::new("h", 3478, Over::Udp, Account::long_term("a@b", "p:w%"));
        assert_eq!(read("turn:a%40b:p:w%25@h"), odd);
        let secret = TurnServer::new("h", 3478, Over::Udp, Account::shared_secret("ann", "no rth"));
        assert_eq!(read("turn:ann@h?transport=udp&secret=no%20rth"), secret);
    }

    #[test]
    fn what_is_no_server_is_refused_with_the_reason() {
        for wrong in [
            "",
            "turn",
            "turn:",
            "stun:u:p@h",
            "turn:h",
            "turn:u@h",
            "turn:u:p@",
            "turn:u:p@h:0",
            "turn:u:p@h:port",
            "turn:u:p@h?transport=sctp",
            "turns:u:p@h?transport=udp",
            "turn:u:p@h?secret=x",
            "turn:h?secret=",
            "turn:u:p@[::1",
            "turn:u:p@[x]",
            "turn:u:p@h x",
            "turn:u:%zz@h",
            "turn:u:%e@h",
            "turn:u:%ff@h",
            "turn:u:p@h/path",
        ] {
            assert!(wrong.parse::<TurnServer>().is_err(), "{wrong}");
        }
        assert!(format!("turn:{}@h", "x".repeat(5000)).parse::<TurnServer>().is_err());
    }

    #[test]
    fn printing_shows_where_and_no_password() {
        let server = read("turn:ann:hush@turn.example?transport=tcp");
        assert_eq!(server.to_string(), "turn:turn.example:3478?transport=tcp");
        assert!(!format!("{server:?}").contains("hush"));
    }
}
