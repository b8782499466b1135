//! Touches: messages that wait are sent before an orderly exit of the process.

use std::sync::Weak;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::sending::Sending;
use crate::net::sys;

/// How long an exit may take because of ducts whose other ends take nothing.
const LIMIT: Duration = Duration::from_secs(1);

/// The ducts that have gathered messages at some time.
static DUCTS: Mutex<Vec<Weak<Sending>>> = Mutex::new(Vec::new());

/// Has the duct flushed when the process exits.
pub(crate) fn remember(sending: &Weak<Sending>) {
    static ASKED: std::sync::Once = std::sync::Once::new();
    ASKED.call_once(|| {
        if !sys::at_exit(flush_all) {
            tracing::warn!("the system does not tell of the exit: call flush before it");
        }
    });
    let mut ducts = DUCTS.lock();
    ducts.retain(|other| other.strong_count() > 0 && !other.ptr_eq(sending));
    ducts.push(sending.clone());
}

/// Runs when the process exits, beside the other threads, which run on.
extern "C" fn flush_all() {
    let until = Instant::now() + LIMIT;
    let Some(ducts) = DUCTS.try_lock_until(until) else { return };
    for sending in ducts.iter().filter_map(Weak::upgrade) {
        sending.flush_at_exit(until);
        // Its end is the process's: no goodbye from here.
        std::mem::forget(sending);
    }
}
