//! Decides: whether a message was seen among the last so many.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

use super::Addr;

/// A sliding window over the messages seen: sender's address and port with the payload, by a keyed
/// 64-bit hash, so that nobody outside can make two of them equal on purpose.
#[derive(Debug)]
pub(crate) struct Window {
    most: usize,
    order: VecDeque<u64>,
    seen: HashSet<u64>,
    key: RandomState,
}

impl Window {
    pub(crate) fn new(most: usize) -> Self {
        Self { most: most.max(1), order: VecDeque::new(), seen: HashSet::new(), key: RandomState::new() }
    }

    /// True the first time; the oldest is forgotten to make room.
    pub(crate) fn is_new(&mut self, from: &Addr, data: &[u8]) -> bool {
        let id = self.key.hash_one((from, data));
        if !self.seen.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Addr {
        Addr::Ip(text.parse().unwrap())
    }

    #[test]
    fn the_same_payload_from_another_port_is_another_message() {
        let mut window = Window::new(10);
        assert!(window.is_new(&addr("10.0.0.1:1"), b"hello"));
        assert!(!window.is_new(&addr("10.0.0.1:1"), b"hello"));
        assert!(window.is_new(&addr("10.0.0.1:2"), b"hello"));
    }

    #[test]
    fn a_full_window_forgets_the_oldest_and_nothing_else() {
        let mut window = Window::new(3);
        let from = addr("10.0.0.1:1");
        for n in 0..4u8 {
            assert!(window.is_new(&from, &[n]));
        }
        assert!(!window.is_new(&from, &[1]) && !window.is_new(&from, &[2]) && !window.is_new(&from, &[3]));
        assert!(window.is_new(&from, &[0]), "the oldest was forgotten");
        assert_eq!((window.order.len(), window.seen.len()), (3, 3));
    }
}
