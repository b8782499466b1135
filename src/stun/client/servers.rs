//! Waits: the names of servers turned into addresses.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::base::task::Nursery;
use crate::net::{Family, ResolveError, Resolver};

/// The port of STUN over UDP and TCP (RFC 8489 section 8).
pub const PORT: u16 = 3478;
/// The port of STUN over TLS.
pub const TLS_PORT: u16 = 5349;

/// A server, by name or by address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerName {
    host: String,
    port: Option<u16>,
    /// The zone of a link-local address; 0 for none.
    zone: u32,
}

/// A server's name that can not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no STUN server: expected host, host:port, or [address]:port")]
pub struct ServerNameError(String);

impl std::str::FromStr for ServerName {
    type Err = ServerNameError;

    fn from_str(text: &str) -> Result<Self, ServerNameError> {
        let wrong = || ServerNameError(text.to_owned());
        let rest = text.strip_prefix("stun:").unwrap_or(text);
        if let Ok(addr) = rest.parse::<SocketAddr>() {
            return Ok(addr.into());
        }
        if let Ok(ip) = rest.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(Self { host: ip.to_string(), port: None, zone: 0 });
        }
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?)),
            None => (rest, None),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if host.is_empty() || host.len() > 253 || !host.chars().all(plain) {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port, zone: 0 })
    }
}

impl std::fmt::Display for ServerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.port, self.host.contains(':')) {
            (Some(port), true) if self.zone != 0 => write!(f, "[{}%{}]:{port}", self.host, self.zone),
            (Some(port), true) => write!(f, "[{}]:{port}", self.host),
            (Some(port), false) => write!(f, "{}:{port}", self.host),
            (None, _) => f.write_str(&self.host),
        }
    }
}

impl From<SocketAddr> for ServerName {
    fn from(addr: SocketAddr) -> Self {
        let zone = if let SocketAddr::V6(v6) = addr { v6.scope_id() } else { 0 };
        Self { host: addr.ip().to_string(), port: Some(addr.port()), zone }
    }
}

impl ServerName {
    pub(crate) fn host(&self) -> &str {
        &self.host
    }
}

/// What became of the names.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    /// Addresses in the order of the servers, with the index of the server each belongs to.
    pub(crate) addrs: Vec<(usize, SocketAddr)>,
    /// Names that could not be resolved.
    pub(crate) failed: Vec<ResolveError>,
}

/// Looks up all names at once, in these families. A server has one address of each that it has.
pub(crate) async fn resolve(
    servers: &[ServerName],
    families: &[Family],
    resolver: Option<Resolver>,
    limit: Duration,
    default_port: u16,
) -> Resolved {
    let mut resolved = Resolved::default();
    let mut lookups = Nursery::new(&Handle::current());
    let mut system = resolver;
    for (index, server) in servers.iter().enumerate() {
        let port = server.port.unwrap_or(default_port);
        if let Ok(ip) = server.host.parse::<IpAddr>() {
            if families.contains(&Family::of(ip)) {
                resolved.addrs.push((index, zoned((ip, port).into(), server.zone)));
            }
            continue;
        }
        let resolver = match system.clone().map_or_else(Resolver::system, Ok) {
            Ok(resolver) => system.insert(resolver).clone(),
            Err(error) => {
                resolved.failed.push(error);
                continue;
            }
        };
        for family in families.iter().copied() {
            let (resolver, name) = (resolver.clone(), server.host.clone());
            lookups.begin(async move { (index, port, resolver.lookup(&name, family, limit).await, name) });
        }
    }
    while !lookups.is_empty() {
        match lookups.next().await {
            Some((index, port, Ok(ips), _)) => {
                resolved.addrs.extend(ips.first().map(|ip| (index, (*ip, port).into())));
            }
            Some((_, _, Err(error), _)) => resolved.failed.push(error),
            None => {}
        }
    }
    resolved.addrs.sort_by_key(|(index, _)| *index);
    let found = |index| resolved.addrs.iter().any(|(at, _)| *at == index);
    for (index, server) in servers.iter().enumerate() {
        let named = server.host.parse::<IpAddr>().is_err();
        if named && !found(index) && !resolved.failed.iter().any(|error| is_about(error, &server.host)) {
            resolved.failed.push(ResolveError::NoSuchName { name: server.host.clone() });
        }
    }
    resolved
}

/// An address with its zone, where it has one.
fn zoned(mut addr: SocketAddr, zone: u32) -> SocketAddr {
    if let SocketAddr::V6(v6) = &mut addr {
        v6.set_scope_id(zone);
    }
    addr
}

/// True when a failure tells what became of a name.
fn is_about(error: &ResolveError, host: &str) -> bool {
    match error {
        // Without a resolver no name was asked for.
        ResolveError::Configuration { .. } => true,
        ResolveError::TimedOut { name, .. } | ResolveError::NoSuchName { name } | ResolveError::Failed { name, .. } => {
            name == host
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_read_with_and_without_a_port() {
        for (text, host, port) in [
            ("stun.example", "stun.example", None),
            ("stun.example:19302", "stun.example", Some(19302)),
            ("stun:stun.example:1", "stun.example", Some(1)),
            ("192.0.2.1", "192.0.2.1", None),
            ("192.0.2.1:3479", "192.0.2.1", Some(3479)),
            ("[2001:db8::1]:3479", "2001:db8::1", Some(3479)),
            ("2001:db8::1", "2001:db8::1", None),
        ] {
            assert_eq!(text.parse(), Ok(ServerName { host: host.to_owned(), port, zone: 0 }), "{text}");
        }
        for wrong in ["", ":3478", "host:", "host:0", "host:70000", "a b", "http://x/"] {
            assert!(wrong.parse::<ServerName>().is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_link_local_server_keeps_its_zone() {
        let server: ServerName = "[fe80::1%3]:3478".parse().unwrap();
        assert_eq!(server.to_string(), "[fe80::1%3]:3478");
        let resolved = resolve(&[server], &Family::BOTH, None, Duration::ZERO, PORT).await;
        assert_eq!(resolved.addrs, [(0, "[fe80::1%3]:3478".parse().unwrap())]);
    }

    #[test]
    fn a_failure_tells_of_its_own_name_only() {
        let error = ResolveError::NoSuchName { name: "stun.example.org".into() };
        assert!(is_about(&error, "stun.example.org") && !is_about(&error, "stun.example"));
    }
}
