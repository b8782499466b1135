//! Waits: a mapping obtained from whichever protocol the gateway speaks, renewed and taken back by the same.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};

use super::ask::ask;
use super::lease::Epoch;
use super::packet::{self, Nonce, Wanted};
use super::place::Place;
use super::upnp::{self, Firewall, Igd};
use super::{Answer, Failure, MapError, Proto, Protocol, read_nat_pmp, read_pcp};
use crate::base::task::Nursery;

/// How long an answer waits for one by a protocol that is preferred.
const PREFER: Duration = Duration::from_millis(50);

/// What to obtain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) proto: Proto,
    pub(super) port: u16,
    pub(super) nonce: Nonce,
    pub(super) lease: Duration,
    /// The external address of before.
    pub(super) liked: Option<SocketAddr>,
}

/// What a gateway was found to speak.
pub(super) enum Spoken {
    Pcp { epoch: Option<u32> },
    NatPmp { external: IpAddr },
    Igd { igd: Box<Igd>, external: IpAddr },
    Firewall { firewall: Box<Firewall>, allowed: bool },
}

impl Spoken {
    fn protocol(&self) -> Protocol {
        match self {
            Self::Pcp { .. } => Protocol::Pcp,
            Self::NatPmp { .. } => Protocol::NatPmp,
            Self::Igd { .. } | Self::Firewall { .. } => Protocol::Upnp,
        }
    }
}

/// Whether the gateway speaks a protocol. Nothing is opened.
pub(super) async fn probe(place: &Place, protocol: Protocol) -> Result<Spoken, Failure> {
    match protocol {
        Protocol::Pcp => probe_pcp(place).await,
        Protocol::NatPmp => Ok(Spoken::NatPmp { external: nat_pmp_external(place).await?.0 }),
        Protocol::Upnp if place.inside().is_ipv4() => {
            let igd = Box::new(upnp::search(place).await?);
            let external = upnp::external(&igd).await?;
            Ok(Spoken::Igd { igd, external })
        }
        Protocol::Upnp => {
            let firewall = Box::new(upnp::search_firewall(place).await?);
            let allowed = upnp::pinholes_allowed(&firewall).await?;
            Ok(Spoken::Firewall { firewall, allowed })
        }
    }
}

async fn probe_pcp(place: &Place) -> Result<Spoken, Failure> {
    let request = packet::pcp_announce(place.inside());
    ask(place, Protocol::Pcp, &request, read_pcp, |answer| match answer {
        Answer::There { epoch } => Some(Ok(Spoken::Pcp { epoch: Some(epoch) })),
        Answer::Refused { code: 1, why, .. } => Some(Err(Failure::Refused { code: 1, why: why.into() })),
        // It may announce nothing, and speak PCP all the same.
        Answer::Refused { .. } => Some(Ok(Spoken::Pcp { epoch: None })),
        _ => None,
    })
    .await
}

async fn nat_pmp_external(place: &Place) -> Result<(IpAddr, Epoch), Failure> {
    ask(place, Protocol::NatPmp, &packet::nat_pmp_external(), read_nat_pmp, |answer| match answer {
        Answer::External { ip, .. } if ip.is_unspecified() => Some(Err(Failure::NoExternal)),
        Answer::External { ip, epoch } => Some(Ok((ip.into(), clock(epoch)))),
        Answer::Refused { code, why, .. } => Some(Err(Failure::Refused { code, why: why.into() })),
        _ => None,
    })
    .await
}

fn clock(epoch: u32) -> Epoch {
    Epoch::new(Instant::now().into_std(), epoch)
}

/// A mapping that a gateway has granted.
pub(super) struct Held {
    place: Place,
    asked: Asked,
    how: How,
    pub(super) external: SocketAddr,
    /// As it was granted, now or when it was last renewed.
    pub(super) lifetime: Duration,
    epoch: Option<Epoch>,
}

enum How {
    Pcp,
    NatPmp,
    Igd(Box<Igd>),
    Pinhole(Box<Firewall>, u16),
}

/// What a gateway grants.
struct Granted {
    external: SocketAddr,
    lifetime: Duration,
    epoch: Option<Epoch>,
}

