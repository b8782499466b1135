//! Decides: whether an attempt to connect is still worth waiting for when the network may be another one.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For so long without a step an attempt may be on its way: longer than a packet takes that is lost twice.
const UNDER_WAY: Duration = Duration::from_secs(5);

/// An attempt to connect.
#[derive(Debug)]
pub(super) struct Attempt {
    /// This machine's addresses when it began; none where they are not known.
    here: Vec<IpAddr>,
    /// When it last came a step further.
    advanced: Mutex<Instant>,
}

impl Attempt {
    pub(super) fn begin(now: Instant, here: Vec<IpAddr>) -> Self {
        Self { here, advanced: Mutex::new(now) }
    }

    /// It came a step further.
    pub(super) fn advance(&self, now: Instant) {
        *self.advanced.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// Asked when the network is doubted, with this machine's addresses: true when it was begun on another network, which leads
    /// nowhere and does not say so, or has come no further for long. Others doubt again and again, and each attempt needs its time.
    pub(super) fn is_hopeless(&self, now: Instant, here: &[IpAddr]) -> bool {
        let elsewhere = !self.here.is_empty() && !here.is_empty() && self.here != here;
        elsewhere || now >= *self.advanced.lock().unwrap_or_else(PoisonError::into_inner) + UNDER_WAY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_that_advances_has_its_time_while_the_addresses_are_the_same() {
        let (begun, here) = (Instant::now(), vec![IpAddr::from([192, 0, 2, 1])]);
        let attempt = Attempt::begin(begun, here.clone());
        let at = |ms| begun + Duration::from_millis(ms);
        assert!(!attempt.is_hopeless(at(4_900), &here));
        assert!(attempt.is_hopeless(at(5_000), &here));
        attempt.advance(at(4_900));
        assert!(!attempt.is_hopeless(at(9_800), &here));
        assert!(attempt.is_hopeless(at(9_900), &here));
    }

    #[test]
    fn an_attempt_from_another_network_is_hopeless_at_once_and_nothing_is_said_by_a_list_that_failed() {
        let (begun, here) = (Instant::now(), vec![IpAddr::from([192, 0, 2, 1])]);
        let attempt = Attempt::begin(begun, here.clone());
        assert!(attempt.is_hopeless(begun, &[[198, 51, 100, 1].into()]));
        assert!(!attempt.is_hopeless(begun, &[]));
        assert!(!Attempt::begin(begun, vec![]).is_hopeless(begun, &here));
    }
}
