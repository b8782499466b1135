//! Decides: for how long to ask, when to ask again, and whether a gateway has forgotten us.

use std::time::{Duration, Instant};

/// What is asked for: long enough that renewing costs nothing, short enough that what a crash leaves behind goes away. RFC 6886
/// section 3.3 recommends it.
pub(super) const WANTED: Duration = Duration::from_secs(7200);

/// The shortest wait between two renewals (RFC 6887 section 11.2.1).
const SHORTEST: Duration = Duration::from_secs(4);

/// No gateway is believed to keep a mapping longer than a day.
const LONGEST: Duration = Duration::from_secs(86_400);

/// After gateways that gave nothing.
const FIRST_RETRY: Duration = Duration::from_secs(30);
const LAST_RETRY: Duration = Duration::from_secs(600);

/// How long a lease that was granted counts: 0, as UPnP says "for ever", is a lease of the length that was asked for, since a
/// gateway that restarts forgets it all the same.
pub(super) fn counted(granted: Duration) -> Duration {
    if granted.is_zero() { WANTED } else { granted.min(LONGEST) }
}

/// When to renew a lease after the renewals that have failed since it was granted: at a half, at three quarters, at seven
/// eighths of it, and so on, each a sixteenth later at most, by chance (`random` of 0..=255), so that the clients of a gateway do
/// not come together (RFC 6887 section 11.2.1). `None` when it has run out.
pub(super) fn renewal(granted: Duration, failed: u32, random: u8) -> Option<Duration> {
    let lease = counted(granted);
    let left = lease / 2_u32.checked_pow(failed.saturating_add(1)).unwrap_or(u32::MAX);
    let jitter = left.mul_f64(f64::from(random) / 255.0 / 8.0);
    let at = lease - left + jitter;
    let step = left.min(lease);
    (failed == 0 || step >= SHORTEST).then(|| if failed == 0 { at.max(SHORTEST.min(lease)) } else { at })
}

/// The wait before asking gateways again that gave nothing, which grows.
pub(super) fn retry(tried: u32) -> Duration {
    FIRST_RETRY.saturating_mul(1_u32 << tried.min(10)).min(LAST_RETRY)
}

/// The gateway's clock, which tells when it has restarted and forgotten what it held (RFC 6887 section 8.5, RFC 6886 section 3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Epoch {
    at: Instant,
    seconds: u32,
}

impl Epoch {
    pub(super) fn new(at: Instant, seconds: u32) -> Self {
        Self { at, seconds }
    }

    /// Whether a gateway that later said `now` is still the one that said this: its clock has not gone back by more than a second,
    /// and has moved as fast as ours, give or take 2 seconds and a sixteenth.
    pub(super) fn goes_on(self, now: Self) -> bool {
        if now.seconds.saturating_add(1) < self.seconds {
            return false;
        }
        let ours = now.at.saturating_duration_since(self.at).as_secs();
        let theirs = u64::from(now.seconds.saturating_sub(self.seconds));
        let slack = |other: u64| other - other / 16;
        ours + 2 >= slack(theirs) && theirs + 2 >= slack(ours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_is_renewed_at_half_then_three_quarters_until_it_has_run_out() {
        let at: Vec<_> = (0..12).map_while(|failed| renewal(secs(3600), failed, 0)).map(|at| at.as_secs()).collect();
        assert_eq!(at[..3], [1800, 2700, 3150]);
        assert!(at.windows(2).all(|pair| pair[0] < pair[1]) && *at.last().unwrap() < 3600, "{at:?}");
        assert_eq!(at.len(), 9, "steps of four seconds at least: {at:?}");
    }

    #[test]
    fn chance_puts_a_renewal_off_by_a_sixteenth_of_the_lease_at_most() {
        for random in [0, 100, 255] {
            let at = renewal(secs(1600), 0, random).unwrap();
            assert!(at >= secs(800) && at <= secs(900), "{at:?}");
        }
    }

    #[test]
    fn a_lease_of_a_second_is_no_busy_loop_and_one_without_end_is_renewed_all_the_same() {
        assert_eq!(renewal(secs(1), 0, 0), Some(secs(1)), "not before it has run out");
        assert_eq!(renewal(secs(6), 0, 0), Some(secs(4)));
        assert_eq!(renewal(Duration::ZERO, 0, 0), Some(WANTED / 2));
        assert_eq!(renewal(Duration::MAX, 0, 0), Some(LONGEST / 2));
        assert_eq!(renewal(secs(3600), u32::MAX, 0), None);
    }

    #[test]
    fn gateways_that_gave_nothing_are_asked_less_and_less_often() {
        assert_eq!([0, 1, 2, 9, 99].map(retry).map(|wait| wait.as_secs()), [30, 60, 120, 600, 600]);
    }

    #[test]
    fn a_clock_that_went_back_or_stood_still_is_of_a_gateway_that_restarted() {
        let start = Instant::now();
        let then = Epoch::new(start, 1000);
        let after = |ours: u64, theirs: u32| then.goes_on(Epoch::new(start + secs(ours), theirs));
        assert!(after(100, 1100) && after(100, 1098) && after(0, 999) && after(3600, 4600 - 200));
        assert!(!after(100, 0) && !after(100, 998) && !after(3600, 1000) && !after(10, 5000));
    }
}
