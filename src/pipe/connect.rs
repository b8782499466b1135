//! Waits: from a destination to a connected socket: names, addresses in their order (RFC 8305),
//! attempts beside each other, and one limit for all of them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use socket2::{Socket, Type};
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use super::mailbox::after;
use super::{Addr, Dest, NetConf, OpenFailure, Proto};
use crate::base::task::Nursery;
use crate::net::{self, Family, Local, Race, ResolveError, Resolver, Route, SocketError, SocketStep};

/// A stream socket that is connected.
pub(crate) enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Stream {
    pub(crate) fn into_socket(self, dest: &Dest) -> Result<Socket, OpenFailure> {
        let socket = match self {
            Self::Tcp(socket) => socket.into_std().map(Socket::from),
            #[cfg(unix)]
            Self::Unix(socket) => socket.into_std().map(Socket::from),
        };
        socket.map_err(|source| OpenFailure::Connect { dest: dest.to_string(), tried: vec![(Addr::Unnamed, source)] })
    }
}

/// A destination, read.
enum Target {
    Addr(SocketAddr),
    Name(String, u16),
}

fn target(dest: &Dest, proto: Proto) -> Result<Target, OpenFailure> {
    let wrong = |expected| OpenFailure::Destination { dest: dest.to_string(), proto: proto.name(), expected };
    let (host, port) = match dest {
        Dest::Addr(addr) => return Ok(Target::Addr(*addr)),
        Dest::Host(host, port) => (host.clone(), *port),
        Dest::Path(_) => return Err(wrong("expected host:port, not a path")),
        Dest::Text(text) => {
            if let Ok(addr) = text.parse() {
                return Ok(Target::Addr(addr));
            }
            let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("expected host:port"))?;
            if host.contains(':') {
                return Err(wrong("an IPv6 address is written in brackets: [::1]:80"));
            }
            (host.to_owned(), port.parse().map_err(|_| wrong("the port is a number from 0 to 65535"))?)
        }
    };
    match host.parse::<IpAddr>() {
        Ok(ip) => Ok(Target::Addr((ip, port).into())),
        Err(_) if host.is_empty() => Err(wrong("the host is missing")),
        Err(_) => Ok(Target::Name(host, port)),
    }
}

/// An address of this machine, which is not looked up.
pub(crate) fn literal(dest: &Dest, proto: Proto) -> Result<SocketAddr, OpenFailure> {
    match target(dest, proto)? {
        Target::Addr(addr) => Ok(addr),
        Target::Name(name, port) if name == "localhost" => Ok((Family::V4.loopback(), port).into()),
        Target::Name(..) => Err(OpenFailure::Destination {
            dest: dest.to_string(),
            proto: proto.name(),
            expected: "a local address is written as numbers",
        }),
    }
}

#[cfg(unix)]
pub(crate) fn path_of(dest: &Dest) -> Result<PathBuf, OpenFailure> {
    match dest {
        Dest::Path(path) => Ok(path.clone()),
        Dest::Text(text) if !text.is_empty() => Ok(text.into()),
        _ => Err(OpenFailure::Destination {
            dest: dest.to_string(),
            proto: Proto::Unix.name(),
            expected: "expected a path",
        }),
    }
}

/// The families that a local address allows.
fn families(local: Option<&Local>) -> Vec<Family> {
    match local {
        Some(local) => vec![Family::of(local.addr.ip())],
        None => vec![Family::V6, Family::V4],
    }
}

fn resolver(conf: &NetConf) -> Result<Resolver, ResolveError> {
    conf.resolver.clone().map_or_else(Resolver::system, Ok)
}

/// Forgets the addresses of a name that a resolver of one's own remembers; the system's configuration is read for each name.
#[cfg_attr(not(feature = "smart"), allow(dead_code, reason = "for those who connect again"))]
pub(crate) fn forget(dest: &Dest, conf: &NetConf) {
    if let (Some(resolver), Ok(Target::Name(name, _))) = (&conf.resolver, target(dest, Proto::Tcp)) {
        resolver.forget(&name);
    }
}

