//! Holds: where the two ends meet, and how a process is told of it in its environment.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::error::InheritError;
use crate::pipe::Addr;

/// The environment variable that tells a process of the duct it was started with: `fd:NUMBER` (a connected socket that
/// it has inherited), `unix:PATH` or `tcp:HOST:PORT` (where its parent listens).
pub const VARIABLE: &str = "NATPIPE_DUCT";

/// Where a child finds its parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A path that is made when it is bound.
    Anonymous,
    Unix(PathBuf),
    Tcp {
        host: String,
        port: u16,
    },
    /// A socket that is connected already, by its number.
    Inherited(i32),
}

impl Place {
    /// Reads what stands in the environment.
    pub(crate) fn parse(found: &OsStr) -> Result<Self, InheritError> {
        let no_duct = || InheritError::NoDuct { variable: VARIABLE, found: found.to_string_lossy().into_owned() };
        // A path is any bytes; the others are text.
        if let Some(path) = found.as_bytes().strip_prefix(b"unix:") {
            return if path.is_empty() { Err(no_duct()) } else { Ok(Self::Unix(OsStr::from_bytes(path).into())) };
        }
        let found = found.to_str().ok_or_else(no_duct)?;
        let (kind, rest) = found.split_once(':').ok_or_else(no_duct)?;
        match kind {
            "fd" => rest.parse().map(Self::Inherited).map_err(|_| no_duct()),
            "tcp" => {
                let (host, port) = rest.rsplit_once(':').ok_or_else(no_duct)?;
                let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
                let port = port.parse().map_err(|_| no_duct())?;
                if host.is_empty() { Err(no_duct()) } else { Ok(Self::Tcp { host: host.to_owned(), port }) }
            }
            _ => Err(no_duct()),
        }
    }
}

/// What [`Place::parse`] reads.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("a path of its own"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
            Self::Inherited(number) => write!(f, "fd:{number}"),
        }
    }
}

/// What a child process is told of the address that its parent listens on.
pub(crate) fn told(address: &Addr) -> OsString {
    match address {
        Addr::Unix(path) => {
            let mut text = OsString::from("unix:");
            text.push(&**path);
            text
        }
        other => format!("tcp:{other}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for text in ["fd:5", "unix:/tmp/a b", "tcp:localhost:80", "tcp:[::1]:80", "tcp:10.0.0.1:65535"] {
            assert_eq!(Place::parse(text.as_ref()).unwrap().to_string(), text);
        }
        let address = Addr::Ip("[::1]:9".parse().unwrap());
        assert_eq!(Place::parse(&told(&address)).unwrap().to_string(), "tcp:[::1]:9");
    }

    #[test]
    fn what_names_no_duct_is_refused() {
        for text in ["", "5", "fd:", "fd:x", "unix:", "tcp:", "tcp:host", "tcp::80", "tcp:h:99999", "udp:h:1"] {
            assert!(matches!(Place::parse(text.as_ref()), Err(InheritError::NoDuct { .. })), "{text}");
        }
    }
}
