//! Holds: which protocol a pipe speaks and where it leads.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::Addr;

/// What a pipe runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Proto {
    /// A stream over TCP; with `use_ssl`, over TLS.
    Tcp,
    /// Datagrams over UDP.
    Udp,
    /// A stream over a Unix socket.
    Unix,
}

impl Proto {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Unix => "a Unix socket",
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a client pipe leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dest {
    /// `host:port`, `[v6]:port`, or for a Unix socket a path.
    Text(String),
    /// An address and port.
    Addr(SocketAddr),
    /// A host name or address, and a port.
    Host(String, u16),
    /// The path of a Unix socket.
    Path(PathBuf),
}

impl fmt::Display for Dest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Addr(addr) => addr.fmt(f),
            Self::Host(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Host(host, port) => write!(f, "{host}:{port}"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

impl From<&str> for Dest {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Dest {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<SocketAddr> for Dest {
    fn from(addr: SocketAddr) -> Self {
        Self::Addr(addr)
    }
}

impl From<(IpAddr, u16)> for Dest {
    fn from(addr: (IpAddr, u16)) -> Self {
        Self::Addr(addr.into())
    }
}

impl From<(&str, u16)> for Dest {
    fn from((host, port): (&str, u16)) -> Self {
        Self::Host(host.to_owned(), port)
    }
}

impl From<&Path> for Dest {
    fn from(path: &Path) -> Self {
        Self::Path(path.to_path_buf())
    }
}

impl From<PathBuf> for Dest {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl From<Addr> for Dest {
    fn from(addr: Addr) -> Self {
        match addr {
            Addr::Ip(addr) => Self::Addr(addr),
            Addr::Unix(path) => Self::Path(path.to_path_buf()),
            Addr::Unnamed => Self::Text(String::new()),
        }
    }
}

impl From<&Addr> for Dest {
    fn from(addr: &Addr) -> Self {
        addr.clone().into()
    }
}
