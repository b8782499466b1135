//! Decides: what a conversation does where texts are lost, doubled and reordered: what is said again, what is held until its turn.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// The first wait before a text is said again: longer than a round trip over a broker on another continent. Later ones double.
const FIRST_WAIT: Duration = Duration::from_millis(600);
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// How long a text is said again before the other end is given up.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// Texts that were said and not acknowledged, before more have to wait.
const SAID: usize = 32;
/// Texts that came before their turn, and their bytes.
const HELD: usize = 16;
const HELD_BYTES: usize = 64 * 1024;

/// One conversation's texts, in both directions. The numbers are those of the texts.
#[derive(Debug, Default)]
pub(super) struct Resend {
    said: VecDeque<Said>,
    held: BTreeMap<u32, Vec<u8>>,
    /// Something came that is to be acknowledged.
    pub(super) owes: bool,
}

#[derive(Debug)]
struct Said {
    number: u32,
    text: Vec<u8>,
    first: Instant,
    again: Instant,
    wait: Duration,
}

/// What is to be done with a text that came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is the next.
    Now,
    /// It has come before, or comes too early: nothing.
    Never,
}

impl Resend {
    pub(super) fn is_full(&self) -> bool {
        self.said.len() >= SAID
    }

    /// True when everything that was said is acknowledged.
    pub(super) fn is_done(&self) -> bool {
        self.said.is_empty()
    }

    pub(super) fn say(&mut self, now: Instant, number: u32, text: Vec<u8>) {
        self.said.push_back(Said { number, text, first: now, again: now + FIRST_WAIT, wait: FIRST_WAIT });
    }

    /// The other end has everything before this number.
    pub(super) fn acknowledged(&mut self, before: u32) {
        while self.said.front().is_some_and(|said| said.number < before) {
            self.said.pop_front();
        }
    }

    /// A text came while another was expected.
    pub(super) fn handle(&mut self, expected: u32, number: u32, text: &[u8]) -> Turn {
        self.owes = true;
        if number == expected {
            return Turn::Now;
        }
        let held: usize = self.held.values().map(Vec::len).sum();
        let near = number > expected && number - expected <= HELD as u32;
        if near && held + text.len() <= HELD_BYTES {
            self.held.insert(number, text.to_vec());
        }
        Turn::Never
    }

    /// The text whose turn it is now, if it came early.
    pub(super) fn take(&mut self, expected: u32) -> Option<Vec<u8>> {
        self.held.remove(&expected)
    }

    /// Nothing is said again any more.
    pub(super) fn give_up(&mut self) {
        self.said.clear();
        self.held.clear();
    }

    /// Since when the oldest text waits to be acknowledged.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.said.front().map(|said| said.first)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.said.iter().map(|said| said.again).min()
    }

    /// The texts that are to be said again now.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let due = self.said.iter_mut().filter(|said| said.again <= now);
        due.map(|said| {
            said.wait = (said.wait * 2).min(LONGEST_WAIT);
            said.again = now + said.wait;
            said.text.clone()
        })
        .collect()
    }
}
