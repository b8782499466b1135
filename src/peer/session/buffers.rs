//! Holds: buffers of one record's payload, used again and again: to give them back to the system and to have them filled with zeros
//! anew costs as much as to encrypt them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::record::MAX_PAYLOAD;

/// Buffers that are kept while nobody uses any: 1 MiB. While some are in use twice as many more are kept: acknowledgements come in
/// bursts, and what they free is wanted again at once.
const KEPT: usize = 16;

/// Shorter payloads have memory of their own.
pub(super) const WORTH: usize = 16 << 10;

/// The buffers that nobody uses now.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffers(Arc<Mutex<Home>>);

#[derive(Debug, Default)]
struct Home {
    free: Vec<Vec<u8>>,
    /// How many are in use.
    lent: usize,
}

/// One that is used.
struct Lent {
    bytes: Vec<u8>,
    home: Buffers,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut home = self.home.home();
        home.lent -= 1;
        let kept = (home.lent * 2).max(KEPT);
        home.free.truncate(kept);
        if home.free.len() < kept {
            home.free.push(std::mem::take(&mut self.bytes));
        }
    }
}

impl Buffers {
    fn home(&self) -> MutexGuard<'_, Home> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty one with room for a payload.
    pub(super) fn take(&self) -> Vec<u8> {
        let free = self.home().free.pop();
        let mut bytes = free.unwrap_or_else(|| Vec::with_capacity(MAX_PAYLOAD));
        bytes.clear();
        bytes
    }

    /// What was written into one; it comes back when nobody holds that any more.
    pub(super) fn lend(&self, bytes: Vec<u8>) -> Bytes {
        self.home().lent += 1;
        Bytes::from_owner(Lent { bytes, home: self.clone() })
    }

    /// A copy, in one of them where that is worth it.
    pub(super) fn copy(&self, data: &[u8]) -> Bytes {
        if data.len() < WORTH {
            return Bytes::copy_from_slice(data);
        }
        let mut bytes = self.take();
        bytes.extend_from_slice(data);
        self.lend(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_nobody_holds_what_is_in_it_and_few_are_kept() {
        let buffers = Buffers::default();
        let copies: Vec<Bytes> = (0..40_u8).map(|n| buffers.copy(&vec![n; WORTH])).collect();
        assert!(copies.iter().zip(0..40_u8).all(|(copy, n)| copy[..] == vec![n; WORTH]));
        drop((0..30).map(|_| buffers.copy(&[0; WORTH])).collect::<Vec<Bytes>>());
        assert_eq!(buffers.home().free.len(), 30, "while others are in use");
        let part = copies[3].slice(5..9);
        drop(copies);
        assert_eq!(buffers.home().free.len(), KEPT);
        assert_eq!(part[..], [3; 4], "what is held is not used again");
        assert!(buffers.take().is_empty());
        assert_eq!(buffers.copy(b"short")[..], b"short"[..]);
        assert_eq!(buffers.home().free.len(), KEPT - 1);
    }
}