/// The one address that datagrams go to: the first whose family this machine can reach.
pub(crate) async fn first_address(
    dest: &Dest,
    proto: Proto,
    local: Option<&Local>,
    conf: &NetConf,
) -> Result<SocketAddr, OpenFailure> {
    let (name, port) = match target(dest, proto)? {
        Target::Addr(addr) => return fits(dest, local, addr),
        Target::Name(name, port) => (name, port),
    };
    let resolver = resolver(conf)?;
    let (v6, v4) = tokio::join!(
        resolver.lookup(&name, Family::V6, conf.dns_timeout),
        resolver.lookup(&name, Family::V4, conf.dns_timeout)
    );
    if let (Err(error), Err(_)) = (&v6, &v4) {
        tracing::debug!(%error, "neither family could be resolved");
        return Err(v4.err().map_or(ResolveError::NoSuchName { name }, |error| error).into());
    }
    let found: Vec<IpAddr> = v6.unwrap_or_default().into_iter().chain(v4.unwrap_or_default()).collect();
    if found.is_empty() {
        return Err(ResolveError::NoSuchName { name }.into());
    }
    let allowed = families(local);
    let reachable = |ip: &IpAddr| allowed.contains(&Family::of(*ip)) && net::socket::is_reachable((*ip, port).into());
    let chosen = found
        .iter()
        .copied()
        .find(reachable)
        .or_else(|| found.iter().copied().find(|ip| allowed.contains(&Family::of(*ip))));
    chosen.map(|ip| (ip, port).into()).ok_or_else(|| no_common_family(dest, local))
}

fn fits(dest: &Dest, local: Option<&Local>, addr: SocketAddr) -> Result<SocketAddr, OpenFailure> {
    if families(local).contains(&Family::of(addr.ip())) { Ok(addr) } else { Err(no_common_family(dest, local)) }
}

fn no_common_family(dest: &Dest, local: Option<&Local>) -> OpenFailure {
    let local = local.map_or_else(|| "any".to_owned(), ToString::to_string);
    OpenFailure::Family { dest: dest.to_string(), local }
}

/// Fixes a datagram socket to its one peer.
pub(crate) fn join_datagram(socket: Socket, dest: &Dest, addr: SocketAddr) -> Result<Socket, OpenFailure> {
    match socket.connect(&addr.into()) {
        Ok(()) => Ok(socket),
        Err(source) => Err(OpenFailure::Connect { dest: dest.to_string(), tried: vec![(addr.into(), source)] }),
    }
}

/// A given socket, listening.
pub(crate) fn listening(socket: Socket) -> Result<Socket, SocketError> {
    let target = "the given socket".to_owned();
    match net::socket::listen(&socket) {
        Ok(()) => Ok(socket),
        Err(source) => Err(SocketError { step: SocketStep::Listen, target, source }),
    }
}

/// The address that a given socket has, bound or not: it tells where it can lead. A datagram socket for both families
/// leads everywhere.
pub(crate) fn own_address(socket: &Socket) -> Option<Local> {
    let addr = socket.local_addr().ok()?.as_socket()?;
    let both = addr.is_ipv6() && socket.r#type().ok()? == Type::DGRAM && !socket.only_v6().unwrap_or(true);
    (!both).then(|| addr.into())
}

