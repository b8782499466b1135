//! Holds: where a socket binds or connects.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::pipe::{Addr, Dest, NetConf, Opening, Proto, pipe_open};
#[cfg(feature = "ws")]
use crate::pipe::{OpenError, OpenFailure};

/// An address to bind or to connect to, with the options of the pipes that come of it.
///
/// Made from `"host:port"`, `(host, port)` or an address for TCP, and by [`unix`](Self::unix). TLS is an
/// option of the pipe: `Endpoint::from("host:443").conf(NetConf::default().use_ssl(true))`.
#[derive(Clone, Debug)]
pub struct Endpoint {
    proto: Proto,
    at: Dest,
    conf: NetConf,
    url: Option<String>,
}

impl Endpoint {
    /// A WebSocket to connect to: `ws://HOST[:PORT]/…`, or `wss://…` in TLS, whose options
    /// [`conf`](Self::conf) can say. A bound address takes WebSockets by itself.
    ///
    /// # Errors
    /// [`OpenFailure::Destination`] for any other text.
    #[cfg(feature = "ws")]
    pub fn websocket(url: &str) -> Result<Self, OpenError> {
        let expected = "ws://HOST[:PORT]/PATH or wss://HOST[:PORT]/PATH";
        let wrong = || OpenFailure::Destination { dest: url.to_owned(), proto: "a WebSocket", expected };
        let uri: http::Uri = url.parse().map_err(|_| wrong())?;
        let (host, scheme) = uri.host().zip(uri.scheme_str()).ok_or_else(wrong)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let (conf, port) = match scheme {
            "ws" => (NetConf::default(), 80),
            #[cfg(feature = "tls")]
            "wss" => (NetConf::default().use_ssl(true), 443),
            _ => return Err(wrong().into()),
        };
        let at = Dest::from((host, uri.port_u16().unwrap_or(port)));
        Ok(Self { conf, url: Some(url.to_owned()), ..Self::tcp(at) })
    }

    #[cfg(feature = "ws")]
    pub(crate) fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// TCP.
    pub fn tcp(at: impl Into<Dest>) -> Self {
        Self { proto: Proto::Tcp, at: at.into(), conf: NetConf::default(), url: None }
    }

    /// A Unix socket.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self { proto: Proto::Unix, at: Dest::Path(path.into()), conf: NetConf::default(), url: None }
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

    /// A try to connect, which asks for the address of its name anew: a peer that has moved is found.
    pub(crate) fn client(&self) -> Opening {
        pipe_open(self.proto).dest(self.at.clone()).conf(self.tuned()).afresh()
    }
}

/// Bytes that one read takes: many small messages. Large ones are read into memory of their own.
const READ: usize = 64 << 10;

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.url {
            Some(url) => f.write_str(url),
            None => self.at.fmt(f),
        }
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
