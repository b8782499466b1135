//! Touches: sockets with their options set, bound to the address and the interface that were asked for.

use std::io;
use std::net::{IpAddr, SocketAddr};
#[cfg(unix)]
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use super::{Family, Local, SocketError, SocketOptions, SocketStep};

/// How many connections may wait for `accept`.
const BACKLOG: i32 = 1024;

/// A stream socket, bound, not yet connected or listening.
pub(crate) fn stream(local: &Local, options: &SocketOptions) -> Result<Socket, SocketError> {
    bound(local, options, Type::STREAM)
}

/// A datagram socket, bound.
pub(crate) fn datagram(local: &Local, options: &SocketOptions) -> Result<Socket, SocketError> {
    bound(local, options, Type::DGRAM)
}

/// A stream socket that listens. On the IPv6 "any" address it takes IPv4 clients too.
pub(crate) fn listener(local: &Local, options: &SocketOptions) -> Result<Socket, SocketError> {
    let socket = bound(local, options, Type::STREAM)?;
    refused(SocketStep::Listen, local, socket.listen(BACKLOG))?;
    Ok(socket)
}

/// A Unix stream socket that listens on a path. With `reuse_addr` a socket file that nobody holds
/// any more is replaced.
#[cfg(unix)]
pub(crate) fn unix_listener(path: &Path, options: &SocketOptions) -> Result<(Socket, UnixPath), SocketError> {
    let shown = path.display();
    let socket = unix(&shown)?;
    let addr = refused(SocketStep::Bind, &shown, SockAddr::unix(path))?;
    let mut bound = socket.bind(&addr);
    if bound.is_err() && options.reuse_addr && is_abandoned(path, &addr) {
        bound = std::fs::remove_file(path).and_then(|()| socket.bind(&addr));
    }
    refused(SocketStep::Bind, &shown, bound)?;
    refused(SocketStep::Listen, &shown, socket.listen(BACKLOG))?;
    Ok((socket, UnixPath::of(path)))
}

/// A Unix stream socket, not yet bound or connected.
#[cfg(unix)]
pub(crate) fn unix(target: &dyn std::fmt::Display) -> Result<Socket, SocketError> {
    let socket = refused(SocketStep::Create, target, Socket::new(Domain::UNIX, Type::STREAM, None))?;
    refused(SocketStep::Option("O_NONBLOCK"), target, socket.set_nonblocking(true))?;
    Ok(socket)
}

/// A socket file that no socket is bound to any more. Asked with a socket of another kind, which no listener takes for a
/// client and which waits for none: it is told of the wrong kind where something is bound, and refused where nothing is.
#[cfg(unix)]
pub(super) fn is_abandoned(path: &Path, addr: &SockAddr) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let refusal = Socket::new(Domain::UNIX, Type::DGRAM, None).and_then(|probe| probe.connect(addr));
    is_socket && refusal.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// The file of a Unix listener, removed with it unless something else stands there by then.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct UnixPath {
    path: PathBuf,
    file: Option<(u64, u64)>,
}

#[cfg(unix)]
impl UnixPath {
    pub(super) fn of(path: &Path) -> Self {
        Self { path: path.to_path_buf(), file: Self::identity(path) }
    }

    fn identity(path: &Path) -> Option<(u64, u64)> {
        use std::os::unix::fs::MetadataExt;
        std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
    }
}

