//! Decides: small seeded randomness (SplitMix64), so that a run can be repeated from its seed. Not for keys.

/// A stream of numbers that its seed determines. Statistically good, cryptographically worthless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng(u64);

impl Rng {
    /// A stream for `seed`; equal seeds give equal streams.
    pub fn new(seed: u64) -> Self {
        let mut rng = Self(seed ^ 0x9e37_79b9_7f4a_7c15);
        rng.word();
        rng
    }

    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..end`; 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // The bias of the multiplication is below 2^-32 for every range that ports and delays need.
        ((u128::from(self.word()) * u128::from(end)) >> 64) as u64
    }

    /// A number in `low..=high`; `low` when the range is empty.
    pub fn port(&mut self, low: u16, high: u16) -> u16 {
        let width = u64::from(high.saturating_sub(low)) + 1;
        low + self.below(width) as u16
    }

    /// A number in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with the given chance, 0 to 1.
    pub fn chance(&mut self, chance: f64) -> bool {
        chance > 0.0 && self.unit() < chance
    }

    /// Twelve bytes, the length of a STUN transaction id (RFC 8489 section 5).
    pub fn id(&mut self) -> [u8; 12] {
        let mut id = [0; 12];
        id[..8].copy_from_slice(&self.word().to_be_bytes());
        id[8..].copy_from_slice(&self.word().to_be_bytes()[..4]);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_streams_and_others_do_not() {
        assert_eq!(Rng::new(7).word(), Rng::new(7).word());
        assert_ne!(Rng::new(7).word(), Rng::new(8).word());
    }

    #[test]
    fn ports_fill_their_range_and_never_leave_it() {
        let mut rng = Rng::new(1);
        let drawn: Vec<u16> = (0..1000).map(|_| rng.port(10, 13)).collect();
        assert!(drawn.iter().all(|p| (10..=13).contains(p)));
        assert!((10..=13).all(|p| drawn.contains(&p)));
        assert_eq!(rng.port(u16::MAX, u16::MAX), u16::MAX);
        assert_eq!(rng.below(0), 0);
    }
}
