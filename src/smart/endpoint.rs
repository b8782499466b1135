//! Holds: where a socket binds or connects.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::pipe::{Addr, Dest, NetConf, Opening, Proto, pipe_open};

/// An address to bind or to connect to, with the options of the pipes that come of it.
///
/// Made from `"host:port"`, `(host, port)` or an address for TCP, and by [`unix`](Self::unix). TLS is an
/// option of the pipe: `Endpoint::from("host:443").conf(NetConf::default().use_ssl(true))`.
#[derive(Clone, Debug)]
pub struct Endpoint {
    proto: Proto,
    at: Dest,
    conf: NetConf,
}

impl Endpoint {
    /// TCP.
    pub fn tcp(at: impl Into<Dest>) -> Self {
        Self { proto: Proto::Tcp, at: at.into(), conf: NetConf::default() }
    }

    /// A Unix socket.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self { proto: Proto::Unix, at: Dest::Path(path.into()), conf: NetConf::default() }
    }

    /// Options of the pipes: TLS, timeouts, the size of kernel buffers and so on. `nodelay`, `reader_limit`
    /// and `recv_timeout` are the socket's own; a bound one may take an address where connections linger.
    pub fn conf(self, conf: NetConf) -> Self {
        Self { conf, ..self }
    }

    fn tuned(&self) -> NetConf {
        self.conf.clone().nodelay(true).reader_limit(READ).recv_timeout(None)
    }

    pub(crate) fn server(&self) -> Opening {
        pipe_open(self.proto).bind(self.at.clone()).conf(self.tuned().reuse_addr(true))
    }

    pub(crate) fn client(&self) -> Opening {
        pipe_open(self.proto).dest(self.at.clone()).conf(self.tuned())
    }
}

/// Bytes that one read takes: many small messages. Large ones are read into memory of their own.
const READ: usize = 64 << 10;

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.at.fmt(f)
    }
}

macro_rules! tcp_from {
    ($($from:ty),*) => {$(
        impl From<$from> for Endpoint {
            fn from(at: $from) -> Self {
                Self::tcp(at)
            }
        }
    )*};
}

tcp_from!(&str, String, SocketAddr, (&str, u16), (IpAddr, u16));

impl From<Addr> for Endpoint {
    /// Where another socket is bound.
    fn from(addr: Addr) -> Self {
        match addr {
            Addr::Unix(path) => Self::unix(path.to_path_buf()),
            other => Self::tcp(other),
        }
    }
}

impl From<&Addr> for Endpoint {
    fn from(addr: &Addr) -> Self {
        addr.clone().into()
    }
}
