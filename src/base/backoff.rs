//! Decides: how long to wait before the next attempt.

use std::time::Duration;

/// Doubles the wait at each attempt up to a limit, and cuts a random part of up to half of it away, so that many that
/// lost the same server do not come back in the same instant.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    attempts: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, attempts: 0 }
    }

    /// The wait before the next attempt.
    pub(crate) fn next(&mut self, random: u64) -> Duration {
        let full = self.first.saturating_mul(1_u32 << self.attempts.min(20)).min(self.most);
        self.attempts = self.attempts.saturating_add(1);
        full - full.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64) / 2
    }

    /// After an attempt that went well.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// Chance, as good as is needed to keep clients apart, where the crate `rand` is not built in.
#[cfg(feature = "comm")]
pub(crate) fn chance() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_begin_anew() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let waits: Vec<u128> = (0..6).map(|_| backoff.next(0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.next(0).as_millis(), 100);
    }

    #[test]
    fn jitter_takes_at_most_half() {
        for random in [0, 1, u64::MAX / 2, u64::MAX] {
            let wait = Backoff::new(Duration::from_secs(1), Duration::from_secs(1)).next(random);
            assert!(wait >= Duration::from_millis(500) && wait <= Duration::from_secs(1), "{wait:?}");
        }
    }
}
