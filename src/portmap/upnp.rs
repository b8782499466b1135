//! Waits: UPnP-IGD through `igd-next`: the gateway found, ports and pinholes opened and closed.
//!
//! That crate takes no socket, so its requests leave by whatever route leads to the gateway's address; it bounds the size and depth
//! of what it reads, follows no redirect, and talks to nobody but who answered the search.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use igd_next::aio::Ipv6FirewallGateway;
use igd_next::aio::tokio::{Tokio, search_gateway, search_ipv6_firewall_gateway};
use igd_next::{
    AddAnyPortError, AddPortError, GatewayIpVersion, GetExternalIpError, PinholeError, PortMappingProtocol,
    RemovePortError, RequestError, SearchError, SearchOptions,
};
use tokio::time::timeout;

use super::place::Place;
use super::{Failure, Proto};

pub(super) type Igd = igd_next::aio::Gateway<Tokio>;
pub(super) type Firewall = Ipv6FirewallGateway<Tokio>;

/// How long a gateway may take to be found and to describe itself, and then for each request.
const SEARCH: Duration = Duration::from_secs(4);
const REQUEST: Duration = Duration::from_secs(5);

/// Where UPnP is searched (UPnP Device Architecture section 1.2.2).
const SSDP: (Ipv4Addr, u16) = (Ipv4Addr::new(239, 255, 255, 250), 1900);

/// What the gateway shows its owner.
const DESCRIPTION: &str = "natpipe";

/// The longest of a pinhole's leases, in seconds.
const LONGEST_PINHOLE: u32 = 86_400;

/// Characters of what a gateway says that are shown.
const SHOWN: usize = 80;

fn protocol(proto: Proto) -> PortMappingProtocol {
    match proto {
        Proto::Tcp => PortMappingProtocol::TCP,
        Proto::Udp => PortMappingProtocol::UDP,
    }
}

async fn in_time<T>(done: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    timeout(REQUEST, done).await.unwrap_or(Err(Failure::NoAnswer))
}

// ---- IPv4

/// The gateway of a place. It is asked itself and by multicast; another device that answers is not taken, since what it opens leads
/// nowhere.
pub(super) async fn search(place: &Place) -> Result<Igd, Failure> {
    let by = |to: SocketAddr| async move {
        let mut options = SearchOptions::default();
        options.bind_addr = (place.inside(), 0).into();
        options.broadcast_address = to;
        options.timeout = Some(SEARCH);
        options.single_search_timeout = Some(SEARCH);
        options.gateway_ip_version = GatewayIpVersion::V4;
        let found =
            timeout(SEARCH, search_gateway(options)).await.map_err(|_| Failure::NoAnswer)?.map_err(not_found)?;
        match place.gateway {
            Some(gateway) if gateway != found.addr.ip() => {
                Err(Failure::Nonsense(format!("{} answers, which is not the gateway", found.addr.ip())))
            }
            _ => Ok(found),
        }
    };
    let Some(gateway) = place.gateway else { return by(SSDP.into()).await };
    let (one, all) = (by((gateway, SSDP.1).into()), by(SSDP.into()));
    tokio::pin!(one, all);
    tokio::select! {
        found = &mut one => if found.is_ok() { found } else { all.await },
        found = &mut all => if found.is_ok() { found } else { one.await.map_err(|_| found.err().unwrap_or(Failure::NoAnswer)) },
    }
}

fn not_found(error: SearchError) -> Failure {
    match error {
        SearchError::NoResponseWithinTimeout => Failure::NoAnswer,
        SearchError::IoError(error) => error.into(),
        error => Failure::Nonsense(shown(&error.to_string())),
    }
}

/// Its external address.
pub(super) async fn external(igd: &Igd) -> Result<IpAddr, Failure> {
    let asked = async {
        match igd.get_external_ip().await {
            Ok(ip) if ip.is_unspecified() => Err(Failure::NoExternal),
            Ok(ip) => Ok(ip),
            Err(GetExternalIpError::ActionNotAuthorized) => Err(not_allowed()),
            Err(GetExternalIpError::RequestError(error)) => Err(refused(error)),
        }
    };
    in_time(asked).await
}

