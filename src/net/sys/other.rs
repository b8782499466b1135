//! Touches: interfaces where no system-specific file exists yet (untested): names, indices and flags
//! as if-addrs tells them, no hardware address and no MTU.

use std::collections::BTreeMap;
use std::io;

use crate::net::interface::Link;
use crate::net::{Family, Flags};

/// Every interface that has an address.
pub(crate) fn links() -> io::Result<Vec<(String, Link)>> {
    let mut found: BTreeMap<String, Link> = BTreeMap::new();
    for entry in if_addrs::get_if_addrs()? {
        let flags = Flags {
            up: true,
            running: entry.is_oper_up(),
            loopback: entry.is_loopback(),
            point_to_point: entry.is_p2p(),
            ..Flags::default()
        };
        found.insert(entry.name.clone(), Link { index: entry.index.unwrap_or(0), flags, ..Link::default() });
    }
    Ok(found.into_iter().collect())
}

/// No table is read here: the default interface is found by the source address that the kernel chooses.
pub(crate) fn route_table(_family: Family) -> Option<String> {
    None
}

/// Not done here: a measurement of the MTU then says that it failed.
pub(crate) fn never_fragment(_socket: &impl Sized, _family: Family) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Not done here: how many NATs stand in a row is then not told by the hops.
pub(crate) fn keep_errors(_socket: &impl Sized, _family: Family) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// As [`keep_errors`].
pub(crate) fn take_error(_socket: &impl Sized, _family: Family) -> io::Result<Option<std::net::IpAddr>> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Rings every few seconds, so that whoever listens looks for himself.
#[cfg(feature = "peer")]
pub(crate) struct ChangeBell;

#[cfg(feature = "peer")]
impl ChangeBell {
    pub(crate) fn hang() -> io::Result<Self> {
        Ok(Self)
    }

    pub(crate) async fn rung(&mut self) -> io::Result<()> {
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        Ok(())
    }
}

/// Rings when the system's clock has gone on more than the program.
#[cfg(feature = "peer")]
pub(crate) struct SleepBell(std::time::Duration);

#[cfg(feature = "peer")]
impl SleepBell {
    pub(crate) fn hang(period: std::time::Duration) -> io::Result<Self> {
        Ok(Self(period))
    }

    pub(crate) async fn rung(&mut self) -> io::Result<()> {
        loop {
            let begun = std::time::SystemTime::now();
            tokio::time::sleep(self.0).await;
            // A clock that was put back says nothing.
            if begun.elapsed().is_ok_and(|elapsed| elapsed >= 2 * self.0) {
                return Ok(());
            }
        }
    }
}
