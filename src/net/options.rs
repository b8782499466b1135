//! Holds: what can be set on a socket before it is used.

use std::time::Duration;

/// TCP keepalive probes (RFC 9293 section 3.8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle time before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes after which the connection is dead.
    pub retries: u32,
}

/// Options of a socket. The default leaves each as the system has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketOptions {
    /// Protocol number given to `socket(2)`; 0 lets the kernel choose (6 is TCP, 262 MPTCP).
    pub sock_proto: i32,
    /// `SO_REUSEADDR`: bind although a closed connection still lingers on the port.
    pub reuse_addr: bool,
    /// `SO_REUSEPORT`: several sockets on one port.
    pub reuse_port: bool,
    /// `IPV6_V6ONLY`: the IPv6 "any" address takes no IPv4. Off, it takes both.
    pub only_v6: bool,
    /// `SO_BROADCAST`: datagrams to broadcast addresses.
    pub broadcast: bool,
    /// `SO_LINGER`: how long closing waits for unsent bytes, in whole seconds, rounded up; zero resets the connection at
    /// once. Closing then holds up the thread that does it, which may be one of the runtime's.
    pub linger: Option<Duration>,
    /// TCP keepalive probes.
    pub keepalive: Option<Keepalive>,
    /// `TCP_USER_TIMEOUT` (RFC 5482): how long what was sent may go unacknowledged, or the other end take nothing, before the
    /// connection is dead; keepalive probes last as long as well. Linux only.
    pub user_timeout: Option<Duration>,
    /// `TCP_NODELAY`: small writes leave at once.
    pub nodelay: bool,
    /// `SO_RCVBUF` in bytes (Linux doubles it).
    pub recv_buffer: Option<usize>,
    /// `SO_SNDBUF` in bytes (Linux doubles it).
    pub send_buffer: Option<usize>,
    /// `IP_TOS` or `IPV6_TCLASS`: the DSCP in the upper six bits. A socket for both families has both.
    pub tos: Option<u8>,
    /// `IP_TTL` or `IPV6_UNICAST_HOPS`, likewise.
    pub ttl: Option<u8>,
}
