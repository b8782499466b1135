//! Holds: what a rendezvous server grants: to a peer, to an address, and in all.

use std::time::Duration;

/// What a server grants. Each setter tells its default.
#[derive(Clone, Debug)]
pub struct Limits {
    pub(super) peers: usize,
    pub(super) per_address: usize,
    pub(super) handshakes: usize,
    pub(super) connects: u64,
    pub(super) signals: u64,
    pub(super) pairs: usize,
    pub(super) pairs_per_peer: usize,
    pub(super) window: u32,
    pub(super) buffer: usize,
    pub(super) rate: u64,
    pub(super) quota: u64,
    pub(super) keepalive: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            peers: 50_000,
            per_address: 1_000,
            handshakes: 2_000,
            connects: 50,
            signals: 100,
            pairs: 10_000,
            pairs_per_peer: 256,
            window: 1 << 20,
            buffer: 256 << 20,
            rate: 0,
            quota: 0,
            keepalive: Duration::from_secs(30),
        }
    }
}

/// The period in which a used quota comes back.
pub(super) const QUOTA_PERIOD: Duration = Duration::from_secs(24 * 60 * 60);

impl Limits {
    /// Peers in all. Default 50,000, some 20 KiB each.
    pub fn peers(self, most: usize) -> Self {
        Self { peers: most, ..self }
    }

    /// Connections of one address (IPv4, or an IPv6 /64), registered or not. Default 1,000: many users share one
    /// address behind their provider's NAT. A quarter of them may be unfinished handshakes.
    pub fn per_address(self, most: usize) -> Self {
        Self { per_address: most, ..self }
    }

    /// Connections in all that have not yet proved a key. Default 2,000.
    pub fn handshakes(self, most: usize) -> Self {
        Self { handshakes: most, ..self }
    }

    /// New connections that an address may begin each second in the long run, ten times as many at once. Default 50; 0: no limit.
    pub fn connects(self, per_second: u64) -> Self {
        Self { connects: per_second, ..self }
    }

    /// Sealed messages that a peer may send each second in the long run, five times as many at once. Default 100; 0: no limit.
    pub fn signals(self, per_second: u64) -> Self {
        Self { signals: per_second, ..self }
    }

    /// Relayed streams in all. Default 10,000; 0 turns the relay off.
    pub fn pairs(self, most: usize) -> Self {
        Self { pairs: most, ..self }
    }

    /// Relayed streams of one peer. Default 256.
    pub fn pairs_per_peer(self, most: usize) -> Self {
        Self { pairs_per_peer: most, ..self }
    }

    /// Bytes of one direction of a relayed stream that may be on their way: with it comes the rate over a long distance (window
    /// divided by round trip). Default 1 MiB, at least 64 KiB.
    pub fn window(self, bytes: u32) -> Self {
        Self { window: bytes.max(super::wire::FIRST_WINDOW), ..self }
    }

    /// Relayed bytes that the server holds in all, for receivers slower than their senders; one peer may have a
    /// sixteenth of it waiting. Default 256 MiB.
    pub fn buffer(self, bytes: usize) -> Self {
        Self { buffer: bytes, ..self }
    }

    /// Bytes that each peer may send through the relay each second. Default 0: no limit.
    pub fn rate(self, bytes_per_second: u64) -> Self {
        Self { rate: bytes_per_second, ..self }
    }

    /// Bytes that each address may send through the relay in 24 hours, coming back evenly. Default 0: no limit.
    pub fn quota(self, bytes: u64) -> Self {
        Self { quota: bytes, ..self }
    }

    /// A peer that has sent nothing for so long sends a ping; after three times as long without a word the server ends the
    /// connection. Default 30 s, which keeps NATs' mappings of TCP alive. Whole seconds, at least one.
    pub fn keepalive(self, period: Duration) -> Self {
        Self { keepalive: Duration::from_secs(period.as_secs().clamp(1, 3600)), ..self }
    }
}
