//! Decides: what each address has used: connections, unfinished handshakes, the relay's quota.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use super::super::limits::{Limits, QUOTA_PERIOD};
use crate::base::bucket::Bucket;

/// How many connections an address may begin at once, as seconds of its rate.
const BURST_SECONDS: u64 = 10;
/// Addresses without a connection that are remembered for what they have used.
const REMEMBERED: usize = 20_000;

/// Addresses by what one user commonly has.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    known: HashMap<IpAddr, Account>,
    handshakes: usize,
}

#[derive(Debug)]
struct Account {
    connections: usize,
    handshakes: usize,
    connects: Bucket,
    quota: Bucket,
}

/// An IPv4 address, or an IPv6 /64: whoever has one of it has all.
fn user_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
    }
}

impl Accounts {
    /// A connection comes from there. False when a limit turns it away; then it does not count.
    pub(super) fn arrive(&mut self, now: Instant, ip: IpAddr, limits: &Limits) -> bool {
        if self.known.len() >= REMEMBERED {
            self.forget(now);
        }
        let account = self.known.entry(user_of(ip)).or_insert_with(|| Account {
            connections: 0,
            handshakes: 0,
            connects: Bucket::new(limits.connects, limits.connects * BURST_SECONDS, now),
            quota: Bucket::per(limits.quota, QUOTA_PERIOD, now),
        });
        let room = account.connections < limits.per_address
            && account.handshakes < limits.per_address.div_ceil(4)
            && self.handshakes < limits.handshakes;
        if !room || !account.connects.take(1, now) {
            return false;
        }
        account.connections += 1;
        account.handshakes += 1;
        self.handshakes += 1;
        true
    }

    /// A connection has proved a key, or has failed to.
    pub(super) fn shaken(&mut self, ip: IpAddr) {
        if let Some(account) = self.known.get_mut(&user_of(ip)) {
            account.handshakes = account.handshakes.saturating_sub(1);
            self.handshakes = self.handshakes.saturating_sub(1);
        }
    }

    /// A connection has ended.
    pub(super) fn leave(&mut self, ip: IpAddr) {
        if let Some(account) = self.known.get_mut(&user_of(ip)) {
            account.connections = account.connections.saturating_sub(1);
        }
    }

    /// Takes bytes from an address's quota.
    pub(super) fn spend(&mut self, now: Instant, ip: IpAddr, bytes: usize) -> bool {
        self.known.get_mut(&user_of(ip)).is_none_or(|account| account.quota.take(bytes as u64, now))
    }

    /// Forgets those who have nothing and have used nothing lately; when all have, those without connections.
    pub(super) fn forget(&mut self, now: Instant) {
        self.known.retain(|_, account| {
            account.connections > 0 || !account.connects.is_full(now) || !account.quota.is_full(now)
        });
        if self.known.len() >= REMEMBERED {
            self.known.retain(|_, account| account.connections > 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_can_not_take_what_others_need() {
        let (mut accounts, now) = (Accounts::default(), Instant::now());
        let limits = Limits::default().per_address(8).connects(0);
        let came = (0..100).filter(|_| accounts.arrive(now, ip("192.0.2.1"), &limits)).count();
        assert_eq!(came, 2, "a quarter may be unfinished");
        assert!(accounts.arrive(now, ip("192.0.2.2"), &limits));
        accounts.shaken(ip("192.0.2.1"));
        assert!(accounts.arrive(now, ip("::ffff:192.0.2.1"), &limits), "the same address");
        assert!(!accounts.arrive(now, ip("192.0.2.1"), &limits));
    }

    #[test]
    fn one_ipv6_network_is_one_user() {
        let (mut accounts, now) = (Accounts::default(), Instant::now());
        let limits = Limits::default().per_address(4).connects(0);
        assert!(accounts.arrive(now, ip("2001:db8::1"), &limits));
        assert!(!accounts.arrive(now, ip("2001:db8::2"), &limits));
        assert!(accounts.arrive(now, ip("2001:db8:0:1::2"), &limits));
    }

    #[test]
    fn what_an_address_has_used_outlives_its_connections() {
        let (mut accounts, now) = (Accounts::default(), Instant::now());
        let limits = Limits::default().quota(1000);
        assert!(accounts.arrive(now, ip("192.0.2.1"), &limits));
        assert!(accounts.spend(now, ip("192.0.2.1"), 900));
        accounts.shaken(ip("192.0.2.1"));
        accounts.leave(ip("192.0.2.1"));
        accounts.forget(now);
        assert!(accounts.arrive(now, ip("192.0.2.1"), &limits));
        assert!(!accounts.spend(now, ip("192.0.2.1"), 200));
        accounts.leave(ip("192.0.2.1"));
        accounts.forget(now + QUOTA_PERIOD);
        assert!(accounts.known.is_empty());
    }
}
