//! Waits: names turned into addresses, one family at a time, by hickory.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RecordType;

use super::{Family, ResolveError};

/// Turns names into addresses, by the system's configuration and hosts file or by given servers.
///
/// It keeps answers for as long as they are valid; clones share them. It belongs to the runtime
/// that it is first used on.
#[derive(Clone, Debug)]
pub struct Resolver(Arc<Families>);

#[derive(Debug)]
struct Families {
    v4: TokioResolver,
    v6: TokioResolver,
}

impl Resolver {
    /// By the system's configuration (`/etc/resolv.conf`, `/etc/hosts`).
    ///
    /// # Errors
    /// [`ResolveError::Configuration`] when it can not be read.
    pub fn system() -> Result<Self, ResolveError> {
        let builder = || TokioResolver::builder_tokio().map_err(configuration);
        let make = |strategy| -> Result<TokioResolver, ResolveError> {
            let mut builder = builder()?;
            builder.options_mut().ip_strategy = strategy;
            builder.build().map_err(configuration)
        };
        Ok(Self(Arc::new(Families { v4: make(LookupIpStrategy::Ipv4Only)?, v6: make(LookupIpStrategy::Ipv6Only)? })))
    }

    /// By these name servers, over UDP and then TCP; the hosts file still comes first.
    ///
    /// # Errors
    /// [`ResolveError::Configuration`] when the list is empty.
    pub fn with_servers(servers: &[SocketAddr]) -> Result<Self, ResolveError> {
        if servers.is_empty() {
            return Err(ResolveError::Configuration { reason: "no name server was given".into() });
        }
        let make = |strategy| {
            let config = ResolverConfig::from_name_servers(servers.iter().copied().map(name_server).collect());
            let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            builder.options_mut().ip_strategy = strategy;
            builder.build().map_err(configuration)
        };
        Ok(Self(Arc::new(Families { v4: make(LookupIpStrategy::Ipv4Only)?, v6: make(LookupIpStrategy::Ipv6Only)? })))
    }

    /// Forgets what it knows of a name: the next lookup asks the servers, however long the answer was to be valid.
    pub fn forget(&self, name: &str) {
        self.0.v4.clear_lookup_cache(name, RecordType::A);
        self.0.v6.clear_lookup_cache(name, RecordType::AAAA);
    }

    /// The addresses of a name in one family; none where the name has none in it.
    ///
    /// # Errors
    /// [`ResolveError::TimedOut`] after `limit`, [`ResolveError::Failed`] when the servers fail.
    ///
    /// Cancel safe: dropping the future ends the query.
    pub async fn lookup(&self, name: &str, family: Family, limit: Duration) -> Result<Vec<IpAddr>, ResolveError> {
        let resolver = match family {
            Family::V4 => &self.0.v4,
            Family::V6 => &self.0.v6,
        };
        match tokio::time::timeout(limit, resolver.lookup_ip(name)).await {
            Err(_) | Ok(Err(NetError::Timeout)) => Err(ResolveError::TimedOut { name: name.to_owned(), limit }),
            Ok(Ok(found)) => Ok(found.iter().filter(|ip| Family::of(*ip) == family).collect()),
            Ok(Err(error)) if error.is_no_records_found() || error.is_nx_domain() => Ok(Vec::new()),
            Ok(Err(error)) => Err(ResolveError::Failed { name: name.to_owned(), reason: error.to_string() }),
        }
    }
}

fn name_server(addr: SocketAddr) -> NameServerConfig {
    let on_port = |mut connection: ConnectionConfig| {
        connection.port = addr.port();
        connection
    };
    NameServerConfig::new(addr.ip(), true, vec![on_port(ConnectionConfig::udp()), on_port(ConnectionConfig::tcp())])
}

fn configuration(error: impl std::fmt::Display) -> ResolveError {
    ResolveError::Configuration { reason: error.to_string() }
}
