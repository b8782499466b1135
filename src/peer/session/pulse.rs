//! Decides: whether a path is alive: when to ask it, when to doubt it, when to give it up.

use std::time::{Duration, Instant};

/// A path on which something is going on is asked when it says nothing for this long, or for a round trip.
const PROBE: Duration = Duration::from_millis(200);

/// Something is going on for this long after the last word of a channel.
const BUSY: Duration = Duration::from_secs(2);

/// Any other path is asked when it says nothing for this long.
const QUIET: Duration = Duration::from_secs(10);

/// A path that is doubted is asked this often.
const AGAIN: Duration = Duration::from_secs(1);

/// A path that owes an answer for this long is dead.
const DEAD: Duration = Duration::from_secs(10);

/// A path on which only one end hears the other is not trusted for this long.
const BLAMED: Duration = Duration::from_secs(10);

/// Bounds of the time after which an unanswered path is doubted: four round trips and a little lie between them.
const SOONEST: Duration = Duration::from_millis(600);
const LATEST: Duration = Duration::from_secs(3);

/// The round trip of a path that was never measured.
const UNKNOWN: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(crate) struct Pulse {
    heard: Instant,
    asked: Instant,
    /// The last word of a channel, either way.
    busy: Option<Instant>,
    /// Since when something that was said there waits for any answer.
    owed: Option<Instant>,
    /// Since when nothing was doubtful.
    steady: Instant,
    doubted: bool,
    rtt: Option<Duration>,
    /// The shortest round trip of all.
    least: Option<Duration>,
}

impl Pulse {
    pub(crate) fn new(now: Instant) -> Self {
        Self { heard: now, asked: now, busy: None, owed: None, steady: now, doubted: false, rtt: None, least: None }
    }

    /// Whatever came.
    pub(crate) fn handle_heard(&mut self, now: Instant) {
        self.heard = now;
        self.owed = None;
        if std::mem::take(&mut self.doubted) {
            self.steady = now;
        }
    }

    /// A word of a channel went out, or came in.
    pub(crate) fn handle_busy(&mut self, now: Instant, said: bool) {
        self.busy = Some(now);
        if said {
            self.owed.get_or_insert(now);
        }
    }

    /// The other end does not hear us here, though we hear it: this path is not gone back to for a while.
    pub(crate) fn handle_blamed(&mut self, now: Instant) {
        self.steady = now + BLAMED;
    }

    /// The other end says that it is not here any more: doubted until something comes.
    pub(crate) fn handle_left(&mut self) {
        self.doubted = true;
    }

    /// We stood still ourselves: what was owed since then says nothing.
    pub(crate) fn handle_still(&mut self, now: Instant) {
        self.owed = self.owed.map(|_| now);
    }

    /// A question goes out.
    pub(crate) fn handle_asked(&mut self, now: Instant) {
        self.asked = now;
        self.owed.get_or_insert(now);
    }

    pub(crate) fn handle_rtt(&mut self, rtt: Duration) {
        self.rtt = Some(rtt);
        self.least = Some(self.least.map_or(rtt, |least| least.min(rtt)));
    }

