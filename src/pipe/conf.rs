//! Holds: the configuration of a pipe, the seed's `NET_CONF` with each key by its name.

use std::time::Duration;

use tokio::runtime::Handle;

#[cfg(feature = "tls")]
use super::tls::{TlsClient, TlsServer};
use crate::base::queue::Limits;
use crate::net::{Keepalive, Resolver, SocketOptions};

/// Options of a pipe. Each setter is named as its key; [`NetConf::default`] has the defaults that
/// the setters' docs give.
///
/// ```
/// use natpipe::NetConf;
/// let conf = NetConf::default().max_qsize(100).nodelay(true);
/// ```
#[derive(Clone, Debug)]
pub struct NetConf {
    pub(crate) dns_timeout: Duration,
    pub(crate) use_ssl: bool,
    #[cfg(feature = "tls")]
    pub(crate) ssl_handshake: Duration,
    pub(crate) recv_timeout: Option<Duration>,
    pub(crate) con_timeout: Duration,
    pub(crate) max_qsize: usize,
    pub(crate) max_qbytes: usize,
    pub(crate) enable_msg_ids: bool,
    pub(crate) max_msg_ids: usize,
    pub(crate) reader_limit: usize,
    pub(crate) sock_only: bool,
    pub(crate) do_close: bool,
    pub(crate) send_retry: u32,
    pub(crate) runtime: Option<Handle>,
    pub(crate) resolver: Option<Resolver>,
    pub(crate) socket: SocketOptions,
    #[cfg(feature = "tls")]
    pub(crate) tls_client: Option<TlsClient>,
    #[cfg(feature = "tls")]
    pub(crate) tls_server: Option<TlsServer>,
}

impl Default for NetConf {
    fn default() -> Self {
        Self {
            dns_timeout: Duration::from_secs(2),
            use_ssl: false,
            #[cfg(feature = "tls")]
            ssl_handshake: Duration::from_secs(4),
            recv_timeout: Some(Duration::from_secs(2)),
            con_timeout: Duration::from_secs(2),
            max_qsize: 0,
            max_qbytes: 1 << 20,
            enable_msg_ids: false,
            max_msg_ids: 1000,
            reader_limit: 1 << 16,
            sock_only: false,
            do_close: true,
            send_retry: 2,
            runtime: None,
            resolver: None,
            socket: SocketOptions::default(),
            #[cfg(feature = "tls")]
            tls_client: None,
            #[cfg(feature = "tls")]
            tls_server: None,
        }
    }
}

impl NetConf {
    /// How long names may take to resolve. Default 2 s.
    pub fn dns_timeout(self, limit: Duration) -> Self {
        Self { dns_timeout: limit, ..self }
    }

    /// Wraps streams in TLS: a client trusts the system's roots unless [`tls_client`](Self::tls_client)
    /// says otherwise, a server needs [`tls_server`](Self::tls_server). Default off.
    #[cfg(feature = "tls")]
    pub fn use_ssl(self, on: bool) -> Self {
        Self { use_ssl: on, ..self }
    }

    /// How long a TLS handshake may take, as client and as server. Default 4 s.
    #[cfg(feature = "tls")]
    pub fn ssl_handshake(self, limit: Duration) -> Self {
        Self { ssl_handshake: limit, ..self }
    }

    /// How this end acts as a TLS client; switches [`use_ssl`](Self::use_ssl) on.
    #[cfg(feature = "tls")]
    pub fn tls_client(self, client: TlsClient) -> Self {
        Self { tls_client: Some(client), use_ssl: true, ..self }
    }

    /// How this end acts as a TLS server; switches [`use_ssl`](Self::use_ssl) on.
    #[cfg(feature = "tls")]
    pub fn tls_server(self, server: TlsServer) -> Self {
        Self { tls_server: Some(server), use_ssl: true, ..self }
    }

    /// Protocol number given to `socket(2)`, such as 262 for MPTCP. Default 0: the kernel's choice.
    pub fn sock_proto(mut self, protocol: i32) -> Self {
        self.socket.sock_proto = protocol;
        self
    }

    /// How long `recv` waits: zero only takes what is there, `None` waits for ever. Default 2 s.
    pub fn recv_timeout(self, limit: impl Into<Option<Duration>>) -> Self {
        Self { recv_timeout: limit.into(), ..self }
    }

    /// How long connecting may take, all addresses of a name together. Default 2 s.
    pub fn con_timeout(self, limit: Duration) -> Self {
        Self { con_timeout: limit, ..self }
    }

    /// Messages that each queue holds; 0, the default, leaves the bound to [`max_qbytes`](Self::max_qbytes), one message
    /// for each 128 bytes of it and 64 at least.
    ///
    /// A full queue stops the reading of a stream, so that the sender feels it; of datagrams the
    /// oldest goes, and is counted.
    pub fn max_qsize(self, messages: usize) -> Self {
        Self { max_qsize: messages, ..self }
    }

