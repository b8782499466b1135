//! Holds: why a gateway opens no port.

use std::fmt;
use std::io;
use std::net::IpAddr;

use super::Protocol;

/// Why one protocol came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// Nobody answered in time: most likely the gateway does not speak it.
    #[error("no answer")]
    NoAnswer,
    /// The network refused: the port is closed, or there is no way to it.
    #[error("not there ({0})")]
    NotThere(io::ErrorKind),
    /// The interface has no default route with a router.
    #[error("no gateway is known")]
    NoGateway,
    /// The gateway speaks it and said no: port mapping is switched off, our address is not allowed, or it has no ports left.
    #[error("the gateway refused: {why} ({code})")]
    Refused {
        /// The protocol's number for it.
        code: u16,
        /// What that means.
        why: String,
    },
    /// The gateway's answer can not be right; it is not believed.
    #[error("the gateway's answer makes no sense: {0}")]
    Nonsense(String),
    /// The gateway itself has no external address: its line is down.
    #[error("the gateway has no external address")]
    NoExternal,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::NotThere(error.kind())
    }
}

impl From<super::Wrong> for Failure {
    fn from(wrong: super::Wrong) -> Self {
        Self::Nonsense(wrong.to_string())
    }
}

/// Why no port is open: what each protocol came to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the gateway {} opens no port: {}", gateway.map_or("(unknown)".to_owned(), |ip| ip.to_string()), All(failures))]
pub struct MapError {
    /// Who was asked.
    pub gateway: Option<IpAddr>,
    /// How, and why it came to nothing.
    pub failures: Vec<(Protocol, Failure)>,
}

struct All<'a>(&'a [(Protocol, Failure)]);

impl fmt::Display for All<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the interface is gone");
        }
        for (at, (protocol, failure)) in self.0.iter().enumerate() {
            write!(f, "{}{protocol}: {failure}", if at == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}
