//! Decides: who may send to the relayed address, and which channels lead to whom (RFC 8656 sections 9 and 12).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::frame::{FIRST_CHANNEL, LAST_CHANNEL};

/// Permissions last five minutes, channels ten; both are renewed a minute earlier.
const PERMITTED: Duration = Duration::from_secs(300);
const PERMISSION: Duration = Duration::from_secs(240);
const CHANNEL: Duration = Duration::from_secs(540);

/// A channel that the server refused is not asked for again so soon.
const REFUSED: Duration = Duration::from_secs(300);

/// Permissions and channels at one time.
pub(super) const MOST: usize = 64;

#[derive(Debug)]
struct Permission {
    ip: IpAddr,
    /// Until when it lasts at the server, where it was granted.
    granted: Option<Instant>,
    /// When to ask again; none while it is being asked.
    due: Option<Instant>,
}

#[derive(Debug)]
struct Channel {
    number: u16,
    peer: SocketAddr,
    bound: bool,
    due: Option<Instant>,
}

/// The table of them.
#[derive(Debug, Default)]
pub(super) struct Peers {
    permissions: Vec<Permission>,
    channels: Vec<Channel>,
    numbered: u16,
}

/// What to ask the server for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Permit(IpAddr),
    Bind { channel: u16, peer: SocketAddr },
}

impl Peers {
    /// Wants somebody let in. `None` when the table is full; else whether the server has to be asked.
    pub(super) fn want(&mut self, ip: IpAddr) -> Option<bool> {
        if self.permissions.iter().any(|known| known.ip == ip) {
            return Some(false);
        }
        if self.permissions.len() >= MOST {
            return None;
        }
        self.permissions.push(Permission { ip, granted: None, due: None });
        Some(true)
    }

    pub(super) fn is_permitted(&self, ip: IpAddr) -> bool {
        self.permissions.iter().any(|known| known.ip == ip && known.granted.is_some())
    }

    /// True while the server's permission lasts, whether its renewal is answered or not.
    pub(super) fn is_still_granted(&self, now: Instant, ip: IpAddr) -> bool {
        self.permissions.iter().any(|known| known.ip == ip && known.granted.is_some_and(|until| now < until))
    }

    /// True when it was not before.
    pub(super) fn granted(&mut self, now: Instant, ip: IpAddr) -> bool {
        let Some(known) = self.permissions.iter_mut().find(|known| known.ip == ip) else { return false };
        known.due = Some(now + PERMISSION);
        known.granted.replace(now + PERMITTED).is_none()
    }

    pub(super) fn refused(&mut self, ip: IpAddr) {
        self.permissions.retain(|known| known.ip != ip);
        self.channels.retain(|channel| channel.peer.ip() != ip);
    }

    /// The channel that leads to a peer, once it is bound. One is wanted where there is none yet and none was refused.
    pub(super) fn channel_to(&mut self, peer: SocketAddr) -> (Option<u16>, Option<Ask>) {
        if let Some(known) = self.channels.iter().find(|channel| channel.peer == peer) {
            return (known.bound.then_some(known.number), None);
        }
        // A number may not be given to another peer for a while: each is used once.
        let number = FIRST_CHANNEL + self.numbered;
        if self.channels.len() >= MOST || number > LAST_CHANNEL {
            return (None, None);
        }
        self.numbered += 1;
        self.channels.push(Channel { number, peer, bound: false, due: None });
        (None, Some(Ask::Bind { channel: number, peer }))
    }

    /// A server may send through a channel before its answer has come.
    pub(super) fn peer_of(&self, number: u16) -> Option<SocketAddr> {
        self.channels.iter().find(|channel| channel.number == number).map(|channel| channel.peer)
    }

    /// A channel was bound; it lets its peer in as well.
    pub(super) fn bound(&mut self, now: Instant, number: u16) {
        if let Some(channel) = self.channels.iter_mut().find(|channel| channel.number == number) {
            (channel.bound, channel.due) = (true, Some(now + CHANNEL));
        }
    }

    /// It was not: datagrams go without it.
    pub(super) fn unbound(&mut self, now: Instant, number: u16) {
        if let Some(channel) = self.channels.iter_mut().find(|channel| channel.number == number) {
            (channel.bound, channel.due) = (false, Some(now + REFUSED));
        }
    }

    /// What has to be renewed now.
    pub(super) fn due(&mut self, now: Instant) -> Option<Ask> {
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        if let Some(known) = self.permissions.iter_mut().find(|known| is_due(known.due)) {
            known.due = None;
            return Some(Ask::Permit(known.ip));
        }
        let channel = self.channels.iter_mut().find(|channel| is_due(channel.due))?;
        channel.due = None;
        Some(Ask::Bind { channel: channel.number, peer: channel.peer })
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        let permissions = self.permissions.iter().filter_map(|known| known.due);
        permissions.chain(self.channels.iter().filter_map(|channel| channel.due)).min()
    }
}