    /// Bytes that each queue holds. Default 1 MiB; 0 takes the bound away, and then a peer that
    /// sends faster than you receive fills your memory unless [`max_qsize`](Self::max_qsize) is set.
    pub fn max_qbytes(self, bytes: usize) -> Self {
        Self { max_qbytes: bytes, ..self }
    }

    /// Drops a message that equals one of the last [`max_msg_ids`](Self::max_msg_ids) from the same
    /// address and port. For datagrams that are sent repeatedly; on a stream equal reads are dropped
    /// too. Default off.
    pub fn enable_msg_ids(self, on: bool) -> Self {
        Self { enable_msg_ids: on, ..self }
    }

    /// How many messages are remembered, about 50 bytes each. Default 1000.
    pub fn max_msg_ids(self, messages: usize) -> Self {
        Self { max_msg_ids: messages, ..self }
    }

    /// `SO_REUSEADDR`: bind although closed connections linger on the port. Default off.
    pub fn reuse_addr(mut self, on: bool) -> Self {
        self.socket.reuse_addr = on;
        self
    }

    /// `SO_REUSEPORT`: several sockets on one port. Default off.
    pub fn reuse_port(mut self, on: bool) -> Self {
        self.socket.reuse_port = on;
        self
    }

    /// `SO_BROADCAST`: datagrams to broadcast addresses. Default off.
    pub fn broadcast(mut self, on: bool) -> Self {
        self.socket.broadcast = on;
        self
    }

    /// The most bytes that one read of a stream yields, and the longest datagram that is taken
    /// (longer ones are dropped and counted). Default 64 KiB.
    pub fn reader_limit(self, bytes: usize) -> Self {
        Self { reader_limit: bytes.max(1), ..self }
    }

    /// Opens the socket and leaves it alone: nothing reads it, and
    /// [`Pipe::into_socket`](super::Pipe::into_socket) hands it out. Default off.
    pub fn sock_only(self, on: bool) -> Self {
        Self { sock_only: on, ..self }
    }

    /// Closes the socket on an error. When off, a socket given with
    /// [`sock`](super::Opening::sock) comes back in the error, and a pipe whose peer resets stays
    /// open until it is closed. Default on.
    pub fn do_close(self, on: bool) -> Self {
        Self { do_close: on, ..self }
    }

    /// `SO_LINGER`: how long closing waits for unsent bytes, in whole seconds, rounded up; zero resets the connection.
    /// Default off: the kernel sends what is left by itself.
    ///
    /// Above zero, closing a connection whose peer takes no more holds up a thread of the runtime for as long.
    pub fn linger(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.socket.linger = limit.into();
        self
    }

    /// How often [`Pipe::request`](super::Pipe::request) sends a datagram again when no reply came
    /// within `recv_timeout`. Default 2.
    pub fn send_retry(self, times: u32) -> Self {
        Self { send_retry: times, ..self }
    }

    /// The runtime that the pipe's task runs on (the seed's `loop`). Default: the caller's.
    pub fn runtime(self, runtime: Handle) -> Self {
        Self { runtime: Some(runtime), ..self }
    }

    /// Who resolves names. Default: the system's configuration, read for each name.
    pub fn resolver(self, resolver: Resolver) -> Self {
        Self { resolver: Some(resolver), ..self }
    }

    /// TCP keepalive probes. Default off.
    pub fn keepalive(mut self, probes: impl Into<Option<Keepalive>>) -> Self {
        self.socket.keepalive = probes.into();
        self
    }

    /// `TCP_USER_TIMEOUT` (RFC 5482): how long what was sent may go unacknowledged before the connection is dead. While it
    /// does, no keepalive probe is sent, and the system's own limit is many minutes. One whose other end takes nothing for as
    /// long is dead too, and keepalive probes are sent until then. Linux only. Default: the system's.
    pub fn user_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.socket.user_timeout = limit.into();
        self
    }

    /// `TCP_NODELAY`: small writes leave at once. Default off.
    pub fn nodelay(mut self, on: bool) -> Self {
        self.socket.nodelay = on;
        self
    }

    /// `SO_RCVBUF` in bytes. Default: the system's.
    pub fn recv_buffer(mut self, bytes: usize) -> Self {
        self.socket.recv_buffer = Some(bytes);
        self
    }

    /// `SO_SNDBUF` in bytes. Default: the system's.
    pub fn send_buffer(mut self, bytes: usize) -> Self {
        self.socket.send_buffer = Some(bytes);
        self
    }

    /// The TOS byte (IPv6 traffic class); DSCP is its upper six bits. Default: the system's.
    pub fn tos(mut self, tos: u8) -> Self {
        self.socket.tos = Some(tos);
        self
    }

    /// The hop limit of what is sent. Default: the system's.
    pub fn ttl(mut self, hops: u8) -> Self {
        self.socket.ttl = Some(hops);
        self
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits { messages: self.max_qsize, bytes: self.max_qbytes }
    }
}
