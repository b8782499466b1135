//! Waits: a STUN server on real sockets: one address, or two by two ports; UDP and TCP.
//!
//! [`Binding`] decides what is answered; `udp` and `tcp` move the bytes.

mod tcp;
mod udp;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rand::Rng;
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Handle;

use super::server::{Addresses, AddressesError, Binding, Corner, Counters, Limits};
use crate::base::task::Nursery;
use crate::net::socket;
use crate::net::{SocketError, SocketOptions, SocketStep};

/// How many ports of the kernel's choice are tried until one is free over UDP and TCP, and at the other address.
const PORTS_TRIED: usize = 16;

/// Why a server could not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// An address can not be had: it is in use, or not this machine's. Choose another.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The two addresses do not make a server for all tests.
    #[error(transparent)]
    Addresses(#[from] AddressesError),
    /// With two addresses both must be real: clients are told them.
    #[error("{0} is no address to name to others: with two addresses, give both as they are on this machine")]
    Unspecified(SocketAddr),
    /// It was started outside a tokio runtime.
    #[error("a STUN server needs a tokio runtime")]
    NoRuntime,
}

/// A STUN server that is not yet running.
#[derive(Debug, Clone)]
pub struct ServerBuilder {
    listen: SocketAddr,
    listen2: Option<SocketAddr>,
    limits: Limits,
    tcp: bool,
    /// Whether the first address is listened at over TCP; another server may, and hand over what is STUN.
    first_tcp: bool,
}

impl ServerBuilder {
    /// Does not listen over TCP at the first address: connections to it are handed over
    /// ([`Streams::serve`]).
    #[cfg(feature = "peer")]
    pub(crate) fn streams_are_handed_over(mut self) -> Self {
        self.first_tcp = false;
        self
    }

    /// A second address, of the same family, that differs in IP address and in port. The server then has four sockets and
    /// answers all tests of RFC 5780; without it, mapping tests against several servers are possible, filtering tests not.
    pub fn listen2(mut self, addr: SocketAddr) -> Self {
        self.listen2 = Some(addr);
        self
    }

    /// How many requests each source may make. Default: [`Limits::default`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Whether to answer over TCP as well, on the same ports. Default true.
    pub fn tcp(mut self, on: bool) -> Self {
        self.tcp = on;
        self
    }

    /// Binds all sockets and begins to answer. Port 0 means a free one.
    ///
    /// # Errors
    /// [`ServeError`].
    pub fn start(self) -> Result<Server, ServeError> {
        let runtime = Handle::try_current().map_err(|_| ServeError::NoRuntime)?;
        let sockets = self.bind_free()?;
        let at = |corner| sockets.iter().find(|bound| bound.corner == corner).map(|bound| bound.addr);
        let addresses = match (at(Corner::ALL[0]), at(Corner::ALL[3])) {
            (Some(primary), Some(alternate)) => Addresses::two(primary, alternate)?,
            (Some(primary), None) if !primary.ip().is_unspecified() => Addresses::one(primary),
            _ => Addresses::unknown(),
        };
        let mut random = rand::rng();
        let binding = Binding::new(addresses, self.limits, [random.next_u64(), random.next_u64()], Instant::now());
        let addrs = sockets.iter().map(|bound| bound.addr).collect();
        Ok(Server::run(&runtime, binding, sockets, addrs))
    }

    /// A port of the kernel's choice is free for one socket; for all of them others may have to be tried.
    fn bind_free(&self) -> Result<Vec<Bound>, ServeError> {
        let free = |addr: SocketAddr| addr.port() == 0;
        let tries = if free(self.listen) || self.listen2.is_some_and(free) { PORTS_TRIED } else { 1 };
        let mut bound = self.bind();
        for _ in 1..tries {
            match &bound {
                Err(ServeError::Socket(error)) if error.source.kind() == std::io::ErrorKind::AddrInUse => {
                    bound = self.bind()
                }
                _ => break,
            }
        }
        bound
    }

    fn bind(&self) -> Result<Vec<Bound>, ServeError> {
        let Some(second) = self.listen2 else { return Ok(vec![self.bind_one(Corner::PRIMARY, self.listen)?]) };
        for addr in [self.listen, second] {
            if addr.ip().is_unspecified() {
                return Err(ServeError::Unspecified(addr));
            }
        }
        if self.listen.ip() == second.ip() || (self.listen.port() == second.port() && second.port() != 0) {
            return Err(AddressesError { primary: self.listen, alternate: second }.into());
        }
        let first = self.bind_one(Corner::ALL[0], self.listen)?;
        let fourth = self.bind_one(Corner::ALL[3], second)?;
        let by_port = self.bind_one(Corner::ALL[1], SocketAddr::new(first.addr.ip(), fourth.addr.port()))?;
        let by_ip = self.bind_one(Corner::ALL[2], SocketAddr::new(fourth.addr.ip(), first.addr.port()))?;
        Ok(vec![first, by_port, by_ip, fourth])
    }

