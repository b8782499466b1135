//! Holds: what a pipe has carried and given up.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

/// What a pipe has carried so far. A message is a datagram, or what one read or `send` moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// Messages received.
    pub messages_in: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Messages sent.
    pub messages_out: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Messages dropped because a queue was full, a datagram was over `reader_limit`, or a linked pipe did not take them.
    pub dropped: u64,
    /// Messages dropped as duplicates (`enable_msg_ids`).
    pub duplicates: u64,
    /// Handlers that panicked.
    pub panics: u64,
    /// Errors that did not end the pipe: of datagrams, such as an ICMP refusal; on a server also clients that could not be
    /// accepted, or whose handshake failed.
    pub errors: u64,
}

/// The same, while the pipe counts.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    messages_in: AtomicU64,
    bytes_in: AtomicU64,
    messages_out: AtomicU64,
    bytes_out: AtomicU64,
    dropped: AtomicU64,
    duplicates: AtomicU64,
    panics: AtomicU64,
    errors: AtomicU64,
}

impl Counting {
    pub(crate) fn received(&self, bytes: usize) {
        self.messages_in.fetch_add(1, Relaxed);
        self.bytes_in.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn received_bytes(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.messages_out.fetch_add(1, Relaxed);
        self.bytes_out.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn dropped(&self, messages: usize) {
        if messages > 0 {
            self.dropped.fetch_add(messages as u64, Relaxed);
        }
    }

    pub(crate) fn duplicate(&self) {
        self.duplicates.fetch_add(1, Relaxed);
    }

    pub(crate) fn panicked(&self) {
        self.panics.fetch_add(1, Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    pub(crate) fn read(&self) -> Counters {
        Counters {
            messages_in: self.messages_in.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            messages_out: self.messages_out.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            duplicates: self.duplicates.load(Relaxed),
            panics: self.panics.load(Relaxed),
            errors: self.errors.load(Relaxed),
        }
    }
}
