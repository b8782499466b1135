//! Waits: a STUN client on real sockets: which address do servers see?
//!
//! [`Query`](super::Query) decides; `udp` and `streams` move its packets, `servers` resolves names.

mod servers;
mod streams;
mod udp;

use std::time::{Duration, Instant};

use rand::Rng;

use super::outcome::{Answer, Failure};
use super::query::{Event, Query};
use super::request::Request;
use super::transaction::{Dropped, Timing};
use super::{Credentials, Form};
use crate::net::{Family, Resolver, Route, SocketError};
#[cfg(feature = "tls")]
use crate::pipe::tls::TlsClient;
pub(crate) use servers::resolve;
pub use servers::{PORT, ServerName, ServerNameError, TLS_PORT};
#[cfg(feature = "punch")]
pub(crate) use udp::drive_from;

/// Between asking one server and the next: close enough that a dead one costs little.
const STAGGER: Duration = Duration::from_millis(100);

/// How long names may take, unless said otherwise: as for pipes.
const DNS_TIMEOUT: Duration = Duration::from_secs(2);

/// Servers that one client asks at most; more only burden the public.
const MOST_SERVERS: usize = 16;

/// What STUN runs over.
#[derive(Clone, Debug, Default)]
enum Over {
    #[default]
    Udp,
    Tcp,
    #[cfg(feature = "tls")]
    Tls(TlsClient),
}

/// Why nobody could say which address the world sees.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// No server was named.
    #[error("no STUN server was given")]
    NoServer,
    /// None of the names has an address in the families asked for. Check the names, or the network.
    #[error("no STUN server has an address that can be asked{}", listed(.0))]
    NoAddress(Vec<crate::net::ResolveError>),
    /// No socket could be made on the route.
    #[error("no socket to ask STUN servers from")]
    Socket(#[from] SocketError),
    /// Every server failed. With UDP blocked, TCP may pass.
    #[error("no STUN server answered{}", listed(.0))]
    NoAnswer(Vec<Failure>),
}

fn listed<E: std::fmt::Display>(causes: &[E]) -> String {
    let mut said: Vec<String> = causes.iter().map(ToString::to_string).collect();
    said.dedup();
    if said.is_empty() { String::new() } else { format!(": {}", said.join("; ")) }
}

/// Everything that came of asking.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Asked {
    /// The answers, the first first.
    pub answers: Vec<Answer>,
    /// Servers that gave none, and why.
    pub failures: Vec<Failure>,
    /// Packets that were dropped: malformed, not asked for, or from elsewhere.
    pub dropped: Dropped,
}

