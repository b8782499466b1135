//! Waits: one handler on many listeners.

use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;

use bytes::Bytes;

use super::callbacks::{OnMessage, OnUp, on_message, on_up};
use super::{Addr, Dest, NetConf, OpenError, OpenFailure, Outcome, Pipe, Proto, pipe_open};
use crate::net::{Family, Interface, InterfaceError, Route, Scope};

/// Why one listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {target} ({proto}): {source}")]
pub struct ListenError {
    /// Where it was to listen.
    pub target: String,
    /// The protocol.
    pub proto: Proto,
    /// Why it failed.
    #[source]
    pub source: OpenError,
}

impl ListenError {
    fn is_port_taken(&self) -> bool {
        matches!(self.source.kind(), OpenFailure::Socket(error) if error.source.kind() == std::io::ErrorKind::AddrInUse)
    }
}

/// Free ports tried until one is found that is free in both families.
const FREE_PORT_TRIES: u32 = 16;

/// Why a daemon does not listen where it was told to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The interfaces could not be listed.
    #[error(transparent)]
    Interfaces(#[from] InterfaceError),
    /// A listener could not be opened; those opened before it stay.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// There is no address of the kind to listen on.
    #[error("this machine has no {0} address to listen on")]
    Nowhere(&'static str),
}

/// One handler on many listeners: over protocols, address families and interfaces.
///
/// [`close`](Self::close) ends the listeners and their clients; dropping it does the same without waiting.
pub struct Daemon {
    conf: NetConf,
    message: Option<OnMessage>,
    up: Option<OnUp>,
    listeners: Mutex<Vec<Pipe>>,
}

impl Daemon {
    /// A daemon that hands every message of every client, of every listener, to `handler`. Its
    /// listeners are opened with `conf` and `reuse_addr`, so that a daemon can begin again at once.
    pub fn new<F, R, S>(conf: NetConf, handler: F) -> Self
    where
        F: Fn(Bytes, Addr, Pipe) -> R + Send + Sync + 'static,
        R: Outcome<S>,
    {
        Self { conf: conf.reuse_addr(true), message: Some(on_message(handler)), up: None, listeners: Mutex::default() }
    }

    /// A daemon that hands each connection to `handler`, which owns it. For streams.
    pub fn per_connection<F, R, S>(conf: NetConf, handler: F) -> Self
    where
        F: Fn(Pipe) -> R + Send + Sync + 'static,
        R: Outcome<S>,
    {
        Self { conf: conf.reuse_addr(true), message: None, up: Some(on_up(handler)), listeners: Mutex::default() }
    }

    /// Listens on every address of this machine, of both families where it has them. Port 0 takes a
    /// free port, the same one for both families. Returns the addresses.
    ///
    /// # Errors
    /// [`DaemonError::Listen`] for the first listener that could not be opened.
    pub async fn listen_all(&self, proto: Proto, port: u16) -> Result<Vec<SocketAddr>, DaemonError> {
        let any = Family::BOTH.map(Family::unspecified);
        self.listen_each(proto, port, any.into_iter().filter(|ip| has_family(*ip)).collect(), "usable").await
    }

    /// Listens on the loopback addresses of both families.
    ///
    /// # Errors
    /// As [`listen_all`](Self::listen_all).
    pub async fn listen_loopback(&self, proto: Proto, port: u16) -> Result<Vec<SocketAddr>, DaemonError> {
        let loopback = Family::BOTH.map(Family::loopback);
        self.listen_each(proto, port, loopback.into_iter().filter(|ip| has_family(*ip)).collect(), "loopback").await
    }

    /// Listens on every address that only the local network reaches: private, unique-local and
    /// link-local ones, each by its own interface; not on those of a carrier's NAT (100.64.0.0/10), which its other
    /// customers may reach.
    ///
    /// # Errors
    /// As [`listen_all`](Self::listen_all); [`DaemonError::Nowhere`] when the machine has no such address.
    pub async fn listen_local(&self, proto: Proto, port: u16) -> Result<Vec<SocketAddr>, DaemonError> {
        let mut found = Vec::new();
        for interface in Interface::list()?.into_iter().filter(|i| i.flags().up) {
            for route in Family::BOTH.into_iter().flat_map(|family| interface.routes(family)) {
                let ips: Vec<IpAddr> = route.nic().iter().copied().filter(|ip| is_local(*ip)).collect();
                for bound in ips.into_iter().filter_map(|ip| route.bind_to(ip, port).ok()) {
                    found.push(self.add_listener(proto, &bound).await?);
                }
            }
        }
        if found.is_empty() { Err(DaemonError::Nowhere("local")) } else { Ok(found) }
    }

    /// Listens on a route. Returns the address.
    ///
    /// # Errors
    /// [`DaemonError::Listen`].
    pub async fn add_listener(&self, proto: Proto, route: &Route) -> Result<SocketAddr, DaemonError> {
        let target = route.local().to_string();
        let opened = self.handled(pipe_open(proto).route(route)).await;
        let pipe = opened.map_err(|source| ListenError { target, proto, source })?;
        self.keep(vec![pipe]).pop().ok_or(DaemonError::Nowhere("numeric"))
    }

    /// The listeners, in the order in which they were opened.
    pub fn listeners(&self) -> Vec<Pipe> {
        self.listeners.lock().map(|pipes| pipes.clone()).unwrap_or_default()
    }

    /// Closes every listener and every client, and returns when their ports are free.
    pub async fn close(&self) {
        let pipes = self.listeners.lock().map(|mut pipes| std::mem::take(&mut *pipes)).unwrap_or_default();
        for pipe in pipes {
            pipe.close().await;
        }
    }

    async fn listen_each(
        &self,
        proto: Proto,
        port: u16,
        ips: Vec<IpAddr>,
        kind: &'static str,
    ) -> Result<Vec<SocketAddr>, DaemonError> {
        if ips.is_empty() {
            return Err(DaemonError::Nowhere(kind));
        }
        let mut tries = if port == 0 { FREE_PORT_TRIES } else { 1 };
        loop {
            tries -= 1;
            let (opened, failed) = self.open_each(proto, port, &ips).await;
            match failed {
                // A port that is free in one family may be taken in the other: another one then.
                Some(error) if tries > 0 && error.is_port_taken() => {}
                Some(error) => {
                    self.keep(opened);
                    return Err(error.into());
                }
                None => return Ok(self.keep(opened)),
            }
        }
    }

    /// One listener on each address, all on the port of the first, up to the first that fails.
    async fn open_each(&self, proto: Proto, port: u16, ips: &[IpAddr]) -> (Vec<Pipe>, Option<ListenError>) {
        let mut opened: Vec<Pipe> = Vec::new();
        for ip in ips {
            let port = opened.first().and_then(|pipe| pipe.local_addr().port()).unwrap_or(port);
            let addr = SocketAddr::new(*ip, port);
            match self.handled(pipe_open(proto).bind(Dest::Addr(addr))).await {
                Ok(pipe) => opened.push(pipe),
                Err(source) => return (opened, Some(ListenError { target: addr.to_string(), proto, source })),
            }
        }
        (opened, None)
    }

    /// Owns these listeners from now on, and tells their addresses.
    fn keep(&self, opened: Vec<Pipe>) -> Vec<SocketAddr> {
        let addrs = opened.iter().filter_map(|pipe| pipe.local_addr().ip()).collect();
        if let Ok(mut pipes) = self.listeners.lock() {
            pipes.extend(opened);
        }
        addrs
    }

    fn handled(&self, opening: super::Opening) -> super::Opening {
        opening.conf(self.conf.clone()).only_v6().handlers(self.message.clone(), self.up.clone())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        for pipe in self.listeners() {
            pipe.core().begin_close();
        }
    }
}

/// True for what only the own network reaches.
fn is_local(ip: IpAddr) -> bool {
    matches!(Scope::of(ip), Scope::Private | Scope::UniqueLocal | Scope::LinkLocal)
}

/// True when the machine has the family of the address.
fn has_family(ip: IpAddr) -> bool {
    crate::net::socket::has_family(Family::of(ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_customers_of_a_carrier_reach_is_not_local() {
        let local = |ip: &str| is_local(ip.parse().unwrap());
        assert!(["10.0.0.1", "169.254.0.1", "fd00::1", "fe80::1"].into_iter().all(local));
        assert!(!["100.64.0.1", "127.0.0.1", "8.8.8.8", "2606:4700::1111"].into_iter().any(local));
    }
}
