//! Waits: other interfaces, addresses or routes than before.

use std::io;
use std::time::Duration;

use super::sys;
use super::{Family, Interface};

/// Changes come in crowds: a card that comes up is a link, addresses and routes.
const CROWD: Duration = Duration::from_millis(50);

/// Tells when this machine's network has become another one: an interface, an address or a route came or went.
pub(crate) struct Changes {
    bell: sys::ChangeBell,
    before: Snapshot,
}

impl Changes {
    /// Watches the network namespace of the calling thread.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn watch() -> io::Result<Self> {
        // The bell first: what changes between the two rings it.
        Ok(Self { bell: sys::ChangeBell::hang()?, before: Snapshot::take() })
    }

    /// The next change. Cancel safe.
    ///
    /// # Errors
    /// When the system tells nothing any more.
    pub(crate) async fn next(&mut self) -> io::Result<()> {
        loop {
            self.bell.rung().await?;
            tokio::time::sleep(CROWD).await;
            let now = Snapshot::take();
            if now != self.before {
                self.before = now;
                return Ok(());
            }
        }
    }
}

/// What is compared: the kernel also tells of counters and of lifetimes that begin anew.
#[derive(PartialEq, Eq)]
struct Snapshot {
    interfaces: Vec<Interface>,
    routes: Option<String>,
}

impl Snapshot {
    fn take() -> Self {
        // A list that can not be read is no other network.
        Self { interfaces: Interface::list().unwrap_or_default(), routes: sys::route_table(Family::V4) }
    }
}