/// A given stream socket: connected already, or to be connected to `dest`.
pub(crate) async fn adopted(socket: Socket, proto: Proto, dest: &Dest, conf: &NetConf) -> Result<Stream, OpenFailure> {
    let connected = socket.peer_addr().is_ok();
    let failed = |addr, source| OpenFailure::Connect { dest: dest.to_string(), tried: vec![(addr, source)] };
    socket.set_nonblocking(true).map_err(|source| failed(Addr::Unnamed, source))?;
    match (proto, connected) {
        #[cfg(unix)]
        (Proto::Unix, true) => {
            UnixStream::from_std(socket.into()).map(Stream::Unix).map_err(|source| failed(Addr::Unnamed, source))
        }
        (_, true) => {
            TcpStream::from_std(socket.into()).map(Stream::Tcp).map_err(|source| failed(Addr::Unnamed, source))
        }
        (Proto::Tcp, false) => {
            let addr = first_address(dest, proto, own_address(&socket).as_ref(), conf).await?;
            let connect = TcpSocket::from_std_stream(socket.into()).connect(addr);
            match tokio::time::timeout(conf.con_timeout, connect).await {
                Ok(Ok(stream)) => Ok(Stream::Tcp(stream)),
                Ok(Err(source)) => Err(failed(addr.into(), source)),
                Err(_) => Err(timed_out(dest, conf.con_timeout)),
            }
        }
        (_, false) => {
            Err(OpenFailure::Options { reason: "a Unix socket that is given with a destination is connected" })
        }
    }
}

#[cfg(unix)]
pub(crate) async fn unix(dest: &Dest, limit: Duration) -> Result<Stream, OpenFailure> {
    let path = path_of(dest)?;
    match tokio::time::timeout(limit, UnixStream::connect(&path)).await {
        Ok(Ok(stream)) => Ok(Stream::Unix(stream)),
        Ok(Err(source)) => {
            Err(OpenFailure::Connect { dest: dest.to_string(), tried: vec![(Addr::Unix(path.into()), source)] })
        }
        Err(_) => Err(timed_out(dest, limit)),
    }
}

fn timed_out(dest: &Dest, limit: Duration) -> OpenFailure {
    OpenFailure::ConnectTimedOut { dest: dest.to_string(), limit }
}

/// Connects to the first address of `dest` that takes the connection.
pub(crate) async fn tcp(
    dest: &Dest,
    local: Option<&Local>,
    route: Option<&Route>,
    conf: &NetConf,
) -> Result<Stream, OpenFailure> {
    let attempts = Attempts { dest, local, route, conf, tried: Vec::new() };
    match target(dest, Proto::Tcp)? {
        Target::Addr(addr) => attempts.alone(fits(dest, local, addr)?).await,
        Target::Name(name, port) => attempts.race(&resolver(conf)?, &name, port).await,
    }
    .map(Stream::Tcp)
}

/// What a race waits for.
enum Event {
    Answer(Family, Result<Vec<IpAddr>, ResolveError>),
    Attempt(SocketAddr, io::Result<TcpStream>),
    Turn,
    OutOfTime,
}

/// The attempts to reach one destination; dropping them ends them.
struct Attempts<'a> {
    dest: &'a Dest,
    local: Option<&'a Local>,
    route: Option<&'a Route>,
    conf: &'a NetConf,
    tried: Vec<(Addr, io::Error)>,
}

