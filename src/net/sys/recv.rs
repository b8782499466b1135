//! Touches: reading a socket into memory that was not written before.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::{io, mem, ptr};

use bytes::{BufMut, BytesMut};
use socket2::{SockAddr, SockAddrStorage};

/// Reads once into the room that `buf` has left; 0 is the end of a stream.
pub(crate) fn recv(socket: &impl AsFd, buf: &mut impl BufMut) -> io::Result<usize> {
    let room = buf.chunk_mut();
    // SAFETY: the kernel writes at most `room.len()` bytes to the start of `room`, which is ours.
    let n = unsafe { libc::recv(socket.as_fd().as_raw_fd(), room.as_mut_ptr().cast(), room.len(), 0) };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written these `n` bytes.
    unsafe { buf.advance_mut(n) };
    Ok(n)
}

/// A datagram's sender; its bytes are in the buffer that it was read into.
pub(crate) type Sender = SocketAddr;

/// Reads one datagram, and a second one if it is there already: who gets only the first knows
/// without another call that the socket is empty.
#[cfg(target_os = "linux")]
pub(crate) fn recv_two(socket: &impl AsFd, bufs: [&mut BytesMut; 2]) -> io::Result<(Sender, Option<Sender>)> {
    let mut names = [SockAddrStorage::zeroed(), SockAddrStorage::zeroed()];
    let mut rooms: [libc::iovec; 2] = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; 2];
    // SAFETY: an all-zero mmsghdr is valid: no name, no room, no control data.
    let mut heads: [libc::mmsghdr; 2] = unsafe { mem::zeroed() };
    let [first, second] = bufs;
    for (n, buf) in [&mut *first, &mut *second].into_iter().enumerate() {
        let room = buf.spare_capacity_mut();
        rooms[n] = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
        let head = &mut heads[n].msg_hdr;
        head.msg_iov = &raw mut rooms[n];
        head.msg_iovlen = 1;
        head.msg_namelen = names[n].size_of();
        // SAFETY: any bytes are a valid storage; the kernel writes an address into it.
        head.msg_name = ptr::from_mut(unsafe { names[n].view_as::<libc::sockaddr_storage>() }).cast();
    }
    let flags = libc::MSG_DONTWAIT;
    // SAFETY: heads, rooms and names all stand above and outlive the call; the kernel writes no
    // more than the room of each buffer.
    let got = unsafe { libc::recvmmsg(socket.as_fd().as_raw_fd(), heads.as_mut_ptr(), 2, flags as _, ptr::null_mut()) };
    if got < 1 {
        return Err(io::Error::last_os_error());
    }
    let [head_a, head_b] = heads;
    let [name_a, name_b] = names;
    let sender = |name: SockAddrStorage, head: &libc::mmsghdr| {
        // SAFETY: the kernel has written an address of this length.
        unsafe { SockAddr::new(name, head.msg_hdr.msg_namelen) }.as_socket().ok_or(io::ErrorKind::InvalidData)
    };
    // SAFETY: the kernel has written this many bytes into the spare room of the buffer.
    unsafe { first.set_len(first.len() + head_a.msg_len as usize) };
    let from = sender(name_a, &head_a)?;
    if got < 2 {
        return Ok((from, None));
    }
    // SAFETY: as above, for the second buffer.
    unsafe { second.set_len(second.len() + head_b.msg_len as usize) };
    Ok((from, Some(sender(name_b, &head_b)?)))
}
