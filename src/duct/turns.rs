//! Waits: state that one task at a time has: for a moment and in place where it need not wait, or taken out for as long
//! as it waits.
//!
//! A lock of the runtime alone would do, and would cost a small message a good part of its time.

use std::ops::{Deref, DerefMut};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Mutex as Queue, MutexGuard as Turn};

/// The state is in its slot unless somebody has taken it.
#[derive(Debug)]
pub(crate) struct Turns<T> {
    slot: Mutex<Option<Box<T>>>,
    /// In which those who take it stand, first come, first served.
    queue: Queue<()>,
}

/// The slot, which nobody else touches as long as this is held: never over an `.await`.
pub(crate) type InPlace<'a, T> = MutexGuard<'a, Option<Box<T>>>;

/// The state, taken out. It goes back when this is dropped.
pub(crate) struct Taken<'a, T> {
    turns: &'a Turns<T>,
    /// There until the drop.
    state: Option<Box<T>>,
    _turn: Turn<'a, ()>,
}

impl<T> Turns<T> {
    pub(crate) fn new(state: T) -> Self {
        Self { slot: Mutex::new(Some(Box::new(state))), queue: Queue::new(()) }
    }

    /// The slot, which is empty while somebody has taken the state; `None` when another thread looks into it.
    #[inline]
    pub(crate) fn in_place(&self) -> Option<InPlace<'_, T>> {
        self.slot.try_lock()
    }

    /// Takes the state out of the slot; gives the slot back when somebody waits for it already.
    pub(crate) fn take_now<'a>(&'a self, mut slot: InPlace<'a, T>) -> Result<Taken<'a, T>, InPlace<'a, T>> {
        let Ok(turn) = self.queue.try_lock() else { return Err(slot) };
        match slot.take() {
            state @ Some(_) => Ok(Taken { turns: self, state, _turn: turn }),
            None => Err(slot),
        }
    }

    /// Takes the state, when those who wait for it already have had it.
    ///
    /// Cancel safe.
    pub(crate) async fn take(&self) -> Taken<'_, T> {
        let turn = match self.queue.try_lock() {
            Ok(turn) => turn,
            Err(_) => self.queue.lock().await,
        };
        loop {
            let state = self.slot.try_lock().and_then(|mut slot| slot.take());
            if state.is_some() {
                return Taken { turns: self, state, _turn: turn };
            }
            // Another thread has it in place, for no longer than it takes to write a message down.
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn get_mut(&mut self) -> Option<&mut T> {
        self.slot.get_mut().as_deref_mut()
    }
}

impl<T> Deref for Taken<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // It is made with the state, which only the drop takes.
        self.state.as_deref().expect("the state is there until the drop")
    }
}

impl<T> DerefMut for Taken<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // As above.
        self.state.as_deref_mut().expect("the state is there until the drop")
    }
}

impl<T> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        // Who looks into the empty slot at this moment leaves at once.
        *self.turns.slot.lock() = self.state.take();
    }
}

#[cfg(test)]
#[path = "tests/turns.rs"]
mod tests;
