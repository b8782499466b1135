//! Decides: how many requests a source may make: token buckets in a table of fixed size.

use std::net::IpAddr;
use std::time::Instant;

/// Sources that share a row of the table. A row is one to two cache lines.
const WAYS: usize = 4;
/// Tokens are counted in thousandths, so that a millisecond at one per second is one unit.
const TOKEN: u32 = 1000;
/// The largest burst that the unit can count.
const MOST_TOKENS: u32 = u32::MAX / TOKEN;
/// The largest table: 384 MiB.
const MOST_SOURCES: usize = 1 << 24;

/// How many requests each source may make. A source is an IPv4 address or an IPv6 /64, what one user commonly has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    per_second: u32,
    burst: u32,
    sources: usize,
}

impl Default for Limits {
    /// 50 a second after a burst of 200: several full reports at once from behind one shared address, and less than 20
    /// kB/s towards a victim whose address is forged. 16,384 sources are remembered, in 384 KiB.
    fn default() -> Self {
        Self { per_second: 50, burst: 200, sources: 16_384 }
    }
}

impl Limits {
    /// No limit and no memory for it: for measurements, and behind something else that limits.
    pub fn none() -> Self {
        Self { per_second: 0, burst: 0, sources: 0 }
    }

    /// Requests that a source may make each second in the long run. Default 50.
    pub fn per_second(mut self, requests: u32) -> Self {
        self.per_second = requests;
        self
    }

    /// Requests that a source may make at once. Default 200.
    pub fn burst(mut self, requests: u32) -> Self {
        self.burst = requests.min(MOST_TOKENS);
        self
    }

    /// How many sources are remembered, rounded up to a power of two, 24 bytes each; 0 turns the limit off. Beyond, a
    /// new source takes the place of the one among four that has used least. Default 16,384, at most 16,777,216.
    pub fn sources(mut self, sources: usize) -> Self {
        self.sources = sources.min(MOST_SOURCES);
        self
    }
}

/// One source's bucket. Family 0 is an empty place.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    prefix: u64,
    millis: u32,
    tokens: u32,
    family: u8,
}

/// The table.
#[derive(Debug)]
pub(super) struct Limiter {
    limits: Limits,
    keys: [u64; 2],
    start: Instant,
    rows: Box<[[Bucket; WAYS]]>,
}

impl Limiter {
    /// `keys` must be secret, or a stranger could choose whose place in the table to take.
    pub(super) fn new(limits: Limits, keys: [u64; 2], start: Instant) -> Self {
        let rows = match limits.sources {
            0 => 0,
            sources => sources.div_ceil(WAYS).next_power_of_two(),
        };
        Self { limits, keys, start, rows: vec![[Bucket::default(); WAYS]; rows].into_boxed_slice() }
    }

    /// Takes one request from the source's bucket; false if it is empty.
    pub(super) fn take(&mut self, now: Instant, ip: IpAddr) -> bool {
        if self.rows.is_empty() {
            return true;
        }
        // Wraps after 49 days: a source that was silent for as long is taken for one that was just heard.
        let millis = now.saturating_duration_since(self.start).as_millis() as u32;
        let (family, prefix) = source(ip);
        let row = hash(self.keys, prefix ^ u64::from(family)) as usize & (self.rows.len() - 1);
        let limits = self.limits;
        let row = &mut self.rows[row];
        let known = row.iter().position(|bucket| bucket.family == family && bucket.prefix == prefix);
        let at = known.unwrap_or_else(|| fullest(row, limits, millis));
        let bucket = &mut row[at];
        let tokens = if known.is_some() { bucket.refilled(limits, millis) } else { limits.burst * TOKEN };
        let left = tokens.checked_sub(TOKEN);
        *bucket = Bucket { prefix, millis, tokens: left.unwrap_or(tokens), family };
        left.is_some()
    }
}

impl Bucket {
    fn refilled(&self, limits: Limits, millis: u32) -> u32 {
        let elapsed = u64::from(millis.wrapping_sub(self.millis));
        let gained = elapsed.saturating_mul(u64::from(limits.per_second));
        gained.saturating_add(u64::from(self.tokens)).min(u64::from(limits.burst * TOKEN)) as u32
    }
}

