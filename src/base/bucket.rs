//! Decides: a token bucket: so much at once, and so much each second.

use std::time::{Duration, Instant};

/// Tokens that come back with time.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    /// Tokens each second; 0: no limit at all.
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    pub(crate) fn new(per_second: u64, burst: u64, now: Instant) -> Self {
        let burst = burst.max(1) as f64;
        Self { rate: per_second as f64, burst, tokens: burst, at: now }
    }

    /// Comes back as a whole in `period`; 0 means no limit.
    pub(crate) fn per(most: u64, period: Duration, now: Instant) -> Self {
        let rate = most as f64 / period.as_secs_f64().max(1.0);
        Self { rate, burst: most as f64, tokens: most as f64, at: now }
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(self.burst);
        self.at = self.at.max(now);
    }

    /// Takes `n` tokens; false when they are not there, and then none is taken.
    pub(crate) fn take(&mut self, n: u64, now: Instant) -> bool {
        if self.rate == 0.0 {
            return true;
        }
        self.refill(now);
        let enough = self.tokens >= n as f64;
        if enough {
            self.tokens -= n as f64;
        }
        enough
    }

    /// True when it limits nothing.
    pub(crate) fn is_unlimited(&self) -> bool {
        self.rate == 0.0
    }

    /// When `n` tokens (at most the burst) will be there.
    pub(crate) fn when(&self, n: u64, now: Instant) -> Instant {
        if self.rate == 0.0 {
            return now;
        }
        let missing = (n as f64).min(self.burst) - self.tokens;
        now + Duration::from_secs_f64((missing / self.rate).clamp(0.0, 3600.0))
    }

    /// True when nothing of it is used: then it need not be remembered.
    pub(crate) fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.rate == 0.0 || self.tokens >= self.burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_the_burst_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, 3, start);
        assert_eq!((0..5).filter(|_| bucket.take(1, start)).count(), 3);
        assert_eq!(bucket.when(1, start), start + Duration::from_millis(100));
        assert!(!bucket.take(1, start + Duration::from_millis(99)));
        assert!(bucket.take(1, start + Duration::from_millis(101)));
        assert!(!bucket.is_full(start + Duration::from_millis(101)));
        assert!(bucket.is_full(start + Duration::from_secs(1)));
    }

    #[test]
    fn without_a_rate_there_is_no_limit() {
        let start = Instant::now();
        let mut bucket = Bucket::new(0, 1, start);
        assert!((0..100).all(|_| bucket.take(1000, start)));
    }
}
