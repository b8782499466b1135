//! Waits: reaching a TURN server and asking it for an address.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime::Handle;

use super::core::{Core, Settings};
use super::link::{Link, Standing};
use super::{AllocateError, Allocation, Lost, Over, TcpAllocation, TurnServer};
use crate::base::task;
use crate::net::{Family, Route};
#[cfg(feature = "tls")]
use crate::pipe::tls::TlsClient;
use crate::pipe::{Addr, NetConf, OpenFailure, Pipe, Proto, pipe_open};
use crate::stun::Timing;

/// How long connecting and the TLS handshake may take.
const CONNECT: Duration = Duration::from_secs(10);

/// When a request over UDP is sent again: a server that lives answers in a round trip, and whoever waits for a relay has tried all else.
fn timing() -> Timing {
    Timing::default().rto(Duration::from_millis(400)).requests(5).last_wait(8)
}

/// For how long an address is asked for; it is refreshed before.
const LIFETIME: Duration = Duration::from_secs(600);

/// Servers that send us on to another one.
const REDIRECTS: u32 = 3;

/// Asks a TURN server for relayed addresses.
#[derive(Clone, Debug)]
pub struct Client {
    server: TurnServer,
    route: Option<Route>,
    family: Family,
    lifetime: Duration,
    timing: Timing,
    #[cfg(feature = "tls")]
    tls: Option<TlsClient>,
}

impl Client {
    /// For this server; nothing is sent yet.
    pub fn new(server: TurnServer) -> Self {
        Self {
            server,
            route: None,
            family: Family::V4,
            lifetime: LIFETIME,
            timing: timing(),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Leaves by this route. Default: whichever the system chooses.
    pub fn route(mut self, route: &Route) -> Self {
        self.route = Some(route.clone());
        self
    }

    /// The family of the relayed address, whatever leads to the server. Default: IPv4.
    pub fn family(mut self, family: Family) -> Self {
        self.family = family;
        self
    }

    /// For how long an address is asked for, in whole seconds; it is refreshed before. Default ten minutes, which is the shortest
    /// that most servers grant.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime.max(Duration::from_secs(1));
        self
    }

    /// When requests are sent again and given up. Default: five within six seconds, given up after nine.
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// How the certificate of a `turns:` server is checked. Default: by the system's authorities.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: TlsClient) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Asks for an address.
    ///
    /// # Errors
    /// [`AllocateError`]. Cancelling gives back what was given.
    pub async fn allocate(&self) -> Result<Allocation, AllocateError> {
        self.allocation(false).await
    }

    /// Asks for an address for connections (RFC 6062). It takes a server that is spoken to over TCP or TLS.
    ///
    /// # Errors
    /// [`AllocateError`]. Cancelling gives back what was given.
    pub async fn allocate_tcp(&self) -> Result<TcpAllocation, AllocateError> {
        if self.server.over == Over::Udp {
            let why = io::Error::new(io::ErrorKind::InvalidInput, "connections are relayed over TCP and TLS only");
            return Err(AllocateError::Connect { server: self.server.to_string(), source: why });
        }
        Ok(TcpAllocation::new(self.allocation(true).await?, self.clone()))
    }

    async fn allocation(&self, tcp: bool) -> Result<Allocation, AllocateError> {
        let mut at = None;
        for _ in 0..=REDIRECTS {
            let pipe = self.connect(at).await?;
            match self.ask(pipe, tcp).await? {
                Asked::Open(allocation) => return Ok(allocation),
                Asked::Elsewhere(server) => at = Some(server),
            }
        }
        Err(AllocateError::Redirected { server: self.server.to_string() })
    }

    pub(super) async fn connect(&self, at: Option<SocketAddr>) -> Result<Pipe, AllocateError> {
        let server = &self.server;
        let proto = if server.over == Over::Udp { Proto::Udp } else { Proto::Tcp };
        let conf = NetConf::default().con_timeout(CONNECT).recv_timeout(None).nodelay(proto == Proto::Tcp);
        let conf = self.secured(conf)?;
        let opening = pipe_open(proto).conf(conf);
        let opening = match at {
            Some(at) => opening.dest(at),
            None => opening.dest((server.host.as_str(), server.port)),
        };
        let opening = match &self.route {
            Some(route) => opening.route(route),
            None => opening,
        };
        opening.await.map_err(|error| match error.kind() {
            OpenFailure::Resolve(_) | OpenFailure::Family { .. } => {
                AllocateError::NotFound { server: server.to_string() }
            }
            _ => AllocateError::Connect { server: server.to_string(), source: error.into() },
        })
    }

    #[cfg(feature = "tls")]
    fn secured(&self, conf: NetConf) -> Result<NetConf, AllocateError> {
        if self.server.over != Over::Tls {
            return Ok(conf);
        }
        let refused = |source: io::Error| AllocateError::Connect { server: self.server.to_string(), source };
        let tls = match &self.tls {
            Some(tls) => tls.clone(),
            None => TlsClient::system().map_err(|error| refused(io::Error::other(error)))?,
        };
        Ok(conf.use_ssl(true).ssl_handshake(CONNECT).tls_client(tls.server_name(self.server.host.clone())))
    }

    #[cfg(not(feature = "tls"))]
    fn secured(&self, conf: NetConf) -> Result<NetConf, AllocateError> {
        if self.server.over != Over::Tls {
            return Ok(conf);
        }
        let source = io::Error::new(io::ErrorKind::Unsupported, "natpipe was built without its feature tls");
        Err(AllocateError::Connect { server: self.server.to_string(), source })
    }

    async fn ask(&self, pipe: Pipe, tcp: bool) -> Result<Asked, AllocateError> {
        let server = || self.server.to_string();
        // A clock before 1970 makes accounts that have ended, which the server says.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let settings = Settings {
            credentials: self.server.account.credentials(now),
            family: self.family,
            stream: self.server.over != Over::Udp,
            tcp,
            lifetime: self.lifetime,
            timing: self.timing,
            seed: rand::random(),
        };
        let at = pipe.peer_addr().and_then(Addr::ip);
        let (link, end) = Link::new(Core::new(settings, Instant::now()));
        let closing = CloseOnDrop(Some(link.clone()));
        let mut standing = link.standing();
        task::drive(&Handle::current(), link.clone().drive(pipe, end));
        let stands = standing.wait_for(|standing| *standing != Standing::Asking).await.map(|now| now.clone());
        match stands.unwrap_or(Standing::Lost(Lost::Closed)) {
            Standing::Open { relayed, mapped } => {
                closing.keep();
                Ok(Asked::Open(Allocation::new(link, self.server.clone(), at, relayed, mapped)))
            }
            Standing::Redirected(to) => Ok(Asked::Elsewhere(to)),
            Standing::NotAllocated(refused) => Err(AllocateError::Refused { server: server(), refused }),
            Standing::Lost(Lost::Broken(kind)) => Err(AllocateError::Connect { server: server(), source: kind.into() }),
            Standing::Lost(Lost::Refused(refused)) => Err(AllocateError::Refused { server: server(), refused }),
            Standing::Lost(Lost::Nonsense) => {
                Err(AllocateError::Nonsense { server: server(), why: "its answer lacks what it must have".into() })
            }
            _ => Err(AllocateError::NoAnswer { server: server() }),
        }
    }
}

enum Asked {
    Open(Allocation),
    Elsewhere(SocketAddr),
}

/// Whoever stops waiting wants no address any more.
struct CloseOnDrop(Option<std::sync::Arc<Link>>);

impl CloseOnDrop {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if let Some(link) = &self.0 {
            link.close();
        }
    }
}