/// The place whose owner loses least when it is taken: an empty one, else the fullest bucket.
fn fullest(row: &[Bucket; WAYS], limits: Limits, millis: u32) -> usize {
    let worth = |at: &usize| (row[*at].family == 0, row[*at].refilled(limits, millis));
    (0..WAYS).max_by_key(worth).unwrap_or(0)
}

/// What counts as one source: its family and its prefix.
pub(in crate::stun) fn source(ip: IpAddr) -> (u8, u64) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => (4, u64::from(ip.to_bits())),
        IpAddr::V6(ip) => (6, (ip.to_bits() >> 64) as u64),
    }
}

/// SipHash-1-3 of one word.
fn hash(keys: [u64; 2], word: u64) -> u64 {
    let mut v = [
        keys[0] ^ 0x736f_6d65_7073_6575,
        keys[1] ^ 0x646f_7261_6e64_6f6d,
        keys[0] ^ 0x6c79_6765_6e65_7261,
        keys[1] ^ 0x7465_6462_7974_6573,
    ];
    for block in [word, 8 << 56] {
        v[3] ^= block;
        sip_round(&mut v);
        v[0] ^= block;
    }
    v[2] ^= 0xff;
    (0..3).for_each(|_| sip_round(&mut v));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn sip_round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limiter(limits: Limits) -> (Limiter, Instant) {
        let start = Instant::now();
        (Limiter::new(limits, [1, 2], start), start)
    }

    fn taken(limiter: &mut Limiter, now: Instant, ip: &str) -> usize {
        let ip = ip.parse().unwrap();
        (0..1000).filter(|_| limiter.take(now, ip)).count()
    }

    #[test]
    fn a_source_has_its_burst_and_then_its_rate() {
        let (mut limiter, start) = limiter(Limits::default().per_second(10).burst(20));
        assert_eq!(taken(&mut limiter, start, "192.0.2.1"), 20);
        assert_eq!(taken(&mut limiter, start + Duration::from_millis(1500), "192.0.2.1"), 15);
        assert_eq!(taken(&mut limiter, start + Duration::from_secs(99), "192.0.2.1"), 20);
    }

    #[test]
    fn one_source_does_not_use_up_another() {
        let (mut limiter, start) = limiter(Limits::default().burst(5));
        assert_eq!(taken(&mut limiter, start, "192.0.2.1"), 5);
        assert_eq!(taken(&mut limiter, start, "192.0.2.2"), 5);
    }

    #[test]
    fn an_ipv6_network_is_one_source_and_its_neighbour_another() {
        let (mut limiter, start) = limiter(Limits::default().burst(5));
        assert_eq!(taken(&mut limiter, start, "2001:db8::1"), 5);
        assert_eq!(taken(&mut limiter, start, "2001:db8::2"), 0);
        assert_eq!(taken(&mut limiter, start, "2001:db8:0:1::2"), 5);
    }

    #[test]
    fn an_ipv4_address_is_the_same_source_through_an_ipv6_socket() {
        let (mut limiter, start) = limiter(Limits::default().burst(5));
        assert_eq!(taken(&mut limiter, start, "192.0.2.1"), 5);
        assert_eq!(taken(&mut limiter, start, "::ffff:192.0.2.1"), 0);
    }

    #[test]
    fn a_full_table_stays_as_large_and_keeps_the_thirstiest() {
        let (mut limiter, start) = limiter(Limits::default().sources(4).burst(5));
        assert_eq!(taken(&mut limiter, start, "192.0.2.1"), 5);
        for n in 0..1000u32 {
            assert!(limiter.take(start, IpAddr::V4(n.into())));
        }
        assert_eq!(limiter.rows.len(), 1);
        assert_eq!(taken(&mut limiter, start, "192.0.2.1"), 0);
    }

    #[test]
    fn no_limit_is_no_limit() {
        let (mut limiter, start) = limiter(Limits::none());
        assert_eq!(taken(&mut limiter, start, "192.0.2.1"), 1000);
    }

    #[test]
    fn the_hash_is_siphash_1_3() {
        use std::hash::{BuildHasher, Hasher};
        let std = std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default();
        let mut hasher = std.build_hasher();
        hasher.write_u64(0x0102_0304_0506_0708);
        assert_eq!(hash([0, 0], 0x0102_0304_0506_0708), hasher.finish());
    }
}