    fn bind_one(&self, corner: Corner, addr: SocketAddr) -> Result<Bound, SocketError> {
        let options = SocketOptions { reuse_addr: true, ..SocketOptions::default() };
        // Over UDP the option would let a second server take the port unnoticed.
        let udp = socket::datagram(&addr.into(), &SocketOptions::default())?;
        let udp = registered(addr, UdpSocket::from_std(udp.into()))?;
        let addr = registered(addr, udp.local_addr())?;
        let tcp = match self.tcp && (self.first_tcp || corner != Corner::PRIMARY) {
            true => {
                let listener = socket::listener(&addr.into(), &options)?;
                Some(registered(addr, TcpListener::from_std(listener.into()))?)
            }
            false => None,
        };
        Ok(Bound { corner, addr, udp: Arc::new(udp), tcp })
    }
}

fn registered<T>(addr: SocketAddr, result: std::io::Result<T>) -> Result<T, SocketError> {
    result.map_err(|source| SocketError { step: SocketStep::Register, target: addr.to_string(), source })
}

#[derive(Debug)]
struct Bound {
    corner: Corner,
    addr: SocketAddr,
    udp: Arc<UdpSocket>,
    tcp: Option<TcpListener>,
}

/// What the tasks of a server share.
#[derive(Debug)]
struct Shared {
    /// Held for one packet at a time.
    binding: Mutex<Binding>,
    udp: Vec<(Corner, Arc<UdpSocket>)>,
}

impl Shared {
    fn binding(&self) -> MutexGuard<'_, Binding> {
        self.binding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The socket that a reply is to be sent from.
    fn socket(&self, corner: Corner) -> Option<&UdpSocket> {
        self.udp.iter().find(|(at, _)| *at == corner).map(|(_, socket)| &**socket)
    }
}

/// A running STUN server (RFC 8489, RFC 5780, RFC 3489). Dropping it frees its ports.
///
/// ```
/// use natpipe::stun;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = stun::Server::listen("127.0.0.1:0".parse()?).start()?;
/// let seen = stun::Client::new().server(server.addr()).ask().await?;
/// assert!(seen.mapped.ip().is_loopback());
/// assert_eq!(server.counters().answered, 1);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    addrs: Vec<SocketAddr>,
    _tasks: Nursery<()>,
}

impl Server {
    /// A server on this address; the any-address takes every address of the machine, and then tells clients none. Its
    /// answers over UDP leave from the address that the kernel chooses: on a machine with several, name the one asked.
    pub fn listen(addr: SocketAddr) -> ServerBuilder {
        ServerBuilder { listen: addr, listen2: None, limits: Limits::default(), tcp: true, first_tcp: true }
    }

    fn run(runtime: &Handle, binding: Binding, sockets: Vec<Bound>, addrs: Vec<SocketAddr>) -> Self {
        let udp = sockets.iter().map(|bound| (bound.corner, bound.udp.clone())).collect();
        let shared = Arc::new(Shared { binding: Mutex::new(binding), udp });
        let mut tasks = Nursery::new(runtime);
        for bound in sockets {
            tasks.begin(udp::serve(shared.clone(), bound.corner, bound.udp));
            if let Some(listener) = bound.tcp {
                tasks.begin(tcp::serve(shared.clone(), bound.corner, listener, runtime.clone()));
            }
        }
        Self { shared, addrs, _tasks: tasks }
    }

    /// The first address, with its real port.
    pub fn addr(&self) -> SocketAddr {
        self.addrs[0]
    }

    /// All addresses: one, or the four of two addresses by two ports.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// For connections to the first address that somebody else has accepted.
    #[cfg(feature = "peer")]
    pub(crate) fn streams(&self) -> Streams {
        Streams(self.shared.clone())
    }

    /// What was seen so far, UDP and TCP together.
    pub fn counters(&self) -> Counters {
        self.shared.binding().counters()
    }
}

/// Answers on connections to a server's first address that it has not accepted itself.
#[cfg(feature = "peer")]
#[derive(Clone, Debug)]
pub(crate) struct Streams(Arc<Shared>);

#[cfg(feature = "peer")]
impl Streams {
    /// Until the connection ends, is silent, or is no STUN.
    pub(crate) async fn serve(&self, stream: tokio::net::TcpStream, from: SocketAddr) {
        tcp::client(self.0.clone(), Corner::PRIMARY, stream, from).await;
    }
}
