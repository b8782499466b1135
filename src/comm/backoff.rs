//! Decides: how long to wait before another attempt to connect.

use std::time::Duration;

/// Attempts in vain, one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The next wait: `first` doubled with each attempt up to `most`, of which up to half is taken off
    /// by chance, so that those who lost a broker together do not come back together.
    pub(super) fn next(&mut self, first: Duration, most: Duration, random: u64) -> Duration {
        let doubled = first.saturating_mul(1_u32.checked_shl(self.attempts).unwrap_or(u32::MAX));
        self.attempts = self.attempts.saturating_add(1).min(31);
        let whole = doubled.min(most);
        let part = u32::try_from(random % 1000).unwrap_or_default();
        whole - whole / 2 * part / 1000
    }

    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// Chance, as good as is needed to keep clients apart.
pub(super) fn chance() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_stay_above_half() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(3));
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..40).map(|_| backoff.next(first, most, 0).as_millis()).collect();
        assert_eq!(waits[..6], [100, 200, 400, 800, 1600, 3000]);
        assert!(waits[6..].iter().all(|wait| *wait == 3000));
        backoff.reset();
        let least = backoff.next(first, most, 999);
        assert!(least >= first / 2 && least < first);
    }
}
