//! Waits: the routers nearest to here, as they report that a packet's hops ran out: evidence of NATs in a row.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::timeout_at;

use crate::nat::{Finding, Layers, Why};
use crate::net::{Route, Scope, SocketOptions, socket, sys};

/// How far to look: a home, its building, its carrier, and one more.
const FURTHEST: u8 = 4;

/// How long reports are waited for; routers that limit theirs are not worth more.
const WAIT: Duration = Duration::from_millis(400);

/// What the routers on the way to `server` say of the NATs there; nothing where none reports.
pub(super) async fn layers(route: &Route, server: SocketAddr) -> Option<Finding<Layers>> {
    match nearest(route, server).await {
        Ok(hops) => judge(&hops),
        Err(error) => {
            tracing::debug!(%error, "the hops can not be asked");
            None
        }
    }
}

/// The routers at each number of hops, as far as they report.
async fn nearest(route: &Route, server: SocketAddr) -> io::Result<Vec<Option<IpAddr>>> {
    let sockets = probes(route, server)?;
    let until = Instant::now() + WAIT;
    let mut found = Vec::new();
    for socket in &sockets {
        let heard = socket.async_io(Interest::ERROR, || sys::take_error(socket, route.family()));
        found.push(timeout_at(until.into(), heard).await.ok().and_then(Result::ok).flatten());
    }
    Ok(found)
}

/// Packets of one hop, two, and so on, each from a socket that keeps what is reported of it.
fn probes(route: &Route, server: SocketAddr) -> io::Result<Vec<UdpSocket>> {
    let mut sockets = Vec::new();
    for hops in 1..=FURTHEST {
        let options = SocketOptions { ttl: Some(hops), ..SocketOptions::default() };
        let socket = UdpSocket::from_std(socket::datagram(&route.local(), &options)?.into())?;
        sys::keep_errors(&socket, route.family())?;
        // To where STUN is: a firewall lets it pass as it did the tests. What arrives is no request and is ignored.
        socket::send_now(&socket, &[0], server)?;
        sockets.push(socket);
    }
    Ok(sockets)
}

/// The number of hops after which a packet has left the NATs that are our own: it dies at the first router beyond them.
/// Routers that do not report within `wait` are taken to be beyond.
#[cfg(feature = "punch")]
pub(crate) async fn own_hops(route: &Route, server: SocketAddr, wait: Duration) -> Option<u8> {
    let until = Instant::now() + wait;
    let sockets = probes(route, server).ok()?;
    let mut reported = false;
    for (hops, socket) in (1..).zip(&sockets) {
        let heard = socket.async_io(Interest::ERROR, || sys::take_error(socket, route.family()));
        let router = timeout_at(until.into(), heard).await.ok().and_then(Result::ok).flatten();
        reported |= router.is_some();
        if !router.is_some_and(|ip| matches!(Scope::of(ip), Scope::Private | Scope::Shared)) {
            return reported.then_some(hops);
        }
    }
    Some(FURTHEST)
}

/// A carrier's addresses anywhere on the way are a carrier's NAT. Private ones beyond the first router are another
/// network inside, which may or may not translate. A public one right behind the first router leaves room for one NAT.
fn judge(hops: &[Option<IpAddr>]) -> Option<Finding<Layers>> {
    let scope = |ip: IpAddr| match Scope::of(ip) {
        Scope::Shared => Scope::Shared,
        Scope::Private | Scope::UniqueLocal | Scope::LinkLocal => Scope::Private,
        _ => Scope::Global,
    };
    let scopes: Vec<Option<Scope>> = hops.iter().map(|hop| hop.map(scope)).collect();
    if scopes.contains(&Some(Scope::Shared)) {
        return Some(Finding::Known(Layers::Carrier));
    }
    match scopes.get(1)? {
        Some(Scope::Private) => Some(Finding::AtLeast(Layers::One)),
        Some(_) => Some(Finding::Known(Layers::One)),
        None => Some(Finding::Untested(Why::NoRouterAddress)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_are_evidence_of_what_they_can_be() {
        let said = |hops: &[&str]| judge(&hops.iter().map(|hop| hop.parse().ok()).collect::<Vec<_>>());
        assert_eq!(said(&["192.168.1.1", "100.64.0.1", "9.9.9.9"]), Some(Finding::Known(Layers::Carrier)));
        assert_eq!(said(&["192.168.1.1", "9.9.9.9"]), Some(Finding::Known(Layers::One)));
        assert_eq!(said(&["192.168.1.1", "10.0.0.1", "9.9.9.9"]), Some(Finding::AtLeast(Layers::One)));
        assert_eq!(said(&["192.168.1.1", "", "9.9.9.9"]), Some(Finding::Untested(Why::NoRouterAddress)));
        assert_eq!(said(&[]), None);
    }
}