/// Opens a port: the one that is liked best if it can be had, else any. The port and the seconds that were granted.
pub(super) async fn add(
    igd: &Igd,
    proto: Proto,
    inside: SocketAddr,
    liked: u16,
    lease: u32,
) -> Result<(u16, u32), Failure> {
    let proto = protocol(proto);
    let one = |lease| async move { igd.add_port(proto, liked, inside, lease, DESCRIPTION).await };
    let asked = async {
        match one(lease).await {
            Ok(()) => return Ok((liked, lease)),
            // It is ours to take back.
            Err(AddPortError::OnlyPermanentLeasesSupported) if one(0).await.is_ok() => return Ok((liked, 0)),
            Err(AddPortError::ActionNotAuthorized) => return Err(not_allowed()),
            Err(AddPortError::RequestError(error)) => return Err(refused(error)),
            Err(_) => {}
        }
        match igd.add_any_port(proto, inside, lease, DESCRIPTION).await {
            Ok(0) => Err(Failure::Nonsense("port 0".into())),
            Ok(port) => Ok((port, lease)),
            Err(AddAnyPortError::ActionNotAuthorized) => Err(not_allowed()),
            Err(AddAnyPortError::RequestError(error)) => Err(refused(error)),
            Err(error) => Err(Failure::Refused { code: 0, why: shown(&error.to_string()) }),
        }
    };
    in_time(asked).await
}

/// Closes it again.
pub(super) async fn remove(igd: &Igd, proto: Proto, port: u16) -> Result<(), Failure> {
    let asked = async {
        match igd.remove_port(protocol(proto), port).await {
            Ok(()) | Err(RemovePortError::NoSuchPortMapping) => Ok(()),
            Err(RemovePortError::ActionNotAuthorized) => Err(not_allowed()),
            Err(RemovePortError::RequestError(error)) => Err(refused(error)),
        }
    };
    in_time(asked).await
}

// ---- IPv6

/// The firewall of a place's gateway.
pub(super) async fn search_firewall(place: &Place) -> Result<Firewall, Failure> {
    let mut options = SearchOptions::ipv6(place.route.interface().index());
    options.timeout = Some(SEARCH);
    options.single_search_timeout = Some(SEARCH);
    options.gateway_ip_version = GatewayIpVersion::V6;
    // It answers from its link-local address, and is described at the one that routes name.
    options.allowed_gateway_ips = place.gateway.into_iter().collect();
    let found = timeout(SEARCH, search_ipv6_firewall_gateway(options)).await.map_err(|_| Failure::NoAnswer)?;
    found.map_err(not_found)
}

/// Opens a pinhole to a port of ours: its number, to name it by.
pub(super) async fn add_pinhole(
    firewall: &Firewall,
    proto: Proto,
    inside: SocketAddrV6,
    lease: u32,
) -> Result<u16, Failure> {
    let lease = lease.clamp(1, LONGEST_PINHOLE);
    in_time(async { firewall.add_pinhole(protocol(proto), inside, lease).await.map_err(no_pinhole) }).await
}

/// Keeps it for longer.
pub(super) async fn update_pinhole(firewall: &Firewall, id: u16, lease: u32) -> Result<(), Failure> {
    let lease = lease.clamp(1, LONGEST_PINHOLE);
    in_time(async { firewall.update_pinhole(id, lease).await.map_err(no_pinhole) }).await
}

/// Closes it.
pub(super) async fn remove_pinhole(firewall: &Firewall, id: u16) -> Result<(), Failure> {
    in_time(async { firewall.remove_pinhole(id).await.map_err(no_pinhole) }).await
}

/// Whether it opens pinholes at all.
pub(super) async fn pinholes_allowed(firewall: &Firewall) -> Result<bool, Failure> {
    let asked = async { firewall.get_firewall_status().await.map_err(no_pinhole) };
    in_time(asked).await.map(|status| status.inbound_pinhole_allowed)
}

fn no_pinhole(error: PinholeError) -> Failure {
    match error {
        PinholeError::RequestError(error) => refused(error),
        PinholeError::ActionNotAuthorized => not_allowed(),
        error => Failure::Refused { code: 0, why: shown(&error.to_string()) },
    }
}

// ---- what it says

fn not_allowed() -> Failure {
    Failure::Refused { code: 606, why: "not allowed".into() }
}

fn refused(error: RequestError) -> Failure {
    match error {
        RequestError::ErrorCode(code, why) => Failure::Refused { code, why: shown(&why) },
        RequestError::IoError(error) => error.into(),
        error => Failure::Nonsense(shown(&error.to_string())),
    }
}

/// A stranger's words, as they may be shown on a terminal.
fn shown(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateways_words_are_cut_and_can_not_play_with_a_terminal() {
        let said = shown(&format!("no\u{1b}[2J\r\n{}", "x".repeat(1 << 16)));
        assert!(said.starts_with("no[2Jxxx") && said.chars().count() == SHOWN, "{said}");
    }
}
