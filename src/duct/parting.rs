//! Decides: how long a close waits for who has the turn to send at that moment.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a close waits for who sends a message of its own and moves nothing of it. Who needs longer sends to an end that
/// takes nothing, perhaps for ever.
const PARTING: Duration = Duration::from_millis(500);

/// What can be seen of whoever has the turn.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Bytes written since the beginning.
    written: AtomicU64,
    owes: AtomicBool,
}

impl Progress {
    /// Somebody goes on to write; `owes`: among it is what was sent, as its senders were told.
    pub(crate) fn handle_turn(&self, owes: bool) {
        self.owes.store(owes, Ordering::Relaxed);
    }

    pub(crate) fn handle_written(&self, n: usize) {
        self.written.fetch_add(n as u64, Ordering::Relaxed);
    }
}

/// The patience of a close. It begins anew whenever something moves.
#[derive(Debug)]
pub(crate) struct Parting<'a> {
    progress: &'a Progress,
    /// For what was sent; `None` is for ever.
    limit: Option<Duration>,
    seen: u64,
    since: Instant,
}

impl<'a> Parting<'a> {
    /// With the duct's own limit. Where it is shorter than a close takes for anybody, it is for those who call.
    pub(crate) fn new(progress: &'a Progress, timeout: Option<Duration>, now: Instant) -> Self {
        let seen = progress.written.load(Ordering::Relaxed);
        Self { progress, limit: timeout.map(|limit| limit.max(PARTING)), seen, since: now }
    }

    /// How long to wait for the turn before this is asked again; `None` when that was long enough.
    pub(crate) fn poll_wait(&mut self, now: Instant) -> Option<Duration> {
        let written = self.progress.written.load(Ordering::Relaxed);
        if written != self.seen {
            (self.seen, self.since) = (written, now);
        }
        let owes = self.progress.owes.load(Ordering::Relaxed);
        let left = self.left(if owes { self.limit } else { Some(PARTING) }, now);
        // Who has the turn may be another one by then.
        left.map_or(Some(PARTING), |left| (!left.is_zero()).then(|| left.min(PARTING)))
    }

    /// How long the close may write when it has got the turn.
    pub(crate) fn limit(&self, now: Instant) -> Option<Duration> {
        self.left(self.limit, now)
    }

    fn left(&self, limit: Option<Duration>, now: Instant) -> Option<Duration> {
        Some(limit?.saturating_sub(now.saturating_duration_since(self.since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// When a close gives up that asks as soon as it may, given what happens at each half second.
    fn given_up(timeout: Option<Duration>, mut happens: impl FnMut(&Progress, u32)) -> Option<Duration> {
        let (progress, begun) = (Progress::default(), Instant::now());
        let (mut parting, mut now) = (Parting::new(&progress, timeout, begun), begun);
        for half in 0..100 {
            happens(&progress, half);
            match parting.poll_wait(now) {
                Some(wait) => now += wait,
                None => return Some(now - begun),
            }
        }
        None
    }

    #[test]
    fn who_sends_for_itself_and_moves_nothing_is_waited_for_half_a_second() {
        for timeout in [None, Some(Duration::ZERO), Some(30 * SECOND)] {
            assert_eq!(given_up(timeout, |_, _| {}), Some(PARTING));
        }
    }

    #[test]
    fn what_was_sent_is_waited_for_as_long_as_the_duct_waits() {
        let owes = |progress: &Progress, _| progress.handle_turn(true);
        assert_eq!(given_up(Some(3 * SECOND), owes), Some(3 * SECOND));
        assert_eq!(given_up(Some(SECOND * 7 / 10), owes), Some(SECOND * 7 / 10));
        assert_eq!(given_up(Some(Duration::ZERO), owes), Some(PARTING));
        assert_eq!(given_up(None, owes), None);
    }

    #[test]
    fn patience_begins_anew_whenever_something_moves() {
        let moves = |until| move |progress: &Progress, half| progress.handle_written(usize::from(half <= until));
        assert_eq!(given_up(Some(SECOND), moves(9)), Some(10 * PARTING));
        assert_eq!(given_up(Some(SECOND), moves(100)), None);
    }

    #[test]
    fn what_is_left_of_it_is_for_the_closes_own_writing() {
        let (progress, begun) = (Progress::default(), Instant::now());
        let mut parting = Parting::new(&progress, Some(3 * SECOND), begun);
        assert_eq!(parting.limit(begun + SECOND), Some(2 * SECOND));
        assert_eq!(parting.limit(begun + 4 * SECOND), Some(Duration::ZERO));
        progress.handle_written(1);
        parting.poll_wait(begun + SECOND);
        assert_eq!(parting.limit(begun + 2 * SECOND), Some(2 * SECOND));
        assert_eq!(Parting::new(&progress, None, begun).limit(begun + SECOND), None);
    }
}
