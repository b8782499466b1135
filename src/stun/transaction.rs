//! Decides: when a request is sent, sent again and given up (RFC 8489 sections 6.2.1 and 6.2.2), and counts what is dropped.

use std::time::{Duration, Instant};

/// When requests are sent again and given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    pub(super) rto: Duration,
    pub(super) requests: u32,
    pub(super) last_wait: u32,
    pub(super) stream_timeout: Duration,
}

impl Default for Timing {
    /// RFC 8489's: a datagram is sent 7 times within 31.5 s and given up after 39.5 s. A stream is given 10 s, not the
    /// RFC's 39.5 s: TCP says sooner if the network lost it, and a person waits.
    fn default() -> Self {
        Self { rto: Duration::from_millis(500), requests: 7, last_wait: 16, stream_timeout: Duration::from_secs(10) }
    }
}

impl Timing {
    /// The wait after the first datagram; each further wait is twice as long. Default 500 ms.
    pub fn rto(mut self, rto: Duration) -> Self {
        self.rto = rto;
        self
    }

    /// Rc: how many datagrams are sent, at least one. Default 7.
    pub fn requests(mut self, requests: u32) -> Self {
        self.requests = requests.max(1);
        self
    }

    /// Rm: the wait after the last datagram, in RTOs. Default 16.
    pub fn last_wait(mut self, rtos: u32) -> Self {
        self.last_wait = rtos;
        self
    }

    /// Ti: the wait for an answer on TCP and TLS. Default 10 s; the RFC's own is 39.5 s.
    pub fn stream_timeout(mut self, timeout: Duration) -> Self {
        self.stream_timeout = timeout;
        self
    }

    fn wait_after(&self, sent: u32, stream: bool) -> Duration {
        if stream {
            return self.stream_timeout;
        }
        let rtos = if sent >= self.requests { self.last_wait } else { 1 << (sent - 1).min(31) };
        self.rto.saturating_mul(rtos)
    }
}

/// What a [`Timer`] wants done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Send the request, for the first time or again.
    Send,
    /// Give up.
    TimedOut,
    /// Wait.
    Nothing,
}

/// The clock of one transaction. Late calls send one datagram, not all that were missed, and push the rest back.
#[derive(Debug, Clone)]
pub struct Timer {
    timing: Timing,
    stream: bool,
    sent: u32,
    first: Option<Instant>,
    next: Instant,
}

impl Timer {
    /// Begins at `start`; over a `stream` it sends once.
    pub fn new(timing: Timing, stream: bool, start: Instant) -> Self {
        Self { timing, stream, sent: 0, first: None, next: start }
    }

    /// What to do now.
    pub fn due(&mut self, now: Instant) -> Due {
        if now < self.next {
            return Due::Nothing;
        }
        let most = if self.stream { 1 } else { self.timing.requests };
        if self.sent >= most {
            return Due::TimedOut;
        }
        self.sent += 1;
        self.first.get_or_insert(now);
        self.next = later(now, self.timing.wait_after(self.sent, self.stream));
        Due::Send
    }

    /// When [`due`](Self::due) will have something to do.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Lets a transaction that has not begun begin at `now`, if that is sooner.
    pub fn hurry(&mut self, now: Instant) {
        if self.sent == 0 {
            self.next = self.next.min(now);
        }
    }

    /// How often the request was sent.
    pub fn sent(&self) -> u32 {
        self.sent
    }

    /// How long ago it was first sent.
    pub fn waited(&self, now: Instant) -> Duration {
        self.first.map_or(Duration::ZERO, |first| now.saturating_duration_since(first))
    }

    /// The round trip of an answer that comes now; unknown if it was asked more than once, since nothing says which
    /// request was answered.
    pub fn round_trip(&self, now: Instant) -> Option<Duration> {
        (self.sent == 1).then(|| self.waited(now))
    }
}

/// `wait` after `now`; a wait beyond what the clock can count is a day.
pub(super) fn later(now: Instant, wait: Duration) -> Instant {
    const DAY: Duration = Duration::from_secs(86_400);
    now.checked_add(wait).unwrap_or_else(|| now + DAY)
}

/// Packets that were dropped, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Dropped {
    /// Well-formed, but no transaction waits for them: late, answered twice, or guessed.
    pub unmatched: u64,
    /// With the right id, from an address that was not asked.
    pub elsewhere: u64,
    /// No STUN message, a wrong fingerprint, or an answer that lacks what it must have.
    pub malformed: u64,
    /// Not signed with the credentials that the request was signed with.
    pub unauthentic: u64,
}

impl std::ops::AddAssign for Dropped {
    fn add_assign(&mut self, other: Self) {
        self.unmatched += other.unmatched;
        self.elsewhere += other.elsewhere;
        self.malformed += other.malformed;
        self.unauthentic += other.unauthentic;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sends(timing: Timing, stream: bool) -> (Vec<u128>, u128) {
        let start = Instant::now();
        let mut timer = Timer::new(timing, stream, start);
        let mut sent = Vec::new();
        loop {
            let now = timer.next();
            match timer.due(now) {
                Due::Send => sent.push((now - start).as_millis()),
                Due::TimedOut => return (sent, (now - start).as_millis()),
                Due::Nothing => panic!("the timer named a time at which nothing is due"),
            }
        }
    }

    #[test]
    fn datagrams_are_sent_at_the_times_of_rfc_8489() {
        let expected = (vec![0, 500, 1500, 3500, 7500, 15500, 31500], 39500);
        assert_eq!(sends(Timing::default(), false), expected);
    }

    #[test]
    fn a_wait_without_end_is_no_panic() {
        let start = Instant::now();
        let mut timer = Timer::new(Timing::default().rto(Duration::MAX), false, start);
        assert_eq!(timer.due(start), Due::Send);
        assert!(timer.next() > start);
    }

    #[test]
    fn a_stream_is_asked_once() {
        let timing = Timing::default().stream_timeout(Duration::from_millis(39500));
        assert_eq!(sends(timing, true), (vec![0], 39500));
    }

    #[test]
    fn a_late_caller_sends_one_datagram_and_not_a_burst() {
        let start = Instant::now();
        let mut timer = Timer::new(Timing::default(), false, start);
        assert_eq!(timer.due(start), Due::Send);
        let late = start + Duration::from_secs(20);
        assert_eq!(timer.due(late), Due::Send);
        assert_eq!(timer.due(late), Due::Nothing);
        assert_eq!(timer.next(), late + Duration::from_secs(1));
    }

    #[test]
    fn a_round_trip_is_known_only_if_it_was_asked_once() {
        let start = Instant::now();
        let mut timer = Timer::new(Timing::default(), false, start);
        timer.due(start);
        let later = start + Duration::from_millis(500);
        assert_eq!(timer.round_trip(later), Some(Duration::from_millis(500)));
        timer.due(later);
        assert_eq!(timer.round_trip(later), None);
    }
}