#[cfg(unix)]
impl Drop for UnixPath {
    fn drop(&mut self) {
        if self.file.is_some() && Self::identity(&self.path) == self.file {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Sends a datagram at once, also from a socket of which the runtime does not know yet that it can be written to: there
/// its own `try_send_to` sends nothing.
#[cfg(feature = "stun")]
pub(crate) fn send_now(socket: &tokio::net::UdpSocket, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
    SockRef::from(socket).send_to(bytes, &to.into())
}

/// Makes a bound socket listen.
pub(crate) fn listen(socket: &Socket) -> io::Result<()> {
    socket.listen(BACKLOG)
}

/// True when the kernel has a route to the address. No packet is sent.
pub(crate) fn is_reachable(addr: SocketAddr) -> bool {
    let probe = Socket::new(Domain::for_address(addr), Type::DGRAM, None);
    probe.is_ok_and(|socket| socket.connect(&addr.into()).is_ok())
}

/// True when the machine has the family: its loopback address can be bound.
pub(crate) fn has_family(family: Family) -> bool {
    let addr = SocketAddr::new(family.loopback(), 0);
    Socket::new(Domain::for_address(addr), Type::DGRAM, None).is_ok_and(|socket| socket.bind(&addr.into()).is_ok())
}

/// The family whose "any" address takes in most: IPv6, which takes IPv4 too, where the machine has it.
pub(crate) fn widest_family() -> Family {
    match Socket::new(Domain::IPV6, Type::DGRAM, None) {
        Ok(socket) if socket.set_only_v6(false).is_ok() => Family::V6,
        _ => Family::V4,
    }
}

/// The source address that the kernel would choose towards the Internet. No packet is sent: a
/// datagram socket that is connected only looks up the route.
pub(crate) fn source_towards_internet(family: Family) -> Option<IpAddr> {
    let somewhere: SocketAddr = match family {
        Family::V4 => "198.51.100.1:9".parse().ok()?,
        Family::V6 => "[2001:4860::1]:9".parse().ok()?,
    };
    let socket = Socket::new(Domain::for_address(somewhere), Type::DGRAM, None).ok()?;
    socket.connect(&somewhere.into()).ok()?;
    Some(socket.local_addr().ok()?.as_socket()?.ip())
}

fn bound(local: &Local, options: &SocketOptions, kind: Type) -> Result<Socket, SocketError> {
    let domain = Domain::for_address(local.addr);
    let protocol = (options.sock_proto != 0).then(|| Protocol::from(options.sock_proto));
    let socket = refused(SocketStep::Create, local, Socket::new(domain, kind, protocol))?;
    refused(SocketStep::Option("O_NONBLOCK"), local, socket.set_nonblocking(true))?;
    for (name, result) in apply(&socket, options, local.addr, kind) {
        refused(SocketStep::Option(name), local, result)?;
    }
    if local.addr.is_ipv6() && local.addr.ip().is_unspecified() {
        refused(SocketStep::Option("IPV6_V6ONLY"), local, socket.set_only_v6(options.only_v6))?;
    }
    bind_interface(&socket, local)?;
    // A client that does not care gets its port when it connects, from the whole range for that peer.
    if kind == Type::DGRAM || !local.addr.ip().is_unspecified() || local.addr.port() != 0 {
        refused(SocketStep::Bind, local, socket.bind(&local.addr.into()))?;
    }
    Ok(socket)
}

/// Sets every option that is asked for, and tells of each how it went.
fn apply(
    socket: &Socket,
    options: &SocketOptions,
    local: SocketAddr,
    kind: Type,
) -> Vec<(&'static str, io::Result<()>)> {
    let mut done = Vec::new();
    let mut set = |wanted: bool, name, result: &dyn Fn() -> io::Result<()>| {
        if wanted {
            done.push((name, result()));
        }
    };
    set(options.reuse_addr, "SO_REUSEADDR", &|| socket.set_reuse_address(true));
    #[cfg(unix)]
    set(options.reuse_port, "SO_REUSEPORT", &|| socket.set_reuse_port(true));
    set(options.broadcast && kind == Type::DGRAM, "SO_BROADCAST", &|| socket.set_broadcast(true));
    set(options.recv_buffer.is_some(), "SO_RCVBUF", &|| {
        socket.set_recv_buffer_size(options.recv_buffer.unwrap_or_default())
    });
    set(options.send_buffer.is_some(), "SO_SNDBUF", &|| {
        socket.set_send_buffer_size(options.send_buffer.unwrap_or_default())
    });
    for family in families_carried(local, options).iter().copied() {
        set(options.tos.is_some(), "IP_TOS", &|| set_tos(socket, family, options.tos.unwrap_or_default()));
        set(options.ttl.is_some(), "IP_TTL", &|| set_ttl(socket, family, options.ttl.unwrap_or_default()));
    }
    if kind == Type::STREAM {
        set(options.linger.is_some(), "SO_LINGER", &|| socket.set_linger(options.linger.map(whole_seconds)));
        set(options.nodelay, "TCP_NODELAY", &|| socket.set_tcp_nodelay(true));
        set(options.keepalive.is_some(), "SO_KEEPALIVE", &|| keepalive(socket, options));
        set(options.user_timeout.is_some(), "TCP_USER_TIMEOUT", &|| user_timeout(socket, options));
    }
    done
}

/// Sets on a connection that came in what does not come to it from its listener.
pub(crate) fn inherit(socket: SockRef<'_>, options: &SocketOptions) -> io::Result<()> {
    if options.nodelay {
        socket.set_tcp_nodelay(true)?;
    }
    if options.linger.is_some() {
        socket.set_linger(options.linger.map(whole_seconds))?;
    }
    if options.keepalive.is_some() {
        keepalive(&socket, options)?;
    }
    if options.user_timeout.is_some() {
        user_timeout(&socket, options)?;
    }
    Ok(())
}

/// The kernel counts whole seconds here, and zero means something else: less than one is one.
fn whole_seconds(limit: Duration) -> Duration {
    Duration::from_secs(limit.as_secs().saturating_add(u64::from(limit.subsec_nanos() > 0)))
}

fn keepalive(socket: &Socket, options: &SocketOptions) -> io::Result<()> {
    let Some(keepalive) = options.keepalive else { return Ok(()) };
    let probes = TcpKeepalive::new().with_time(keepalive.idle).with_interval(keepalive.interval);
    socket.set_tcp_keepalive(&probes.with_retries(keepalive.retries))
}

#[cfg(target_os = "linux")]
fn user_timeout(socket: &Socket, options: &SocketOptions) -> io::Result<()> {
    // To the kernel zero is its own limit.
    socket.set_tcp_user_timeout(options.user_timeout.map(|limit| limit.max(Duration::from_millis(1))))
}

#[cfg(not(target_os = "linux"))]
fn user_timeout(_: &Socket, _: &SocketOptions) -> io::Result<()> {
    Ok(())
}

/// Whose packets the socket carries: Linux keeps the options of each family apart on one that carries both; elsewhere a
/// socket has those of its own family alone.
fn families_carried(local: SocketAddr, options: &SocketOptions) -> &'static [Family] {
    let both = cfg!(target_os = "linux") && local.ip().is_unspecified() && !options.only_v6;
    match local {
        SocketAddr::V4(_) => &[Family::V4],
        SocketAddr::V6(_) if both => &[Family::V6, Family::V4],
        SocketAddr::V6(_) => &[Family::V6],
    }
}

fn set_tos(socket: &Socket, family: Family, tos: u8) -> io::Result<()> {
    match family {
        Family::V4 => socket.set_tos_v4(tos.into()),
        Family::V6 => socket.set_tclass_v6(tos.into()),
    }
}

fn set_ttl(socket: &Socket, family: Family, ttl: u8) -> io::Result<()> {
    match family {
        Family::V4 => socket.set_ttl_v4(ttl.into()),
        Family::V6 => socket.set_unicast_hops_v6(ttl.into()),
    }
}

/// Makes the socket leave by the interface, whatever the route table prefers.
fn bind_interface(socket: &Socket, local: &Local) -> Result<(), SocketError> {
    let Some(interface) = &local.interface else { return Ok(()) };
    #[cfg(target_os = "linux")]
    let result = socket.bind_device(Some(interface.name().as_bytes()));
    #[cfg(target_vendor = "apple")]
    let result = match (std::num::NonZeroU32::new(interface.index()), local.addr) {
        (index, SocketAddr::V4(_)) => socket.bind_device_by_index_v4(index),
        (index, SocketAddr::V6(_)) => socket.bind_device_by_index_v6(index),
    };
    #[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
    let result = Ok(drop(interface));
    refused(SocketStep::BindInterface, local, result)
}

pub(crate) fn refused<T>(
    step: SocketStep,
    target: &dyn std::fmt::Display,
    result: io::Result<T>,
) -> Result<T, SocketError> {
    result.map_err(|source| SocketError { step, target: target.to_string(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linger_of_less_than_a_second_is_no_reset() {
        let whole = |millis| whole_seconds(Duration::from_millis(millis));
        assert_eq!([0, 1, 500, 1000, 1001].map(whole), [0, 1, 1, 1, 2].map(Duration::from_secs));
        assert_eq!(whole_seconds(Duration::MAX), Duration::from_secs(u64::MAX));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_socket_for_both_families_has_the_options_on_both() {
        let options = SocketOptions { tos: Some(0x28), ttl: Some(17), ..SocketOptions::default() };
        let socket = datagram(&Local::any(Family::V6), &options).unwrap();
        assert_eq!((socket.tclass_v6().unwrap(), socket.unicast_hops_v6().unwrap()), (0x28, 17));
        assert_eq!((socket.tos_v4().unwrap(), socket.ttl_v4().unwrap()), (0x28, 17));
    }

    #[cfg(unix)]
    #[test]
    fn only_a_file_that_no_socket_is_bound_to_is_abandoned_and_no_listener_hears_of_the_question() {
        let path = std::env::temp_dir().join(format!("natpipe-abandoned-{}", std::process::id()));
        let addr = SockAddr::unix(&path).unwrap();
        let socket = unix(&"a test").unwrap();
        socket.bind(&addr).unwrap();
        let bound = is_abandoned(&path, &addr);
        socket.listen(1).unwrap();
        let listening = is_abandoned(&path, &addr);
        let knocked = socket.accept().map(drop).map_err(|error| error.kind());
        drop(socket);
        let left = is_abandoned(&path, &addr);
        std::fs::remove_file(&path).unwrap();
        assert_eq!((bound, listening, left), (false, false, true));
        assert_eq!(knocked, Err(io::ErrorKind::WouldBlock));
    }
}
