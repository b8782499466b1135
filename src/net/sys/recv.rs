//! Touches: reading a socket into memory that was not written before.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use bytes::BufMut;

/// Reads once into the room that `buf` has left; 0 is the end of a stream.
pub(crate) fn recv(socket: &impl AsFd, buf: &mut impl BufMut) -> io::Result<usize> {
    recv_with(socket, buf, 0)
}

/// As [`recv`], with the flags of `recv(2)`.
pub(crate) fn recv_with(socket: &impl AsFd, buf: &mut impl BufMut, flags: libc::c_int) -> io::Result<usize> {
    let room = buf.chunk_mut();
    // SAFETY: the kernel writes at most `room.len()` bytes to the start of `room`, which is ours.
    let n = unsafe { libc::recv(socket.as_fd().as_raw_fd(), room.as_mut_ptr().cast(), room.len(), flags) };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written these `n` bytes.
    unsafe { buf.advance_mut(n) };
    Ok(n)
}

/// Reads once, and tells whether the read took everything that was there: it ended neither because the room was full
/// nor at descriptors, which are not taken. 0 bytes are the end of a stream.
#[cfg(feature = "duct")]
pub(crate) fn drain(socket: &impl AsFd, buf: &mut impl BufMut) -> io::Result<(usize, bool)> {
    let room = buf.chunk_mut();
    let len = room.len();
    let mut into = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: len };
    // SAFETY: all of its fields may be zero, pointers included.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut into;
    message.msg_iovlen = 1;
    // SAFETY: the kernel writes at most `len` bytes to the start of `room`, which is ours; there is no room for
    // anything else.
    let n = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, 0) };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written these `n` bytes.
    unsafe { buf.advance_mut(n) };
    Ok((n, n > 0 && n < len && message.msg_flags & libc::MSG_CTRUNC == 0))
}
