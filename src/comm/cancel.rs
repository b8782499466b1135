//! Waits: the word to stop.

use std::future::Future;

use tokio::sync::watch;

/// Tells consumers to stop. Clones are the same: one word ends all who were given it, whether it comes
/// before or after they begin.
#[derive(Clone, Debug)]
pub struct Cancel(watch::Sender<bool>);

impl Default for Cancel {
    fn default() -> Self {
        Self::new()
    }
}

impl Cancel {
    /// Not yet said.
    pub fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Says it. A consumer then takes no more, finishes what it has in hand, and ends.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }

    /// Whether it was said.
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is said. Cancel safe.
    pub async fn cancelled(&self) {
        let mut said = self.0.subscribe();
        // The sender is held by `self`, so this ends only when the word was said.
        let _ = said.wait_for(|said| *said).await.map(drop);
    }

    /// Says it when `event` is over, such as Ctrl-C: `cancel.when(tokio::signal::ctrl_c())`. To be awaited beside
    /// the consuming.
    pub async fn when(&self, event: impl Future) {
        event.await;
        self.cancel();
    }
}
