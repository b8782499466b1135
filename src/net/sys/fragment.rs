//! Touches: datagrams that must not be cut into fragments, for measuring what a path lets through whole.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::net::Family;

/// Sets DF on what the socket sends, whatever the kernel believes of the path: a datagram that is too long
/// for the card is refused, one that is too long for a later link is lost.
pub(crate) fn never_fragment(socket: &impl AsFd, family: Family) -> io::Result<()> {
    let (level, name, value) = match family {
        Family::V4 => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
        Family::V6 => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE),
    };
    let len = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or_default();
    // SAFETY: the kernel reads one int from `value`, which lives until the call has returned.
    let result = unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw const value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
