//! Decides: how long a client waits before it connects again.

use std::time::Duration;

/// A connection that lived at least this long was a good one: after it the waiting begins anew. It is the seed's.
const GOOD: Duration = Duration::from_secs(1);

/// Waits that grow, each chosen at random up to its bound, so that the clients of a server that comes back do not come
/// all at once.
///
/// ```
/// use std::time::Duration;
/// use natpipe::pool::Backoff;
///
/// let backoff = Backoff::default().first(Duration::from_millis(100)).longest(Duration::from_secs(10));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    factor: f64,
    jitter: f64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(200), longest: Duration::from_secs(20), factor: 2.0, jitter: 0.5 }
    }
}

impl Backoff {
    /// The first wait. Default 0.2 s.
    pub fn first(self, wait: Duration) -> Self {
        Self { first: wait, ..self }
    }

    /// The longest wait. Default 20 s.
    pub fn longest(self, wait: Duration) -> Self {
        Self { longest: wait, ..self }
    }

    /// By how much each wait is longer than the one before; at least 1. Default 2.
    pub fn factor(self, factor: f64) -> Self {
        Self { factor: if factor.is_finite() { factor.max(1.0) } else { 2.0 }, ..self }
    }

    /// The part of each wait that is random, from 0 (none) to 1 (all). Default 0.5.
    pub fn jitter(self, part: f64) -> Self {
        Self { jitter: if part.is_nan() { 0.5 } else { part.clamp(0.0, 1.0) }, ..self }
    }

    /// The wait after `failures` attempts in a row that came to nothing; `chance` is a random number from 0 to 1.
    pub(super) fn wait(&self, failures: u32, chance: f64) -> Duration {
        let grown = self.first.as_secs_f64() * self.factor.powi(failures.min(1000) as i32);
        let bounded = grown.min(self.longest.as_secs_f64());
        Duration::from_secs_f64(bounded * (1.0 - self.jitter * chance))
    }

    /// Whether a connection that lived so long begins the waiting anew.
    pub(super) fn is_good(lived: Duration) -> bool {
        lived >= GOOD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_the_jitter_only_shortens_them() {
        let backoff = Backoff::default().first(Duration::from_secs(1)).longest(Duration::from_secs(8)).jitter(0.25);
        let longest: Vec<_> = (0..6).map(|n| backoff.wait(n, 0.0).as_secs_f64()).collect();
        assert_eq!(longest, [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]);
        assert_eq!(backoff.wait(1, 1.0).as_secs_f64(), 1.5);
        assert_eq!(backoff.wait(u32::MAX, 0.0).as_secs(), 8);
    }

    #[test]
    fn nonsense_is_made_sense_of() {
        let backoff = Backoff::default().factor(f64::INFINITY).jitter(f64::NAN);
        assert!(backoff.wait(100, 1.0) <= Duration::from_secs(20));
    }
}
