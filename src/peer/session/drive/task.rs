//! Waits: the session's task: its timers, its paths as they come, and its end.

use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};

use super::{Carrier, Ended, Inner, LAST, PARTING, PATIENCE, PathId, REFUSALS, Role, Shared, UNGREETED};
use crate::base::task::Nursery;
use crate::peer::session::carry::carry;

impl Shared {
    pub(super) fn end(&self, why: Ended) {
        let woken = self.with(|inner| {
            if inner.ended.is_none() {
                inner.ended = Some(why);
            }
            let mut woken: Vec<Waker> = inner.readers.drain().map(|(_, waker)| waker).collect();
            woken.extend(inner.writers.drain().map(|(_, waker)| waker));
            woken.append(&mut inner.acceptors);
            woken
        });
        woken.into_iter().for_each(Waker::wake);
        self.ended.send_if_modified(|ended| ended.is_none().then(|| *ended = Some(why)).is_some());
        self.bell.notify_one();
    }

    /// When the session's task has something to do; an error when it is over, with the reason.
    pub(super) fn next(&self) -> Result<Instant, Ended> {
        let mut inner = self.lock();
        let now = Instant::now();
        let due = inner.next(now)?;
        // What is due at once is as late as the timer is, and not later.
        inner.armed = due.max(inner.armed.min(now));
        Ok(inner.armed)
    }
}

impl Inner {
    fn next(&mut self, now: Instant) -> Result<Instant, Ended> {
        if let Some(ended) = self.ended {
            return Err(ended);
        }
        if self.state.is_over() {
            return Err(Ended::Closed);
        }
        if self.lines.is_empty() {
            if self.refusals >= REFUSALS {
                return Err(Ended::Refused);
            }
            let since = *self.orphaned.get_or_insert(now);
            // Nobody comes back to say goodbye.
            let limit = match self.closing {
                Some(_) => LAST,
                None if self.state.is_greeted() => self.patience,
                // The race for the first path ends by itself, and gives the session up.
                None if self.next_path == 0 && self.state.role == Role::Caller => PATIENCE,
                None => UNGREETED,
            };
            if now >= since + limit {
                return Err(if self.closing.is_some() { Ended::Closed } else { Ended::Lost });
            }
            let moves = self.next_move.map(|(_, due)| due);
            return Ok(moves.map_or(since + limit, |due| due.min(since + limit)));
        }
        if self.state.is_greeted() {
            self.orphaned = None;
        }
        let closing = self.closing.map(|since| since + PARTING);
        if closing.is_some_and(|due| now >= due) {
            return Err(Ended::Closed);
        }
        let (timer, moves) = (self.state.poll_timeout(), self.next_move.map(|(_, due)| due));
        Ok([timer, closing, moves].into_iter().flatten().min().unwrap_or(now + UNGREETED))
    }
}

/// The session's task.
pub(super) async fn run(shared: Arc<Shared>, mut new_paths: mpsc::Receiver<(PathId, Carrier)>) {
    let mut paths: Nursery<()> = Nursery::new(&Handle::current());
    let why = loop {
        let due = match shared.next() {
            Ok(due) => due,
            Err(why) => break why,
        };
        tokio::select! {
            Some((id, carrier)) = new_paths.recv() => paths.begin(carry(shared.clone(), id, carrier)),
            _ = paths.next(), if !paths.is_empty() => {}
            () = shared.bell.notified() => {}
            () = sleep_until(due.into()) => {
                shared.with(|inner| inner.state.handle_timeout(due, Instant::now()));
                shared.heed_move();
            }
        }
    };
    shared.end(why);
    // The other end is to hear that it was heard: the paths say what is left and end.
    shared.with(|inner| inner.lines.values().for_each(|line| line.bell.notify_one()));
    let parted = async { while paths.next().await.is_some() {} };
    if timeout(LAST, parted).await.is_err() {
        tracing::debug!("the peer did not part in time");
    }
    shared.with(|inner| inner.lines.clear());
}
