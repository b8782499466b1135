//! Holds: buffers of one record's payload, used again and again: to give them back to the system and to have them filled with zeros
//! anew costs as much as to encrypt them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::lane::UNACKNOWLEDGED;
use super::record::MAX_PAYLOAD;

/// Buffers that are kept, at most: as much as a session may have on its way.
const MOST: usize = UNACKNOWLEDGED / MAX_PAYLOAD;

/// Shorter payloads have memory of their own.
pub(super) const WORTH: usize = 16 << 10;

/// The buffers that nobody uses now: of one session, all of its channels and paths.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffers(Arc<Mutex<Home>>);

#[derive(Debug, Default)]
struct Home {
    free: Vec<Vec<u8>>,
    /// How many of these nobody wanted since the last rest.
    unwanted: usize,
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
        if home.free.len() < MOST {
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
        let mut home = self.home();
        let free = home.free.pop();
        home.unwanted = home.unwanted.min(home.free.len());
        drop(home);
        let mut bytes = free.unwrap_or_else(|| Vec::with_capacity(MAX_PAYLOAD));
        bytes.clear();
        bytes
    }

    /// What was written into one; it comes back when nobody holds that any more.
    pub(super) fn lend(&self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { bytes, home: self.clone() })
    }

    /// Gives back to the system what nobody wanted since the last time. To be called now and then.
    pub(super) fn rest(&self) {
        let mut home = self.home();
        let kept = home.free.len() - home.unwanted;
        home.free.truncate(kept);
        if home.free.is_empty() {
            home.free = Vec::new();
        }
        home.unwanted = kept;
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
    fn a_buffer_comes_back_when_nobody_holds_what_is_in_it_and_goes_when_nobody_wants_it() {
        let buffers = Buffers::default();
        let copies: Vec<Bytes> = (0..40_u8).map(|n| buffers.copy(&vec![n; WORTH])).collect();
        assert!(copies.iter().zip(0..40_u8).all(|(copy, n)| copy[..] == vec![n; WORTH]));
        let part = copies[3].slice(5..9);
        drop(copies);
        assert_eq!(part[..], [3; 4], "what is held is not used again");
        assert_eq!(buffers.home().free.len(), 39);
        // It was in use until now.
        buffers.rest();
        assert_eq!(buffers.home().free.len(), 39);
        drop((0..10).map(|_| buffers.copy(&[0; WORTH])).collect::<Vec<Bytes>>());
        buffers.rest();
        assert_eq!(buffers.home().free.len(), 10, "what was wanted in between");
        buffers.rest();
        assert_eq!(buffers.home().free.capacity(), 0);
        assert!(buffers.take().is_empty());
        assert_eq!(buffers.copy(b"short")[..], b"short"[..]);
        assert!(buffers.home().free.is_empty());
    }

    #[test]
    fn no_more_are_kept_than_may_be_on_their_way() {
        let buffers = Buffers::default();
        drop((0..MOST + 9).map(|_| buffers.copy(&[0; WORTH])).collect::<Vec<Bytes>>());
        assert_eq!(buffers.home().free.len(), MOST);
    }
}
