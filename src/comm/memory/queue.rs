//! Decides: what a queue holds, in which order it gives, and when it is full.

use std::collections::VecDeque;

/// Messages that a queue holds before it is full.
const MESSAGES: usize = 65_536;
/// Bytes of bodies that a queue holds before it is full. A single message of any size fits an empty queue.
const BYTES: usize = 64 << 20;

/// What a message costs beside its body, in bytes, about.
const AROUND: usize = 256;

/// Messages in order, with their sizes known.
#[derive(Debug)]
pub(crate) struct Queue<M> {
    messages: VecDeque<(M, usize)>,
    bytes: usize,
}

impl<M> Default for Queue<M> {
    fn default() -> Self {
        Self { messages: VecDeque::new(), bytes: 0 }
    }
}

impl<M> Queue<M> {
    pub(crate) fn is_full(&self) -> bool {
        !self.messages.is_empty() && (self.messages.len() >= MESSAGES || self.bytes >= BYTES)
    }

    /// The memory that it takes, about.
    pub(crate) fn weight(&self) -> usize {
        self.bytes + self.messages.len() * AROUND
    }

    /// Puts a message at the end. Whoever pushes asks [`is_full`](Self::is_full) before; what comes back from a consumer
    /// always has room, as it had before.
    pub(crate) fn push(&mut self, message: M, bytes: usize) {
        self.bytes += bytes;
        self.messages.push_back((message, bytes));
    }

    /// Puts a message that was taken and not processed back to the front.
    pub(crate) fn put_back(&mut self, message: M, bytes: usize) {
        self.bytes += bytes;
        self.messages.push_front((message, bytes));
    }

    pub(crate) fn take(&mut self) -> Option<M> {
        let (message, bytes) = self.messages.pop_front()?;
        self.bytes -= bytes;
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_in_order_and_what_came_back_first() {
        let mut queue = Queue::default();
        for n in 0..3 {
            queue.push(n, 1);
        }
        assert_eq!(queue.take(), Some(0));
        queue.put_back(0, 1);
        assert_eq!([queue.take(), queue.take(), queue.take(), queue.take()], [Some(0), Some(1), Some(2), None]);
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn it_is_full_in_messages_or_in_bytes() {
        let mut queue = Queue::default();
        queue.push((), 2 * BYTES);
        assert!(queue.is_full());
        queue.take();
        assert!(!queue.is_full());
        for _ in 0..MESSAGES {
            assert!(!queue.is_full());
            queue.push((), 0);
        }
        assert!(queue.is_full());
    }
}
