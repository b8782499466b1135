//! Decides: how much a path is given before its other end has said that it came: as much as it takes without a queue.

use std::time::{Duration, Instant};

/// What a path is given at least: two of the longest records. A path is measured by what it carries, so it has to carry something.
const LEAST: u64 = 128 << 10;

/// What a path is given at most; a session keeps no more than twice that.
const MOST: u64 = 8 << 20;

/// The rate is measured over this time, or over a round trip where that is longer.
const SAMPLE: Duration = Duration::from_millis(10);

/// The highest rate counts for this long.
const REMEMBERED: Duration = Duration::from_secs(4);

/// What went on a path and what came of it, in bytes of numbered records.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    sent: u64,
    came: u64,
    /// When the sample began, and what had come then.
    begun: Option<(Instant, u64)>,
    /// The highest rate in bytes per second, of this span and of the last one.
    rates: [f64; 2],
    span: Option<Instant>,
    window: u64,
}

impl Flow {
    /// The end of what went there so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    pub(crate) fn handle_sent(&mut self, bytes: usize, now: Instant) {
        if self.sent == self.came {
            // What was not asked to carry anything shows nothing.
            self.begun = Some((now, self.came));
        }
        self.sent += bytes as u64;
    }

    /// True when nothing should follow before more has come.
    pub(crate) fn is_full(&self) -> bool {
        self.sent - self.came >= self.window.max(LEAST)
    }

    /// The other end has so much. False when that can not be. `least` is the shortest round trip that was seen.
    pub(crate) fn handle_came(&mut self, came: u64, least: Option<Duration>, now: Instant) -> bool {
        if came > self.sent {
            return false;
        }
        self.came = self.came.max(came);
        let (begun, before) = *self.begun.get_or_insert((now, self.came));
        let elapsed = now.saturating_duration_since(begun);
        if elapsed < SAMPLE.max(least.unwrap_or(SAMPLE)) {
            return true;
        }
        self.begun = Some((now, self.came));
        self.measure((self.came - before) as f64 / elapsed.as_secs_f64(), now);
        // Twice what is under way at this rate without a queue: the rate can grow, and the queue is no longer than the way.
        let under_way = self.rates[0].max(self.rates[1]) * least.unwrap_or_default().as_secs_f64();
        self.window = ((2.0 * under_way) as u64).min(MOST);
        true
    }

    fn measure(&mut self, rate: f64, now: Instant) {
        let span = *self.span.get_or_insert(now);
        if now.saturating_duration_since(span) >= REMEMBERED / 2 {
            self.span = Some(now);
            self.rates = [0.0, self.rates[0]];
        }
        self.rates[0] = self.rates[0].max(rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// What is under way in the end on a path of this many bytes per millisecond, with this round trip.
    fn settles(rate: u64, rtt: Duration, now: &mut Instant, flow: &mut Flow) -> u64 {
        // What the other end has, and when we hear of it.
        let (mut queue, mut told) = (flow.sent - flow.came, std::collections::VecDeque::new());
        let mut has = flow.came;
        for _ in 0..8000 {
            *now += MS;
            while !flow.is_full() {
                flow.handle_sent(16 << 10, *now);
                queue += 16 << 10;
            }
            let carried = rate.min(queue);
            (queue, has) = (queue - carried, has + carried);
            told.push_back((*now + rtt, has));
            while told.front().is_some_and(|(due, _)| *due <= *now) {
                let (_, came) = told.pop_front().unwrap();
                assert!(flow.handle_came(came, Some(rtt), *now));
            }
        }
        flow.sent - flow.came
    }

    #[test]
    fn a_path_is_given_what_it_carries_in_about_two_round_trips() {
        for (rate, rtt) in [(10_000, 40 * MS), (1000, 200 * MS), (50_000, 10 * MS)] {
            let (mut now, mut flow) = (Instant::now(), Flow::default());
            let under_way = settles(rate, rtt, &mut now, &mut flow);
            let fits = rate * rtt.as_millis() as u64;
            assert!((fits..=3 * fits.max(LEAST)).contains(&under_way), "{under_way} of {fits}");
        }
    }

    #[test]
    fn when_it_becomes_slower_it_is_given_less() {
        let (mut now, mut flow) = (Instant::now(), Flow::default());
        let before = settles(50_000, 40 * MS, &mut now, &mut flow);
        let after = settles(5000, 40 * MS, &mut now, &mut flow);
        assert!(before > 2_000_000 && after < before / 4, "{before} {after}");
    }

    #[test]
    fn more_than_was_sent_can_not_have_come() {
        let (now, mut flow) = (Instant::now(), Flow::default());
        flow.handle_sent(10, now);
        assert!(flow.handle_came(10, None, now) && !flow.handle_came(11, None, now));
        assert!(!flow.is_full());
    }
}