/// Asks by all protocols at once, and takes the first that grants a port.
pub(super) async fn obtain(place: &Place, protocols: &[Protocol], asked: &Asked) -> Result<Held, MapError> {
    let mut probing: Nursery<(Protocol, Result<Spoken, Failure>)> = Nursery::new(&Handle::current());
    for protocol in Protocol::of(place.family()).iter().copied().filter(|protocol| protocols.contains(protocol)) {
        let place = place.clone();
        probing.begin(async move { (protocol, probe(&place, protocol).await) });
    }
    let mut failures = Vec::new();
    let mut spoken: Vec<Spoken> = Vec::new();
    let mut decide = None;
    loop {
        tokio::select! {
            Some((protocol, probed)) = probing.next(), if !probing.is_empty() => match probed {
                Ok(found) => {
                    decide.get_or_insert(Instant::now() + PREFER);
                    spoken.push(found);
                    if !probing.is_empty() {
                        continue;
                    }
                }
                Err(failure) => {
                    failures.push((protocol, failure));
                    if !probing.is_empty() {
                        continue;
                    }
                }
            },
            () = sleep_until(decide.unwrap_or_else(Instant::now)), if decide.is_some() => {}
            else => {}
        }
        decide = None;
        spoken.sort_by_key(Spoken::protocol);
        for spoken in std::mem::take(&mut spoken) {
            let protocol = spoken.protocol();
            match Held::by(place, spoken, asked).await {
                Ok(held) => return Ok(held),
                Err(failure) => failures.push((protocol, failure)),
            }
        }
        if probing.is_empty() {
            failures.sort_by_key(|(protocol, _)| *protocol);
            return Err(MapError { gateway: place.gateway, failures });
        }
    }
}

impl Held {
    async fn by(place: &Place, spoken: Spoken, asked: &Asked) -> Result<Self, Failure> {
        let seconds = seconds(asked.lease);
        let inside = SocketAddr::new(place.inside(), asked.port);
        let (how, granted) = match spoken {
            Spoken::Pcp { .. } => (How::Pcp, pcp(place, asked, asked.liked, seconds).await?),
            Spoken::NatPmp { .. } => (How::NatPmp, nat_pmp(place, asked, asked.liked, seconds).await?),
            Spoken::Igd { igd, external } => {
                let liked = asked.liked.map_or(asked.port, |liked| liked.port());
                let (port, lease) = upnp::add(&igd, asked.proto, inside, liked, seconds).await?;
                (How::Igd(igd), Granted::lasting(SocketAddr::new(external, port), lease))
            }
            Spoken::Firewall { firewall, .. } => {
                let SocketAddr::V6(inside) = inside else { return Err(Failure::NoExternal) };
                let id = upnp::add_pinhole(&firewall, asked.proto, unscoped(inside), seconds).await?;
                (How::Pinhole(firewall, id), Granted::lasting(inside.into(), seconds))
            }
        };
        let Granted { external, lifetime, epoch } = granted;
        Ok(Self { place: place.clone(), asked: *asked, how, external, lifetime, epoch })
    }

