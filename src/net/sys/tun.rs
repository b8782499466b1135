//! Touches: TUN devices: network interfaces whose packets this process reads and writes.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

/// An interface of the namespace that it was made in; it is gone when this value is dropped.
#[derive(Debug)]
pub(crate) struct Tun(std::fs::File);

/// Where the kernel offers them.
pub(crate) const DEVICE: &str = "/dev/net/tun";

impl Tun {
    /// Makes the interface `name` in the calling thread's network namespace. Reads and writes do not wait.
    pub(crate) fn create(name: &str) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE)?;
        // SAFETY: an ifreq of zeros is a valid one.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if name.len() >= request.ifr_name.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the interface's name is too long"));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: TUNSETIFF reads and writes one ifreq, which lives through the call.
        if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(file))
    }

    /// One packet that the system sent by this interface.
    pub(crate) fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(buffer)
    }

    /// Hands one packet to the system as if it had arrived on this interface.
    pub(crate) fn send(&self, packet: &[u8]) -> io::Result<usize> {
        (&self.0).write(packet)
    }
}

impl AsRawFd for Tun {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
