//! Touches: who reports that a datagram went too far (ICMP time exceeded), by Linux's queue of errors.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};

use crate::net::Family;

/// Room for the control messages of one error: the error, and the address that reports it.
const ROOM: usize = 256;

/// Asks the kernel to keep the errors that datagrams of this socket cause.
pub(crate) fn keep_errors(socket: &impl AsFd, family: Family) -> io::Result<()> {
    let (level, name) = names(family);
    let on: libc::c_int = 1;
    let len = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or_default();
    // SAFETY: the kernel reads one int from `on`, which lives until the call has returned.
    let done = unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw const on).cast(), len) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes one error from the queue: the address of the router that reports that a datagram's hops ran out, or nothing
/// where the error is another.
///
/// # Errors
/// `WouldBlock` when there is none.
pub(crate) fn take_error(socket: &impl AsFd, family: Family) -> io::Result<Option<IpAddr>> {
    // The kernel wants control messages aligned as their headers are.
    let mut control = [0u64; ROOM / size_of::<u64>()];
    let mut payload = [0u8; 64];
    let mut part = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() };
    // SAFETY: an all-zero msghdr is valid: no address, no parts, no control.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: the kernel writes to `payload` and `control` within the lengths given, both live until after the call.
    let got = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, flags) };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(reporter(&message, family))
}

fn reporter(message: &libc::msghdr, family: Family) -> Option<IpAddr> {
    let wanted = names(family);
    // SAFETY: the kernel filled the control buffer that `message` points to, which outlives this call; the macros
    // stay within its length.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: as above: null, or a header within the buffer.
    while let Some(found) = unsafe { header.as_ref() } {
        if (found.cmsg_level, found.cmsg_type) == wanted {
            // SAFETY: a message of this kind holds a sock_extended_err.
            let error = unsafe { libc::CMSG_DATA(header) }.cast::<libc::sock_extended_err>();
            // SAFETY: behind it stands the reporter's address, which only a pointer into the whole buffer may reach.
            let address = unsafe { libc::SO_EE_OFFENDER(error) };
            // SAFETY: as above, and the buffer is aligned for it.
            return if is_time_exceeded(unsafe { &*error }) { ip(address) } else { None };
        }
        // SAFETY: as for the first header.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    None
}

/// ICMP type 11 (RFC 792), ICMPv6 type 3 (RFC 4443 section 3.3).
fn is_time_exceeded(error: &libc::sock_extended_err) -> bool {
    matches!((error.ee_origin, error.ee_type), (libc::SO_EE_ORIGIN_ICMP, 11) | (libc::SO_EE_ORIGIN_ICMP6, 3))
}

fn ip(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: the kernel puts a whole address behind each error, with its family first.
    let family = unsafe { address.as_ref() }?.sa_family;
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: an address of this family is a sockaddr_in.
            let v4 = unsafe { &*address.cast::<libc::sockaddr_in>() };
            Some(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: an address of this family is a sockaddr_in6.
            let v6 = unsafe { &*address.cast::<libc::sockaddr_in6>() };
            Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

fn names(family: Family) -> (libc::c_int, libc::c_int) {
    match family {
        Family::V4 => (libc::IPPROTO_IP, libc::IP_RECVERR),
        Family::V6 => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    }
}