    pub(super) fn protocol(&self) -> Protocol {
        match self.how {
            How::Pcp => Protocol::Pcp,
            How::NatPmp => Protocol::NatPmp,
            How::Igd(_) | How::Pinhole(..) => Protocol::Upnp,
        }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Keeps it for longer; true when the gateway turns out to have restarted, so that it has forgotten every mapping. The external
    /// address may be another afterwards.
    pub(super) async fn renew(&mut self) -> Result<bool, Failure> {
        let (liked, seconds) = (Some(self.external), seconds(self.asked.lease));
        let granted = match &self.how {
            How::Pcp => pcp(&self.place, &self.asked, liked, seconds).await?,
            How::NatPmp => nat_pmp(&self.place, &self.asked, liked, seconds).await?,
            How::Igd(igd) => {
                let inside = SocketAddr::new(self.place.inside(), self.asked.port);
                let (port, lease) = upnp::add(igd, self.asked.proto, inside, self.external.port(), seconds).await?;
                Granted::lasting(SocketAddr::new(upnp::external(igd).await?, port), lease)
            }
            How::Pinhole(firewall, id) => {
                upnp::update_pinhole(firewall, *id, seconds).await?;
                Granted::lasting(self.external, seconds)
            }
        };
        let restarted = self.epoch.zip(granted.epoch).is_some_and(|(then, now)| !then.goes_on(now));
        Granted { external: self.external, lifetime: self.lifetime, epoch: self.epoch } = granted;
        Ok(restarted)
    }

    /// Takes it back.
    pub(super) async fn remove(self) -> Result<(), Failure> {
        match self.how {
            How::Pcp => pcp(&self.place, &self.asked, Some(self.external), 0).await.map(drop),
            How::NatPmp => nat_pmp(&self.place, &self.asked, None, 0).await.map(drop),
            How::Igd(igd) => upnp::remove(&igd, self.asked.proto, self.external.port()).await,
            How::Pinhole(firewall, id) => upnp::remove_pinhole(&firewall, id).await,
        }
    }
}

impl Granted {
    fn lasting(external: SocketAddr, seconds: u32) -> Self {
        Self { external, lifetime: Duration::from_secs(seconds.into()), epoch: None }
    }
}

fn seconds(lease: Duration) -> u32 {
    u32::try_from(lease.as_secs()).unwrap_or(u32::MAX)
}

fn unscoped(addr: SocketAddrV6) -> SocketAddrV6 {
    SocketAddrV6::new(*addr.ip(), addr.port(), 0, 0)
}

fn wanted(asked: &Asked, external: Option<SocketAddr>, lifetime: u32) -> Wanted {
    Wanted { proto: asked.proto, port: asked.port, external, lifetime, nonce: asked.nonce }
}

async fn pcp(place: &Place, asked: &Asked, liked: Option<SocketAddr>, seconds: u32) -> Result<Granted, Failure> {
    let first = SocketAddr::new(place.family().unspecified(), asked.port);
    let wanted = wanted(asked, Some(liked.unwrap_or(first)), seconds);
    let request = packet::pcp_map(place.inside(), &wanted);
    ask(place, Protocol::Pcp, &request, read_pcp, |answer| match answer {
        Answer::Mapped { proto, port, external: (Some(ip), external), lifetime, epoch, nonce }
            if nonce == Some(asked.nonce) && proto == asked.proto.number() && port == asked.port =>
        {
            Some(granted(place, seconds, ip, external, lifetime, clock(epoch)))
        }
        Answer::Refused { code, why, .. } => Some(Err(Failure::Refused { code, why: why.into() })),
        _ => None,
    })
    .await
}

async fn nat_pmp(place: &Place, asked: &Asked, liked: Option<SocketAddr>, seconds: u32) -> Result<Granted, Failure> {
    // It may have changed since, and tells only when it is asked.
    let (ip, _) = nat_pmp_external(place).await?;
    let first = SocketAddr::new(place.family().unspecified(), asked.port);
    let request = packet::nat_pmp_map(&wanted(asked, Some(liked.unwrap_or(first)), seconds));
    ask(place, Protocol::NatPmp, &request, read_nat_pmp, |answer| match answer {
        Answer::Mapped { proto, port, external: (None, external), lifetime, epoch, .. }
            if proto == asked.proto.number() && port == asked.port =>
        {
            Some(granted(place, seconds, ip, external, lifetime, clock(epoch)))
        }
        Answer::Refused { code, why, .. } => Some(Err(Failure::Refused { code, why: why.into() })),
        _ => None,
    })
    .await
}

/// What an answer grants, if it can be right.
fn granted(place: &Place, asked: u32, ip: IpAddr, port: u16, lifetime: u32, epoch: Epoch) -> Result<Granted, Failure> {
    let granted = Granted {
        external: SocketAddr::new(ip, port),
        lifetime: Duration::from_secs(lifetime.into()),
        epoch: Some(epoch),
    };
    if asked == 0 {
        return Ok(granted);
    }
    if port == 0 || lifetime == 0 || ip.is_unspecified() || ip.is_ipv4() != place.inside().is_ipv4() {
        return Err(Failure::Nonsense(format!("{} for {lifetime} s", granted.external)));
    }
    Ok(granted)
}
