//! Decides: in which order and when the addresses of a name are tried (RFC 8305).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::Family;

/// How long an IPv4 answer waits for the IPv6 one (RFC 8305 section 3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// How long one attempt has before the next starts beside it (RFC 8305 section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The race of one name's addresses. Time is counted from its start.
///
/// Drive it: [`poll_attempt`](Self::poll_attempt) until it yields nothing, then wait for the first
/// of an answer, the end of an attempt, or [`poll_timeout`](Self::poll_timeout), and tell it so.
#[derive(Debug)]
pub(crate) struct Race {
    v6: Answer,
    v4: Answer,
    /// The earliest instant of the next attempt, while one runs.
    next: Option<Duration>,
    /// When IPv4 stops waiting for IPv6's answer.
    v4_from: Option<Duration>,
    last: Family,
    running: usize,
}

#[derive(Debug, Default)]
struct Answer {
    done: bool,
    left: VecDeque<SocketAddr>,
}

impl Race {
    pub(crate) fn new() -> Self {
        // "Last" is IPv4 so that IPv6 begins (RFC 8305 section 4).
        Self { v6: Answer::default(), v4: Answer::default(), next: None, v4_from: None, last: Family::V4, running: 0 }
    }

    /// One family's query has ended, with or without addresses.
    pub(crate) fn handle_answer(&mut self, now: Duration, family: Family, found: Vec<SocketAddr>) {
        let answer = match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        };
        answer.done = true;
        answer.left.extend(found);
        if family == Family::V4 && !self.v6.done {
            self.v4_from = Some(now + RESOLUTION_DELAY);
        }
    }

    /// An attempt has failed: the next need not wait.
    pub(crate) fn handle_failure(&mut self) {
        self.running = self.running.saturating_sub(1);
        self.next = None;
    }

    /// The address to try now, if one is due.
    pub(crate) fn poll_attempt(&mut self, now: Duration) -> Option<SocketAddr> {
        if self.next.is_some_and(|at| now < at) {
            return None;
        }
        let addr = self.choose(now)?;
        self.last = Family::of(addr.ip());
        self.next = Some(now + ATTEMPT_DELAY);
        self.running += 1;
        Some(addr)
    }

    /// When to ask again although nothing has happened.
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        if !self.v6.left.is_empty() || (!self.v4.left.is_empty() && self.v6.done) {
            return Some(self.next.unwrap_or_default());
        }
        if self.v4.left.is_empty() {
            return None;
        }
        Some(self.next.unwrap_or_default().max(self.v4_from.unwrap_or_default()))
    }

    /// True when nothing runs, nothing is left to try and both queries have ended.
    pub(crate) fn is_lost(&self) -> bool {
        self.running == 0 && self.v4.done && self.v6.done && self.v4.left.is_empty() && self.v6.left.is_empty()
    }

    /// Families take turns, IPv6 first; IPv4 waits a moment for IPv6's answer.
    fn choose(&mut self, now: Duration) -> Option<SocketAddr> {
        let v4_may = self.v6.done || self.v4_from.is_some_and(|from| now >= from);
        let turn = match self.last {
            Family::V4 => [Family::V6, Family::V4],
            Family::V6 => [Family::V4, Family::V6],
        };
        turn.into_iter().find_map(|family| match family {
            Family::V6 => self.v6.left.pop_front(),
            Family::V4 if v4_may => self.v4.left.pop_front(),
            Family::V4 => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn addrs(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|a| a.parse().unwrap()).collect()
    }

    fn both() -> Race {
        let mut race = Race::new();
        race.handle_answer(ms(0), Family::V6, addrs(&["[2001:db8::1]:1", "[2001:db8::2]:1"]));
        race.handle_answer(ms(0), Family::V4, addrs(&["192.0.2.1:1", "192.0.2.2:1"]));
        race
    }

    #[test]
    fn families_take_turns_250_ms_apart_and_ipv6_begins() {
        let mut race = both();
        let mut tried = Vec::new();
        for at in (0..1000).step_by(10) {
            if let Some(addr) = race.poll_attempt(ms(at)) {
                tried.push((at, addr.to_string()));
            }
        }
        let expected = [(0, "[2001:db8::1]:1"), (250, "192.0.2.1:1"), (500, "[2001:db8::2]:1"), (750, "192.0.2.2:1")];
        assert_eq!(tried, expected.map(|(at, addr)| (at, addr.to_owned())));
    }

    #[test]
    fn a_failed_attempt_makes_room_for_the_next_at_once() {
        let mut race = both();
        assert!(race.poll_attempt(ms(0)).is_some());
        assert!(race.poll_attempt(ms(1)).is_none());
        race.handle_failure();
        assert_eq!(race.poll_attempt(ms(1)), addrs(&["192.0.2.1:1"]).pop());
    }

    #[test]
    fn an_ipv4_answer_waits_50_ms_for_ipv6_and_no_longer() {
        let mut race = Race::new();
        race.handle_answer(ms(10), Family::V4, addrs(&["192.0.2.1:1"]));
        assert_eq!(race.poll_attempt(ms(10)), None);
        assert_eq!(race.poll_timeout(), Some(ms(60)));
        assert!(race.poll_attempt(ms(60)).is_some());
        race.handle_answer(ms(100), Family::V6, addrs(&["[2001:db8::1]:1"]));
        assert_eq!(race.poll_timeout(), Some(ms(310)));
        assert!(race.poll_attempt(ms(310)).is_some_and(|a| a.is_ipv6()));
    }

    #[test]
    fn an_ipv6_answer_without_addresses_sets_ipv4_free_at_once() {
        let mut race = Race::new();
        race.handle_answer(ms(0), Family::V4, addrs(&["192.0.2.1:1"]));
        race.handle_answer(ms(5), Family::V6, Vec::new());
        assert!(race.poll_attempt(ms(5)).is_some());
    }

    #[test]
    fn it_is_lost_when_everything_was_tried_and_failed() {
        let mut race = Race::new();
        race.handle_answer(ms(0), Family::V6, Vec::new());
        assert!(!race.is_lost());
        race.handle_answer(ms(0), Family::V4, addrs(&["192.0.2.1:1"]));
        assert!(race.poll_attempt(ms(0)).is_some() && !race.is_lost());
        race.handle_failure();
        assert!(race.is_lost());
    }
}
