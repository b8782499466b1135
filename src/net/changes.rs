//! Waits: other interfaces, addresses or routes than before, or the end of a sleep, in which all of that may have changed.

use std::io;
use std::time::Duration;

use super::sys;
use super::{Family, Interface, table};

/// Changes come in crowds: a card that comes up is a link, addresses and routes.
const CROWD: Duration = Duration::from_millis(50);

/// Who was not let run for more than this, and at most twice as long, has slept: mappings of NATs and the patience of others are of that order.
const SLEEP: Duration = Duration::from_secs(5);

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// An interface, an address or a route came or went.
    Network,
    /// The machine has slept, or the program was stopped: what others know of us is old.
    Awake,
}

/// Never, where the system does not tell.
async fn awake(sleep: &mut Option<sys::SleepBell>) -> io::Result<()> {
    match sleep {
        Some(sleep) => sleep.rung().await,
        None => std::future::pending().await,
    }
}

/// Tells when this machine's network has become another one, or may have.
pub(crate) struct Changes {
    bell: sys::ChangeBell,
    /// Where the system has one.
    sleep: Option<sys::SleepBell>,
    before: Snapshot,
    /// The bell has rung, and nothing was looked at since.
    rung: bool,
}

impl Changes {
    /// Watches the network namespace of the calling thread.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn watch() -> io::Result<Self> {
        // The bell first: what changes between the two rings it.
        let bell = sys::ChangeBell::hang()?;
        let sleep = sys::SleepBell::hang(SLEEP)
            .inspect_err(|error| tracing::debug!(%error, "the end of a sleep is not noticed"))
            .ok();
        Ok(Self { bell, sleep, before: Snapshot::take(), rung: false })
    }

    /// The next change. Cancel safe.
    ///
    /// # Errors
    /// When the system tells nothing any more.
    pub(crate) async fn next(&mut self) -> io::Result<Change> {
        loop {
            tokio::select! {
                rung = self.bell.rung(), if !self.rung => {
                    rung?;
                    self.rung = true;
                }
                () = tokio::time::sleep(CROWD), if self.rung => {
                    self.rung = false;
                    let now = Snapshot::take();
                    if now != self.before {
                        self.before = now;
                        return Ok(Change::Network);
                    }
                }
                slept = awake(&mut self.sleep) => {
                    slept?;
                    self.before = Snapshot::take();
                    return Ok(Change::Awake);
                }
            }
        }
    }
}

/// What is compared: the kernel also tells of counters and of lifetimes that begin anew. Of IPv6's routes those that lead
/// out: the rest follow the addresses, or come and go with neighbours.
#[derive(PartialEq, Eq)]
struct Snapshot {
    interfaces: Vec<Interface>,
    routes: Vec<String>,
}

impl Snapshot {
    fn take() -> Self {
        // A list that can not be read is no other network.
        let v4 = sys::route_table(Family::V4);
        let v6 = sys::route_table(Family::V6).map(|text| table::default_routes(Family::V6, &text));
        Self { interfaces: Interface::list().unwrap_or_default(), routes: v4.into_iter().chain(v6).collect() }
    }
}