impl Attempts<'_> {
    async fn alone(self, addr: SocketAddr) -> Result<TcpStream, OpenFailure> {
        let (socket, addr) = self.socket(addr)?;
        let failed = |source| OpenFailure::Connect { dest: self.dest.to_string(), tried: vec![(addr.into(), source)] };
        match tokio::time::timeout(self.conf.con_timeout, socket.connect(addr)).await {
            Ok(connected) => connected.map_err(failed),
            Err(_) => Err(timed_out(self.dest, self.conf.con_timeout)),
        }
    }

    /// RFC 8305: both families are asked for at once, and attempts start beside each other in turn.
    async fn race(mut self, resolver: &Resolver, name: &str, port: u16) -> Result<TcpStream, OpenFailure> {
        let runtime = tokio::runtime::Handle::current();
        let (mut lookups, mut attempts) = (Nursery::new(&runtime), Nursery::new(&runtime));
        let (mut race, begun) = (Race::new(), Instant::now());
        let (mut deadline, mut unresolved) = (None, None);
        self.look_up(resolver, name, &mut race, &mut lookups);
        loop {
            while let Some(addr) = race.poll_attempt(begun.elapsed()) {
                deadline.get_or_insert_with(|| after(self.conf.con_timeout));
                match self.socket(addr) {
                    Ok((socket, addr)) => attempts.begin(async move { (addr, socket.connect(addr).await) }),
                    // A family that this machine can not use leaves the other one its chance.
                    Err(refused) => {
                        self.tried.push((addr.into(), refused.into()));
                        race.handle_failure();
                    }
                }
            }
            if race.is_lost() {
                return Err(self.lost(name, unresolved));
            }
            let turn = race.poll_timeout().map(|at| begun + at);
            match next_event(&mut lookups, &mut attempts, turn, deadline).await {
                Event::Answer(family, answer) => {
                    let ips = answer.unwrap_or_else(|error| {
                        unresolved = Some(error);
                        Vec::new()
                    });
                    let addrs = ips.into_iter().map(|ip| (ip, port).into()).collect();
                    race.handle_answer(begun.elapsed(), family, addrs);
                }
                Event::Attempt(_, Ok(stream)) => return Ok(stream),
                Event::Attempt(addr, Err(error)) => {
                    self.tried.push((addr.into(), error));
                    race.handle_failure();
                }
                Event::Turn => {}
                Event::OutOfTime => return Err(timed_out(self.dest, self.conf.con_timeout)),
            }
        }
    }

    /// Asks for both families; one that the local address rules out is answered with nothing.
    fn look_up(&self, resolver: &Resolver, name: &str, race: &mut Race, lookups: &mut Nursery<Answer>) {
        let allowed = families(self.local);
        for family in Family::BOTH {
            if !allowed.contains(&family) {
                race.handle_answer(Duration::ZERO, family, Vec::new());
                continue;
            }
            let (resolver, name, limit) = (resolver.clone(), name.to_owned(), self.conf.dns_timeout);
            lookups.begin(async move { (family, resolver.lookup(&name, family, limit).await) });
        }
    }

    /// Why nothing connected: no address at all, or none that took the connection.
    fn lost(self, name: &str, unresolved: Option<ResolveError>) -> OpenFailure {
        match (self.tried.is_empty(), unresolved) {
            (true, Some(error)) => error.into(),
            (true, None) => ResolveError::NoSuchName { name: name.to_owned() }.into(),
            (false, _) => OpenFailure::Connect { dest: self.dest.to_string(), tried: self.tried },
        }
    }

    /// A socket bound as asked, and the address with its zone.
    fn socket(&self, addr: SocketAddr) -> Result<(TcpSocket, SocketAddr), SocketError> {
        let any = Local::any(Family::of(addr.ip()));
        let socket = net::socket::stream(self.local.unwrap_or(&any), &self.conf.socket)?;
        let addr = self.route.map_or(addr, |route| route.scoped(addr));
        Ok((TcpSocket::from_std_stream(socket.into()), addr))
    }
}

type Answer = (Family, Result<Vec<IpAddr>, ResolveError>);
type Attempt = (SocketAddr, io::Result<TcpStream>);

async fn next_event(
    lookups: &mut Nursery<Answer>,
    attempts: &mut Nursery<Attempt>,
    turn: Option<Instant>,
    deadline: Option<Instant>,
) -> Event {
    let far = Instant::now() + FAR;
    tokio::select! {
        biased;
        Some((addr, result)) = attempts.next(), if !attempts.is_empty() => Event::Attempt(addr, result),
        Some((family, answer)) = lookups.next(), if !lookups.is_empty() => Event::Answer(family, answer),
        () = tokio::time::sleep_until(turn.unwrap_or(far)), if turn.is_some() => Event::Turn,
        () = tokio::time::sleep_until(deadline.unwrap_or(far)) => Event::OutOfTime,
    }
}

/// Longer than any name server is waited for: what ends a race that has not begun to connect.
const FAR: Duration = Duration::from_secs(3600);
