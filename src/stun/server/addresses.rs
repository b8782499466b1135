//! Decides: which addresses a server has, and which is the other one (RFC 5780 section 6).

use std::net::SocketAddr;

use crate::stun::attribute::Change;

/// One of the up to four sockets of a server: two IP addresses by two ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Corner {
    /// On the alternate IP address.
    pub alternate_ip: bool,
    /// On the alternate port.
    pub alternate_port: bool,
}

impl Corner {
    /// The only socket of a server with one address.
    pub const PRIMARY: Self = Self { alternate_ip: false, alternate_port: false };
    /// The sockets of a server with two addresses.
    pub const ALL: [Self; 4] = [
        Self::PRIMARY,
        Self { alternate_ip: false, alternate_port: true },
        Self { alternate_ip: true, alternate_port: false },
        Self { alternate_ip: true, alternate_port: true },
    ];

    /// Where a CHANGE-REQUEST that comes here wants its answer to come from.
    pub fn changed(self, change: Change) -> Self {
        Self { alternate_ip: self.alternate_ip ^ change.ip, alternate_port: self.alternate_port ^ change.port }
    }
}

/// Two addresses that do not make a server for all tests of RFC 5780. Whoever configured them must change one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{primary} and {alternate} must be of one family, and differ in address and in port")]
pub struct AddressesError {
    /// The first.
    pub primary: SocketAddr,
    /// The second.
    pub alternate: SocketAddr,
}

/// A server's addresses in one family, as clients see them: behind a static translation these are not the bound ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Addresses {
    primary: Option<SocketAddr>,
    alternate: Option<SocketAddr>,
}

impl Addresses {
    /// One socket whose address is not known, for example bound to 0.0.0.0: answers name no address of the server.
    pub fn unknown() -> Self {
        Self::default()
    }

    /// One socket: mapping tests against several such servers are possible, filtering tests are not.
    pub fn one(address: SocketAddr) -> Self {
        Self { primary: Some(address), alternate: None }
    }

    /// Two IP addresses by two ports, four sockets: all tests.
    ///
    /// # Errors
    /// [`AddressesError`] if the two do not differ in IP address and in port, or are of two families.
    pub fn two(primary: SocketAddr, alternate: SocketAddr) -> Result<Self, AddressesError> {
        let differ = primary.ip() != alternate.ip() && primary.port() != alternate.port();
        if !differ || primary.is_ipv4() != alternate.is_ipv4() {
            return Err(AddressesError { primary, alternate });
        }
        Ok(Self { primary: Some(primary), alternate: Some(alternate) })
    }

    /// Whether there is a second address to answer from.
    pub fn has_alternate(&self) -> bool {
        self.alternate.is_some()
    }

    /// The address of a socket, if it is known and there is such a socket.
    pub fn at(&self, corner: Corner) -> Option<SocketAddr> {
        let primary = self.primary?;
        if corner == Corner::PRIMARY {
            return Some(primary);
        }
        let alternate = self.alternate?;
        let ip = if corner.alternate_ip { alternate.ip() } else { primary.ip() };
        let port = if corner.alternate_port { alternate.port() } else { primary.port() };
        Some(SocketAddr::new(ip, port))
    }

    /// The address that differs from `corner`'s in both: OTHER-ADDRESS, CHANGED-ADDRESS.
    pub fn other_than(&self, corner: Corner) -> Option<SocketAddr> {
        self.alternate?;
        self.at(corner.changed(Change { ip: true, port: true }))
    }
}
