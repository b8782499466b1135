//! Holds: what a consumer has done so far.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A handle on a consumer's numbers, which go on counting while it consumes.
#[derive(Clone, Debug, Default)]
pub struct Counters(Arc<Cells>);

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident, $count:ident;)*) => {
        #[derive(Debug, Default)]
        struct Cells {
            $($name: AtomicU64,)*
        }

        /// A consumer's numbers at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Tally {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// The numbers now.
            pub fn tally(&self) -> Tally {
                Tally { $($name: self.0.$name.load(Ordering::Relaxed),)* }
            }

            $(
                /// One more of them; for backends.
                pub fn $count(&self) {
                    self.0.$name.fetch_add(1, Ordering::Relaxed);
                }
            )*
        }
    };
}

counters! {
    /// Messages given to the processor, each attempt counted.
    processed, count_processed;
    /// Answers sent to callers.
    answered, count_answered;
    /// Messages put back to be tried again.
    retried, count_retried;
    /// Messages given up: sent to the queue of dead letters, or dropped where there is none.
    dead, count_dead;
    /// Messages whose body could not be read.
    unreadable, count_unreadable;
    /// Panics of the processor.
    panicked, count_panicked;
    /// Answers for which there was no caller any more.
    undelivered, count_undelivered;
    /// Messages that could not be settled, as the connection was lost: they come again.
    unsettled, count_unsettled;
    /// Times that a lost connection was made again.
    reconnected, count_reconnected;
}
