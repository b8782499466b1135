//! Holds: what all connections of a server keep of frames that have not come whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What they may keep together.
#[derive(Debug)]
pub(super) struct Unfinished {
    most: usize,
    kept: AtomicUsize,
}

/// What one of them keeps. It is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Share {
    all: Arc<Unfinished>,
    kept: usize,
}

/// One more would be too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the unfinished messages of all connections come to more than {most} bytes")]
pub(super) struct TooMuch {
    most: usize,
}

impl Unfinished {
    /// Up to so many bytes.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, kept: AtomicUsize::new(0) })
    }

    pub(super) fn share(self: &Arc<Self>) -> Share {
        Share { all: self.clone(), kept: 0 }
    }
}

impl Share {
    /// From now on it keeps so much.
    pub(super) fn handle_kept(&mut self, bytes: usize) -> Result<(), TooMuch> {
        let before = std::mem::replace(&mut self.kept, bytes);
        if bytes <= before {
            self.all.kept.fetch_sub(before - bytes, Ordering::Relaxed);
            return Ok(());
        }
        let more = bytes - before;
        let kept = self.all.kept.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        if kept > self.all.most { Err(TooMuch { most: self.all.most }) } else { Ok(()) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.kept.fetch_sub(self.kept, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_keeps_more_than_is_left_is_told_and_what_is_dropped_is_free_again() {
        let all = Unfinished::new(100);
        let (mut first, mut second) = (all.share(), all.share());
        first.handle_kept(60).unwrap();
        second.handle_kept(40).unwrap();
        assert_eq!(second.handle_kept(41), Err(TooMuch { most: 100 }));
        drop(second);
        let mut third = all.share();
        third.handle_kept(40).unwrap();
        first.handle_kept(0).unwrap();
        third.handle_kept(100).unwrap();
        drop(third);
        assert_eq!(all.kept.load(Ordering::Relaxed), 0);
    }
}