/// Asks STUN servers which address they see: over UDP, TCP or TLS, on a given route.
///
/// Several are asked a tenth of a second after one another, or at once when one fails, and the first good answer counts.
/// Answers that come from elsewhere, match no request or are malformed are dropped and counted.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use natpipe::stun::{Client, ServerName};
/// use natpipe::{Family, Interface};
///
/// let route = Interface::default_for(Family::V4)?.route(Family::V4)?;
/// let server: ServerName = "stun.example".parse()?;
/// let answer = Client::new().server(server).route(&route).ask().await?;
/// println!("the world sees {} at {}", route.nic()[0], answer.mapped);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    servers: Vec<ServerName>,
    route: Option<Route>,
    families: Vec<Family>,
    over: Over,
    request: Request,
    resolver: Option<Resolver>,
    dns_timeout: Duration,
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// A client over UDP that knows no server yet.
    pub fn new() -> Self {
        Self {
            servers: Vec::new(),
            route: None,
            families: Family::BOTH.to_vec(),
            over: Over::Udp,
            request: Request::new(),
            resolver: None,
            dns_timeout: DNS_TIMEOUT,
        }
    }

    /// Adds a server; those beyond the sixteenth are not asked.
    pub fn server(mut self, server: impl Into<ServerName>) -> Self {
        if self.servers.len() < MOST_SERVERS {
            self.servers.push(server.into());
        }
        self
    }

    /// Adds several.
    pub fn servers(self, servers: impl IntoIterator<Item = ServerName>) -> Self {
        servers.into_iter().fold(self, Self::server)
    }

    /// Leaves by this route, in its family, and notes in it the address that was seen. Default: whichever way the kernel
    /// chooses.
    pub fn route(mut self, route: &Route) -> Self {
        self.families = vec![route.family()];
        self.route = Some(route.clone());
        self
    }

    /// Asks in this family only. Default: both, or the route's.
    pub fn family(mut self, family: Family) -> Self {
        self.families = vec![family];
        self
    }

    /// Over TCP.
    pub fn tcp(mut self) -> Self {
        self.over = Over::Tcp;
        self
    }

    /// Over TLS; the server's certificate must be for its name.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, client: TlsClient) -> Self {
        self.over = Over::Tls(client);
        self
    }

    /// Signs with these, and believes only answers signed with them.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.request = self.request.credentials(credentials);
        self
    }

    /// The words: RFC 8489's, RFC 3489's, or either. Default: either.
    pub fn form(mut self, form: Form) -> Self {
        self.request = self.request.form(form);
        self
    }

    /// When to ask again and when to give up. Default: RFC 8489's, which gives up after 39.5 s over UDP.
    pub fn timing(mut self, timing: Timing) -> Self {
        self.request = self.request.timing(timing);
        self
    }

    /// Resolves names by this. Default: the system's way.
    pub fn resolver(mut self, resolver: Resolver) -> Self {
        self.resolver = Some(resolver);
        self
    }

    /// How long names may take. Default 2 s.
    pub fn dns_timeout(mut self, limit: Duration) -> Self {
        self.dns_timeout = limit;
        self
    }

    /// The first good answer. The route, if one was given, knows its external address from then on.
    ///
    /// # Errors
    /// [`AskError`]. Cancel safe: dropping the future closes the sockets.
    pub async fn ask(&self) -> Result<Answer, AskError> {
        let mut asked = self.run(1).await?;
        if asked.answers.is_empty() {
            return Err(AskError::NoAnswer(asked.failures));
        }
        let answer = asked.answers.swap_remove(0);
        if let Some(route) = &self.route {
            route.set_external(vec![answer.mapped.ip()]);
        }
        Ok(answer)
    }

    /// What every server says, when all have answered or were given up. The route knows every address seen from then on.
    ///
    /// # Errors
    /// [`AskError`], but [`AskError::NoAnswer`]: the failures are in the result. Cancel safe.
    pub async fn ask_all(&self) -> Result<Asked, AskError> {
        let asked = self.run(usize::MAX).await?;
        if let (Some(route), false) = (&self.route, asked.answers.is_empty()) {
            let mut seen: Vec<_> = asked.answers.iter().map(|answer| answer.mapped.ip()).collect();
            seen.sort();
            seen.dedup();
            route.set_external(seen);
        }
        Ok(asked)
    }

    async fn run(&self, wanted: usize) -> Result<Asked, AskError> {
        if self.servers.is_empty() {
            return Err(AskError::NoServer);
        }
        let port = if self.is_tls() { TLS_PORT } else { PORT };
        let found = resolve(&self.servers, &self.families, self.resolver.clone(), self.dns_timeout, port).await;
        if found.addrs.is_empty() {
            return Err(AskError::NoAddress(found.failed));
        }
        let addrs: Vec<_> = found.addrs.iter().map(|(_, addr)| *addr).collect();
        let mut seed = [0; 32];
        rand::rng().fill_bytes(&mut seed);
        let request =
            if matches!(self.over, Over::Udp) { self.request.clone() } else { self.request.clone().over_stream() };
        let mut query = Query::new(&request, &addrs, seed, Instant::now()).stagger(STAGGER).wanted(wanted);
        query.handle_timeout(Instant::now());
        match &self.over {
            Over::Udp => udp::drive(&mut query, &addrs, self.route.as_ref()).await?,
            _ => streams::drive(&mut query, self, &found.addrs).await,
        }
        Ok(collect(query))
    }

    fn is_tls(&self) -> bool {
        #[cfg(feature = "tls")]
        return matches!(self.over, Over::Tls(_));
        #[cfg(not(feature = "tls"))]
        false
    }
}

fn collect(mut query: Query) -> Asked {
    let mut asked = Asked { dropped: query.dropped(), ..Asked::default() };
    while let Some(event) = query.poll_event() {
        match event {
            Event::Answered(answer) => asked.answers.push(answer),
            Event::Failed(failure) => asked.failures.push(failure),
        }
    }
    asked
}
