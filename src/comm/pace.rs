//! Decides: whether a processor is quick enough for the consumer's own task.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A turn that is no longer holds up the other messages no more than a few wakes of tasks would.
const QUICK: Duration = Duration::from_micros(100);
/// So many quick turns one after the other show that the next is likely to be quick as well.
const SEEN: u32 = 16;

/// How a processor has behaved lately.
#[derive(Debug, Default)]
pub(super) struct Pace {
    quick: AtomicU32,
}

impl Pace {
    /// It had the thread for so long without a pause.
    pub(super) fn handle_turn(&self, took: Duration) {
        if took > QUICK {
            self.quick.store(0, Ordering::Relaxed);
        } else if !self.is_quick() {
            self.quick.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether the next message may be processed where the messages are taken from their queue.
    pub(super) fn is_quick(&self) -> bool {
        self.quick.load(Ordering::Relaxed) >= SEEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_turn_counts_for_as_long_as_it_takes_to_be_quick_again() {
        let pace = Pace::default();
        assert!(!pace.is_quick(), "nothing is known of it yet");
        for _ in 0..SEEN {
            assert!(!pace.is_quick());
            pace.handle_turn(QUICK);
        }
        assert!(pace.is_quick());
        pace.handle_turn(QUICK + Duration::from_micros(1));
        assert!(!pace.is_quick());
        for _ in 0..SEEN {
            assert!(!pace.is_quick());
            pace.handle_turn(Duration::ZERO);
        }
        assert!(pace.is_quick());
    }
}
