//! Touches: moving bytes between two sockets inside the kernel (splice(2), Linux).

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// Bytes that a kernel pipe is asked to hold. The kernel may grant less (`fs.pipe-max-size`,
/// `fs.pipe-user-pages-soft`), which costs system calls and nothing else.
const CAPACITY: libc::c_int = 1 << 20;
/// Bytes that one call is asked to take in. More than [`CAPACITY`], which counts pages of 4 KiB: a
/// socket's pieces are larger. Of 1, 2, 4 and 8 MiB, 2 measured best.
const FILL: usize = 2 << 20;

/// A pipe of the kernel's that holds bytes on their way from one socket to another.
#[derive(Debug)]
pub(crate) struct KernelPipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
}

impl KernelPipe {
    pub(crate) fn new() -> io::Result<Self> {
        let mut ends: [RawFd; 2] = [-1; 2];
        // SAFETY: `ends` is the array of two descriptors that the call fills.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: both descriptors are fresh and owned by nobody else.
        let (read, write) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
        // SAFETY: fcntl on a descriptor that we own, with an integer argument. A refusal leaves the
        // default size, which works too.
        unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, CAPACITY) };
        Ok(Self { read, write, held: 0 })
    }

    /// Bytes taken in and not yet given out.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Moves what `source` has into the pipe; 0 is the end of the stream.
    pub(crate) fn fill(&mut self, source: &impl AsFd) -> io::Result<usize> {
        let n = splice(source.as_fd().as_raw_fd(), self.write.as_raw_fd(), FILL)?;
        self.held += n;
        Ok(n)
    }

    /// Moves held bytes on into `sink`.
    pub(crate) fn drain(&mut self, sink: &impl AsFd) -> io::Result<usize> {
        let n = splice(self.read.as_raw_fd(), sink.as_fd().as_raw_fd(), self.held)?;
        self.held = self.held.saturating_sub(n);
        Ok(n)
    }
}

fn splice(from: RawFd, to: RawFd, most: usize) -> io::Result<usize> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    // SAFETY: both descriptors are open for the whole call; null offsets are what sockets and pipes want.
    let n = unsafe { libc::splice(from, ptr::null_mut(), to, ptr::null_mut(), most, flags) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}