    /// The shortest round trip that was seen.
    pub(crate) fn least(&self) -> Option<Duration> {
        self.least
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    pub(crate) fn heard(&self) -> Instant {
        self.heard
    }

    pub(crate) fn is_doubted(&self) -> bool {
        self.doubted
    }

    /// Since when nothing was doubtful.
    pub(crate) fn steady(&self) -> Instant {
        self.steady
    }

    fn ask_due(&self) -> Instant {
        let last = self.heard.max(self.asked);
        if self.doubted {
            return last + AGAIN;
        }
        let busy = self.busy.is_some_and(|busy| self.heard <= busy + BUSY);
        // The silence before something was said is none.
        let begun = last.max(self.owed.unwrap_or(last));
        if busy || self.owed.is_some() { begun + PROBE.max(self.rtt.unwrap_or(PROBE)) } else { last + QUIET }
    }

    fn doubt_due(&self) -> Option<Instant> {
        let limit = (self.rtt.unwrap_or(UNKNOWN) * 4 + PROBE).clamp(SOONEST, LATEST);
        self.owed.filter(|_| !self.doubted).map(|owed| owed + limit)
    }

    /// When something of this is due.
    pub(crate) fn poll_timeout(&self) -> Instant {
        let dead = self.owed.map(|owed| owed + DEAD);
        [self.doubt_due(), dead].into_iter().flatten().fold(self.ask_due(), Instant::min)
    }

    pub(crate) fn is_dead(&self, now: Instant) -> bool {
        self.owed.is_some_and(|owed| now >= owed + DEAD)
    }

    /// True when it should be asked now.
    pub(crate) fn wants_asking(&self, now: Instant) -> bool {
        now >= self.ask_due()
    }

    /// True when it begins to be doubted now.
    pub(crate) fn handle_doubt(&mut self, now: Instant) -> bool {
        let due = self.doubt_due().is_some_and(|due| now >= due);
        self.doubted |= due;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// The instants of asking, doubting and dying, when nothing is heard any more.
    fn silence(pulse: &mut Pulse, begun: Instant) -> (Vec<u128>, Option<u128>, u128) {
        let (mut asked, mut doubted, mut now) = (Vec::new(), None, begun);
        loop {
            now = now.max(pulse.poll_timeout());
            let at = (now - begun).as_millis();
            if pulse.is_dead(now) {
                return (asked, doubted, at);
            }
            if pulse.handle_doubt(now) {
                doubted = Some(at);
            }
            if pulse.wants_asking(now) {
                pulse.handle_asked(now);
                asked.push(at);
            }
        }
    }

    #[test]
    fn a_busy_path_that_falls_silent_is_doubted_within_a_second() {
        let begun = Instant::now();
        let mut pulse = Pulse::new(begun);
        pulse.handle_rtt(40 * MS);
        pulse.handle_busy(begun, true);
        let (asked, doubted, dead) = silence(&mut pulse, begun);
        assert_eq!(doubted, Some(600));
        assert_eq!(asked[..2], [200, 400]);
        assert!(asked.len() < 15 && dead == 10_000, "{asked:?} {dead}");
    }

    #[test]
    fn what_is_said_after_a_silence_has_time_to_be_answered_before_the_path_is_asked() {
        let begun = Instant::now();
        let mut pulse = Pulse::new(begun);
        pulse.handle_rtt(40 * MS);
        let said = begun + 5 * BUSY / 2;
        pulse.handle_busy(said, true);
        assert_eq!(pulse.poll_timeout(), said + PROBE);
        assert_eq!(silence(&mut pulse, said).1, Some(600));
    }

    #[test]
    fn one_that_only_hears_is_asked_before_it_is_doubted() {
        let begun = Instant::now();
        let mut pulse = Pulse::new(begun);
        pulse.handle_busy(begun, false);
        assert_eq!(silence(&mut pulse, begun).1, Some(200 + 1200), "with an unknown round trip");
    }

    #[test]
    fn an_idle_path_is_asked_seldom() {
        let begun = Instant::now();
        let mut pulse = Pulse::new(begun);
        let mut now = begun;
        let mut asked = 0;
        while now < begun + Duration::from_secs(60) {
            now = pulse.poll_timeout();
            assert!(!pulse.handle_doubt(now) && !pulse.is_dead(now));
            if pulse.wants_asking(now) {
                asked += 1;
                pulse.handle_asked(now);
                pulse.handle_heard(now + 50 * MS);
            }
        }
        assert_eq!(asked, 6);
    }

    #[test]
    fn a_word_ends_the_doubt() {
        let begun = Instant::now();
        let mut pulse = Pulse::new(begun);
        pulse.handle_asked(begun);
        assert!(pulse.handle_doubt(begun + LATEST) && pulse.is_doubted());
        pulse.handle_heard(begun + 2 * LATEST);
        assert!(!pulse.is_doubted());
        assert_eq!(pulse.steady(), begun + 2 * LATEST);
    }
}
