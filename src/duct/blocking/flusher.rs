//! Waits: the thread that writes the messages of a burst when their sender does not get to it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::exit;
use super::sending::Sending;
use crate::base::task;
use crate::duct::burst::WAIT;

/// Turns without anything to write after which the thread sleeps until it is rung for.
const IDLE_TURNS: u32 = 10;
/// How long it sleeps before it ends.
const SLEEP: Duration = Duration::from_secs(1);

/// What a sender knows of its flusher.
#[derive(Debug, Default)]
pub(crate) enum Flusher {
    /// There is none.
    #[default]
    None,
    /// It looks for something to write every now and then.
    Awake(Arc<Bell>),
    /// It waits for the bell.
    Asleep(Arc<Bell>),
}

impl Flusher {
    /// There is nothing more to do for it.
    pub(crate) fn end(&self) {
        if let Self::Awake(bell) | Self::Asleep(bell) = self {
            bell.ring();
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock() = true;
        self.heard.notify_one();
    }

    /// False when it was not rung within the limit.
    fn wait(&self, limit: Duration) -> bool {
        let mut rung = self.rung.lock();
        if !*rung {
            self.heard.wait_for(&mut rung, limit);
        }
        std::mem::take(&mut rung)
    }
}

/// Sees to it that the flusher is awake. False when there can be none.
pub(crate) fn wake(flusher: &mut Flusher, sending: &Weak<Sending>) -> bool {
    *flusher = match std::mem::take(flusher) {
        Flusher::Awake(bell) => Flusher::Awake(bell),
        Flusher::Asleep(bell) => {
            bell.ring();
            Flusher::Awake(bell)
        }
        Flusher::None => {
            let bell = Arc::new(Bell::default());
            let (sending, its_bell) = (sending.clone(), bell.clone());
            exit::remember(&sending);
            if task::thread("duct-flusher", move || run(&sending, &its_bell)).is_err() {
                return false;
            }
            Flusher::Awake(bell)
        }
    };
    true
}

/// Ends with the duct, or when there was nothing to do for a while.
fn run(sending: &Weak<Sending>, bell: &Arc<Bell>) {
    let mut idle = 0;
    loop {
        std::thread::sleep(WAIT);
        let Some(here) = sending.upgrade() else { return };
        let (waited, mut state) = here.flush_turn();
        idle = if waited { 0 } else { idle + 1 };
        if idle < IDLE_TURNS {
            continue;
        }
        state.flusher = Flusher::Asleep(bell.clone());
        drop(state);
        drop(here);
        idle = 0;
        if !bell.wait(SLEEP) && !stay(sending) {
            return;
        }
    }
}

/// Whether somebody has woken the flusher at the last moment. If not, there is none any more.
fn stay(sending: &Weak<Sending>) -> bool {
    let Some(here) = sending.upgrade() else { return false };
    let (_, mut state) = here.flush_turn();
    if matches!(state.flusher, Flusher::Awake(_)) {
        return true;
    }
    state.flusher = Flusher::None;
    false
}
