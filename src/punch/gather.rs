//! Waits: our own candidates, of all routes at once, and those that come later.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{sleep_until, timeout_at};

use super::PunchError;
use super::assisted::Assisted;
use super::bases::{Base, Row, Seen, TcpBase, UdpBase, tcp, udp};
use super::message::{CANDIDATES, Candidate, CandidateKind};
use super::shape::Shape;
use crate::nat::Proto;
use crate::net::{Family, Local, Route, SocketError};

/// Hops after which a packet has left our own NAT and not reached the peer's, where the routers do not tell.
const HOPS: u8 = 2;

/// When one route has its external address, the others are given so much more; what they have then follows later.
const MORE: Duration = Duration::from_millis(100);

/// How long gateways are waited for where what they open can not be told later.
const GATEWAYS: Duration = Duration::from_secs(2);

/// All that we have.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) udp: Vec<UdpBase>,
    pub(super) tcp: Vec<TcpBase>,
    /// What gateways have opened.
    pub(super) assisted: Vec<Candidate>,
    /// What the bases are bound to, for more sockets of the kind.
    pub(super) locals: Vec<Local>,
    /// What the NAT before the first route that has one does.
    pub(super) shape: Option<Shape>,
    /// Which route that is.
    pub(super) shaped: usize,
    /// Where a plan's sockets are to be bound there, if it matters.
    pub(super) row: Option<Row>,
    /// After so many hops a packet has left our own NAT.
    pub(super) hops: u8,
    /// When all this was found: a NAT forgets.
    pub(super) at: Instant,
}

impl Default for Gathered {
    fn default() -> Self {
        Self {
            udp: Vec::new(),
            tcp: Vec::new(),
            assisted: Vec::new(),
            locals: Vec::new(),
            shape: None,
            shaped: 0,
            row: None,
            hops: HOPS,
            at: Instant::now(),
        }
    }
}

impl Gathered {
    /// As many as the peer takes: what the world sees first, since a machine may have many addresses of its own.
    pub(super) fn offered(&self) -> Vec<Candidate> {
        let mut all = self.candidates();
        all.sort_by_key(|candidate| candidate.kind == CandidateKind::Host);
        all.truncate(CANDIDATES);
        all
    }

    /// Host candidates, server-reflexive ones where they differ, and what gateways have opened.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        let udp = self.udp.iter().flat_map(UdpBase::candidates);
        let tcp = self.tcp.iter().flat_map(TcpBase::candidates);
        udp.chain(tcp).chain(self.assisted.iter().copied()).collect()
    }

    fn add(&mut self, base: Base, local: Local, seen: Seen) {
        self.note(self.locals.len(), seen);
        self.locals.push(local);
        match base {
            Base::Udp(base) => self.udp.push(base),
            Base::Tcp(base) => self.tcp.push(base),
        }
    }

    /// One more socket that is punched from, of the route that the shape is of.
    fn note(&mut self, at: usize, seen: Seen) {
        self.shape = self.shape.or(seen.shape);
        if self.shape.is_some() && self.shape == seen.shape {
            (self.shaped, self.hops, self.row) = (at, seen.hops.unwrap_or(HOPS), seen.row);
        }
    }
}

type One = (usize, Base, Seen);

/// What comes after the first.
#[derive(Debug)]
pub(super) enum Found {
    /// One more socket.
    Base(Base),
    /// A gateway has opened a port of one that is known.
    Assisted(Candidate),
}

/// Sockets on every route, each asked for its external address at the same time, and its gateway for a port. Those that can not be
/// made are left out unless none can.
pub(super) struct Gathering<'a> {
    routes: &'a [Route],
    looking: FuturesUnordered<BoxFuture<'a, Result<One, SocketError>>>,
    found: Gathered,
    /// When the others are not waited for any more.
    until: Option<Instant>,
    refused: Option<SocketError>,
    assisted: Option<Assisted>,
}

