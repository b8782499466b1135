//! Decides: whether a message leaves at once or waits a moment for those that follow it.

use std::time::{Duration, Instant};

/// Messages that are sent closer together than this are a burst: one system call each would cost more than the
/// messages.
const NEAR: Duration = Duration::from_micros(20);
/// Waiting bytes with which a burst is written by its sender.
pub(crate) const FULL: usize = 64 << 10;
/// How long a message of a burst waits at most before somebody begins to write it.
pub(crate) const WAIT: Duration = Duration::from_micros(50);

/// How long messages wait in a task that sends on and on: as long as they would take to be [`FULL`].
const OVERDUE: Duration = Duration::from_micros(200);

/// When the last message was sent.
#[derive(Debug, Default)]
pub(crate) struct Burst {
    last: Option<Instant>,
    /// Since when messages wait.
    since: Option<Instant>,
}

impl Burst {
    /// A message is sent `now`; true when it is one of a burst and waits. The first message of a burst does not, nor
    /// does one that follows a message received (`answers`): somebody waits for that.
    pub(crate) fn handle_message(&mut self, now: Instant, answers: bool) -> bool {
        let near = self.last.is_some_and(|last| now.saturating_duration_since(last) < NEAR);
        self.last = Some(now);
        near && !answers
    }

    /// As [`handle_message`](Self::handle_message), where nobody else may get to write what waits while its sender sends
    /// on and on: then it does not wait for ever.
    pub(crate) fn handle_message_of_task(&mut self, now: Instant, answers: bool) -> bool {
        let waits = self.handle_message(now, answers);
        let since = *self.since.get_or_insert(now);
        waits && now.saturating_duration_since(since) < OVERDUE
    }

    /// Nothing waits any more.
    pub(crate) fn handle_written(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_message_and_an_answer_leave_at_once_and_a_burst_waits() {
        let mut burst = Burst::default();
        let begun = Instant::now();
        let at = |micros| begun + Duration::from_micros(micros);
        assert!(!burst.handle_message(at(0), false), "the first");
        assert!(burst.handle_message(at(1), false));
        assert!(burst.handle_message(at(2), false));
        assert!(!burst.handle_message(at(3), true), "an answer");
        assert!(!burst.handle_message(at(1000), false), "a lone one");
    }

    #[test]
    fn a_task_that_sends_on_and_on_writes_every_now_and_then() {
        let mut burst = Burst::default();
        let begun = Instant::now();
        let mut written = 0;
        for micros in (0..1000).step_by(10) {
            if !burst.handle_message_of_task(begun + Duration::from_micros(micros), false) {
                burst.handle_written();
                written += 1;
            }
        }
        assert_eq!(written, 5, "the first, and four of a millisecond");
    }
}
