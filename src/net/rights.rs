//! Touches: descriptors that travel over Unix sockets beside the bytes (SCM_RIGHTS).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::buf::Limit;
use bytes::{BufMut, BytesMut};
use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

/// What the kernel takes at most in one message (`SCM_MAX_FD` of Linux).
pub(crate) const MOST: usize = 253;

/// Sends bytes, at least one, with descriptors that arrive with the first of them. Returns how many bytes went.
pub(crate) fn send(socket: &impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>], wait: bool) -> io::Result<usize> {
    let mut space = vec![MaybeUninit::uninit(); cmsg_space!(ScmRights(fds.len()))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut flags = SendFlags::NOSIGNAL;
    flags.set(SendFlags::DONTWAIT, !wait);
    Ok(rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?)
}

/// What one read brought.
pub(crate) struct Read {
    /// Bytes; 0 is the end of the stream.
    pub(crate) bytes: usize,
    /// Descriptors that came with them, closed at `exec`.
    pub(crate) fds: Vec<OwnedFd>,
    /// There were more descriptors than room; the kernel has closed the others.
    pub(crate) lost: bool,
}

/// Reads bytes into the room of `buf`, and up to `most` descriptors that came with them.
pub(crate) fn recv(socket: &impl AsFd, buf: &mut Limit<&mut BytesMut>, most: usize, wait: bool) -> io::Result<Read> {
    let room = buf.remaining_mut();
    let buf = buf.get_mut();
    let before = buf.len();
    buf.resize(before + room, 0);
    let mut space = vec![MaybeUninit::uninit(); cmsg_space!(ScmRights(most.min(MOST)))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut flags = RecvFlags::empty();
    #[cfg(target_os = "linux")]
    flags.insert(RecvFlags::CMSG_CLOEXEC);
    flags.set(RecvFlags::DONTWAIT, !wait);
    let got = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut buf[before..])], &mut control, flags);
    buf.truncate(before + got.as_ref().map_or(0, |got| got.bytes));
    let got = got?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    #[cfg(not(target_os = "linux"))]
    for fd in &fds {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
    }
    Ok(Read { bytes: got.bytes, fds, lost: got.flags.contains(ReturnFlags::CTRUNC) })
}