impl<'a> Gathering<'a> {
    /// Gateways are asked where `assisted` is.
    pub(super) fn new(proto: Proto, routes: &'a [Route], servers: &[SocketAddr], assisted: bool) -> Self {
        let one = |(at, route): (usize, &'a Route)| -> BoxFuture<'a, Result<One, SocketError>> {
            let family = |server: &SocketAddr| Family::of(server.ip()) == route.family();
            let fitting: Vec<SocketAddr> = servers.iter().copied().filter(family).collect();
            Box::pin(async move {
                let (base, seen) = match proto {
                    Proto::Udp => udp(route, &fitting).await.map(|(base, seen)| (Base::Udp(base), seen))?,
                    Proto::Tcp => tcp(route, &fitting).await.map(|(base, seen)| (Base::Tcp(base), seen))?,
                };
                Ok((at, base, seen))
            })
        };
        let looking = routes.iter().enumerate().map(one).collect();
        let assisted = assisted.then(Assisted::default);
        Self { routes, looking, found: Gathered::default(), until: None, refused: None, assisted }
    }

    /// Until every route has come to an end, or one has an external address and the others had a moment more. Cancel safe.
    pub(super) async fn first(&mut self) -> Result<Gathered, PunchError> {
        while !self.looking.is_empty() {
            let until = self.until.unwrap_or_else(Instant::now);
            tokio::select! {
                Some(one) = self.looking.next() => self.take(one),
                Some(opened) = opened(&mut self.assisted) => self.found.assisted.push(opened),
                () = sleep_until(until.into()), if self.until.is_some() => break,
            }
        }
        self.outcome()
    }

    /// Until every route has come to an end, and every gateway, though that is not waited for so long.
    pub(super) async fn all(&mut self) -> Result<Gathered, PunchError> {
        while let Some(one) = self.looking.next().await {
            self.take(one);
        }
        let until = Instant::now() + GATEWAYS;
        while let Ok(Some(opened)) = timeout_at(until.into(), opened(&mut self.assisted)).await {
            self.found.assisted.push(opened);
        }
        self.outcome()
    }

    /// True while a route or a gateway is still being asked.
    pub(super) fn is_looking(&self) -> bool {
        !self.looking.is_empty() || self.assisted.as_ref().is_some_and(Assisted::is_asking)
    }

    /// What came later; `None` when there is nothing any more. Cancel safe.
    pub(super) async fn later(&mut self) -> Option<Found> {
        loop {
            tokio::select! {
                Some(one) = self.looking.next() => match one {
                    Ok((at, base, _)) => {
                        self.ask_gateway(at, &base);
                        return Some(Found::Base(base));
                    }
                    Err(error) => tracing::debug!(%error, "no socket to punch from"),
                },
                Some(opened) = opened(&mut self.assisted) => return Some(Found::Assisted(opened)),
                else => return None,
            }
        }
    }

    /// What gateways have opened, and go on keeping open.
    pub(super) fn assisted(self) -> Option<Assisted> {
        self.assisted
    }

    fn ask_gateway(&mut self, at: usize, base: &Base) {
        let proto = if matches!(base, Base::Udp(_)) { Proto::Udp } else { Proto::Tcp };
        if let (Some(assisted), Some(route)) = (&mut self.assisted, self.routes.get(at)) {
            assisted.ask(route, proto, base.local().port(), base.mapped().map(|mapped| mapped.ip()));
        }
    }

    fn take(&mut self, one: Result<One, SocketError>) {
        match one {
            Ok((at, base, seen)) => {
                if base.has_external() {
                    self.until.get_or_insert_with(|| Instant::now() + MORE);
                }
                self.ask_gateway(at, &base);
                self.found.add(base, self.routes[at].local(), seen);
            }
            Err(error) => self.refused = Some(error),
        }
    }

    fn outcome(&mut self) -> Result<Gathered, PunchError> {
        match self.refused.take() {
            _ if !self.found.candidates().is_empty() => {
                Ok(Gathered { at: Instant::now(), ..std::mem::take(&mut self.found) })
            }
            Some(error) => Err(error.into()),
            None => Err(PunchError::NoRoute),
        }
    }
}

/// The next port that a gateway has opened; `None` when none is being asked.
async fn opened(assisted: &mut Option<Assisted>) -> Option<Candidate> {
    assisted.as_mut()?.next().await
}
