//! Decides: a queue bounded in messages and in bytes, and what is given up when it is full.

use std::collections::VecDeque;

/// How much a queue holds. Zero means: not limited in this unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Messages.
    pub(crate) messages: usize,
    /// Bytes of payload.
    pub(crate) bytes: usize,
}

impl Limits {
    /// A bound in bytes alone bounds the messages too: each takes memory beside its payload, and an empty one only that.
    fn most_items(self) -> usize {
        match (self.messages, self.bytes) {
            (0, 0) => usize::MAX,
            (0, bytes) => (bytes / BESIDE_PAYLOAD).max(ALWAYS),
            (messages, _) => messages,
        }
    }
}

/// What a message takes beside its payload, in bytes, about.
const BESIDE_PAYLOAD: usize = 128;
/// So many messages fit into the smallest queue that is bounded in bytes alone, if their payload does.
const ALWAYS: usize = 64;

/// First in, first out, with a size known in bytes.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    limits: Limits,
}

impl<T> Queue<T> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { items: VecDeque::new(), bytes: 0, limits }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// True when one more item has to wait. An empty queue takes an item of any size, so that a
    /// message larger than the byte limit still gets through, alone.
    pub(crate) fn is_full(&self) -> bool {
        let bytes = self.limits.bytes;
        !self.is_empty() && (self.items.len() >= self.limits.most_items() || (bytes > 0 && self.bytes >= bytes))
    }

    /// Appends, whatever the limits say: the caller has asked [`is_full`](Self::is_full) before.
    pub(crate) fn push(&mut self, item: T, bytes: usize) {
        self.bytes += bytes;
        self.items.push_back((item, bytes));
    }

    /// Appends, making room by dropping the oldest. Returns how many were dropped.
    pub(crate) fn push_dropping_oldest(&mut self, item: T, bytes: usize) -> usize {
        let mut dropped = 0;
        while self.is_full() || self.would_overflow(bytes) {
            if self.pop().is_none() {
                break;
            }
            dropped += 1;
        }
        self.push(item, bytes);
        dropped
    }

    /// Puts an item back in front, where it was taken from.
    pub(crate) fn unpop(&mut self, item: T, bytes: usize) {
        self.bytes += bytes;
        self.items.push_front((item, bytes));
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        let (item, bytes) = self.items.pop_front()?;
        self.bytes -= bytes;
        if self.items.is_empty() && self.items.capacity() > IDLE_CAPACITY {
            self.items.shrink_to(IDLE_CAPACITY);
        }
        Some(item)
    }

    fn would_overflow(&self, bytes: usize) -> bool {
        self.limits.bytes > 0 && !self.is_empty() && self.bytes + bytes > self.limits.bytes
    }
}

/// Slots kept by an empty queue, so that an idle pipe does not hold the memory of its busiest hour.
const IDLE_CAPACITY: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque as Model;

    fn limits(messages: usize, bytes: usize) -> Limits {
        Limits { messages, bytes }
    }

    #[test]
    fn the_message_limit_drops_the_oldest_and_counts_it() {
        let mut queue = Queue::new(limits(3, 0));
        let dropped: usize = (0..6).map(|n| queue.push_dropping_oldest(n, 1)).sum();
        assert_eq!(dropped, 3);
        assert_eq!(queue.pop(), Some(3));
    }

    #[test]
    fn the_byte_limit_drops_until_the_new_item_fits() {
        let mut queue = Queue::new(limits(0, 10));
        assert_eq!(queue.push_dropping_oldest('a', 4), 0);
        assert_eq!(queue.push_dropping_oldest('b', 4), 0);
        assert_eq!(queue.push_dropping_oldest('c', 9), 2);
        assert_eq!(queue.pop(), Some('c'));
        assert!(queue.is_empty());
    }

    #[test]
    fn an_item_over_the_limit_passes_alone() {
        let mut queue = Queue::new(limits(0, 10));
        assert!(!queue.is_full());
        queue.push('a', 100);
        assert!(queue.is_full());
    }

    #[test]
    fn a_bound_in_bytes_bounds_messages_without_any() {
        let mut queue = Queue::new(limits(0, 1 << 20));
        let dropped: usize = (0..100_000).map(|n| queue.push_dropping_oldest(n, 0)).sum();
        assert_eq!((queue.items.len(), dropped), (1 << 13, 100_000 - (1 << 13)));
        let mut small = Queue::new(limits(0, 10));
        (0..5).for_each(|n| assert_eq!(small.push_dropping_oldest(n, 2), 0));
    }

    #[test]
    fn no_limit_is_never_full() {
        let mut queue = Queue::new(limits(0, 0));
        for n in 0..10_000 {
            assert_eq!(queue.push_dropping_oldest(n, 1000), 0);
        }
        assert!(!queue.is_full());
    }

    /// Every sequence of operations against a plain model that recomputes its size each time.
    #[test]
    fn it_agrees_with_a_model() {
        let mut state = 7u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize
        };
        let (mut queue, mut model) = (Queue::new(limits(5, 50)), Model::<(usize, usize)>::new());
        for n in 0..20_000 {
            let size = next() % 30;
            match next() % 4 {
                0 => assert_eq!(queue.pop(), model.pop_front().map(|(n, _)| n)),
                1 if queue.items.len() < 5 => {
                    queue.unpop(n, size);
                    model.push_front((n, size));
                }
                _ => {
                    let mut dropped = 0;
                    while model.len() >= 5 || (!model.is_empty() && total(&model) + size > 50) || total(&model) >= 50 {
                        if model.pop_front().is_none() {
                            break;
                        }
                        dropped += 1;
                    }
                    model.push_back((n, size));
                    assert_eq!(queue.push_dropping_oldest(n, size), dropped);
                }
            }
            assert_eq!((queue.items.len(), queue.bytes), (model.len(), total(&model)));
        }
    }

    fn total(model: &Model<(usize, usize)>) -> usize {
        model.iter().map(|(_, size)| size).sum()
    }
}
