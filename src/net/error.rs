//! Holds: the errors of listing interfaces, choosing routes, resolving names and making sockets.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use super::Family;

/// Why the machine's interfaces could not be listed, or the wanted one was not among them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InterfaceError {
    /// The kernel refused to list the interfaces.
    #[error("cannot list the interfaces of this machine: {source}")]
    List {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No interface has this name. `natpipe interfaces` lists those that exist.
    #[error("no interface named `{name}`; this machine has: {present}")]
    NoSuchName {
        /// The name that was asked for.
        name: String,
        /// The names that exist, comma-separated.
        present: String,
    },
    /// No interface has this address.
    #[error("no interface has the address {ip}")]
    NoSuchAddress {
        /// The address that was asked for.
        ip: IpAddr,
    },
    /// The machine has no default route for this family: it is offline, or has only the other family.
    #[error("no default route for {family}")]
    NoDefaultRoute {
        /// The family that was asked for.
        family: Family,
    },
}

/// Why a route could not be had or bound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The interface has no address of this family.
    #[error("interface `{interface}` has no {family} address")]
    NoAddress {
        /// The interface's name.
        interface: String,
        /// The family that was asked for.
        family: Family,
    },
    /// The address is not one of the route's own.
    #[error("{ip} is not an address of interface `{interface}`")]
    NotOnInterface {
        /// The interface's name.
        interface: String,
        /// The address that was asked for.
        ip: IpAddr,
    },
}

impl From<RouteError> for io::Error {
    fn from(error: RouteError) -> Self {
        Self::new(io::ErrorKind::AddrNotAvailable, error)
    }
}

/// Why a name did not become addresses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The system's resolver configuration could not be read.
    #[error("cannot read the system's resolver configuration: {reason}")]
    Configuration {
        /// What is wrong with it.
        reason: String,
    },
    /// No server answered within `dns_timeout`.
    #[error("no name server answered for `{name}` within {limit:?}")]
    TimedOut {
        /// The name that was asked for.
        name: String,
        /// The limit, `dns_timeout`.
        limit: Duration,
    },
    /// The name does not exist, or has no address of a family that can be used.
    #[error("`{name}` has no address")]
    NoSuchName {
        /// The name that was asked for.
        name: String,
    },
    /// The servers failed or refused.
    #[error("cannot resolve `{name}`: {reason}")]
    Failed {
        /// The name that was asked for.
        name: String,
        /// What the resolver said.
        reason: String,
    },
}

/// What was being done to a socket when the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SocketStep {
    /// Making the socket.
    Create,
    /// Setting the option of this name.
    Option(&'static str),
    /// Binding it to the interface.
    BindInterface,
    /// Binding it to the local address.
    Bind,
    /// Listening.
    Listen,
    /// Handing it to the runtime.
    Register,
}

impl fmt::Display for SocketStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create => f.write_str("make a socket"),
            Self::Option(name) => write!(f, "set {name}"),
            Self::BindInterface => f.write_str("bind to the interface"),
            Self::Bind => f.write_str("bind"),
            Self::Listen => f.write_str("listen"),
            Self::Register => f.write_str("register the socket with the runtime"),
        }
    }
}

/// The kernel refused a socket: what was being done, for which local address, and what is missing.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} for {target}: {source}{}", hint(*.step, .source))]
pub struct SocketError {
    /// What was being done.
    pub step: SocketStep,
    /// The local address and interface, as text.
    pub target: String,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

impl SocketError {
    /// What is missing, for a person; empty when the kernel's word says it all.
    pub fn hint(&self) -> &'static str {
        hint(self.step, &self.source)
    }
}

impl From<SocketError> for io::Error {
    fn from(error: SocketError) -> Self {
        Self::new(error.source.kind(), error)
    }
}

fn hint(step: SocketStep, source: &io::Error) -> &'static str {
    use io::ErrorKind as K;
    match (step, source.kind()) {
        (SocketStep::BindInterface, K::PermissionDenied) => {
            "; the socket is bound to another interface already, or this kernel wants CAP_NET_RAW (before Linux 5.7)"
        }
        (SocketStep::BindInterface, _) if source.raw_os_error() == Some(libc::ENODEV) => "; the interface has vanished",
        (SocketStep::Bind, K::AddrInUse) => "; another socket has this port: choose another, or set reuse_addr on both",
        (SocketStep::Bind, K::AddrNotAvailable) => "; no interface of this machine has this address now",
        (SocketStep::Bind, K::PermissionDenied) => {
            "; ports below 1024 want CAP_NET_BIND_SERVICE (or root), Unix paths a folder that can be written"
        }
        (SocketStep::Create, _) if source.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            "; this machine does not have the address family"
        }
        (SocketStep::Create, _) if source.raw_os_error() == Some(libc::EPROTONOSUPPORT) => {
            "; sock_proto names a protocol that does not fit this kind of socket"
        }
        (_, _) if source.raw_os_error() == Some(libc::EMFILE) => {
            "; this process has no file descriptor left (ulimit -n)"
        }
        _ => "",
    }
}
