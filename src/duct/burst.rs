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

/// Until when messages are a burst. Times are kept as ends, which cost a comparison for each message.
#[derive(Debug, Default)]
pub(crate) struct Burst {
    /// Who sends before this sends close to the last message.
    near: Option<Instant>,
    /// When the messages that wait have waited for long enough.
    overdue: Option<Instant>,
}

impl Burst {
    /// A message is sent `now`; true when it is one of a burst and waits. The first message of a burst does not, nor
    /// does one that follows a message received (`answers`): somebody waits for that.
    pub(crate) fn handle_message(&mut self, now: Instant, answers: bool) -> bool {
        let near = is_before(now, self.near);
        self.near = now.checked_add(NEAR);
        near && !answers
    }

    /// As [`handle_message`](Self::handle_message), where nobody else may get to write what waits while its sender sends
    /// on and on: then it does not wait for ever.
    pub(crate) fn handle_message_of_task(&mut self, now: Instant, answers: bool) -> bool {
        let waits = self.handle_message(now, answers);
        self.overdue = self.overdue.or_else(|| now.checked_add(OVERDUE));
        waits && is_before(now, self.overdue)
    }

    /// A message is sent `now` by a task, which answers nothing: true when messages of its burst wait already and it
    /// waits with them. Otherwise it has not been sent yet.
    #[inline]
    pub(crate) fn handle_next(&mut self, now: Instant) -> bool {
        let goes_on = is_before(now, self.near) && is_before(now, self.overdue);
        if goes_on {
            self.near = now.checked_add(NEAR);
        }
        goes_on
    }

    /// Nothing waits any more.
    pub(crate) fn handle_written(&mut self) {
        self.overdue = None;
    }
}

#[inline]
fn is_before(now: Instant, end: Option<Instant>) -> bool {
    end.is_some_and(|end| now < end)
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

    #[test]
    fn a_message_joins_those_that_wait_as_long_as_they_are_near_and_not_overdue() {
        let begun = Instant::now();
        let at = |micros| begun + Duration::from_micros(micros);
        let mut burst = Burst::default();
        assert!(!burst.handle_next(at(0)), "nothing waits");
        burst.handle_message_of_task(at(0), false);
        assert!(burst.handle_next(at(19)) && burst.handle_next(at(38)), "near to the one before");
        assert!(!burst.handle_next(at(58)), "too late");
        for micros in (40..200).step_by(10) {
            assert!(burst.handle_next(at(micros)));
        }
        assert!(!burst.handle_next(at(200)), "overdue");
        burst.handle_written();
        assert!(!burst.handle_next(at(201)), "nothing waits any more");
    }
}
