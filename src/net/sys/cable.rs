//! Touches: the far end of a cable into a network namespace, whose packets this process reads and writes: what a TUN device is for those who may not have one.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// The hardware address of the near end, so that its system takes what it is sent.
pub(crate) const NEAR: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// ETHTOOL_STXCSUM (linux/ethtool.h): whether checksums are left to the hardware.
const SET_TX_CHECKSUM: u32 = 0x17;
/// PACKET_IGNORE_OUTGOING (linux/if_packet.h).
const IGNORE_OUTGOING: libc::c_int = 23;

/// A packet socket on the far end of a veth pair; it is useless once that is gone.
#[derive(Debug)]
pub(crate) struct Cable {
    socket: File,
    index: libc::c_int,
}

impl Cable {
    /// Listens on `interface` in the calling thread's network namespace. Reads and writes do not wait.
    pub(crate) fn open(interface: &str) -> io::Result<Self> {
        let name = CString::new(interface)?;
        // SAFETY: the name is a string that ends in zero.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        let Ok(index @ 1..) = libc::c_int::try_from(index) else { return Err(io::Error::last_os_error()) };
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: the call takes no pointer.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and has no other owner.
        let cable = Self { socket: File::from(unsafe { OwnedFd::from_raw_fd(fd) }), index };
        cable.ignore_own()?;
        cable.bind()?;
        Ok(cable)
    }

    fn ignore_own(&self) -> io::Result<()> {
        let one: libc::c_int = 1;
        let size = size_of_val(&one) as libc::socklen_t;
        let value = (&raw const one).cast();
        // SAFETY: the option reads one int, which lives through the call.
        done(unsafe { libc::setsockopt(self.as_raw_fd(), libc::SOL_PACKET, IGNORE_OUTGOING, value, size) })
    }

    fn bind(&self) -> io::Result<()> {
        let address = self.address(libc::ETH_P_ALL as u16);
        let size = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address is a sockaddr_ll of this size, which lives through the call.
        done(unsafe { libc::bind(self.as_raw_fd(), (&raw const address).cast(), size) })
    }

    fn address(&self, protocol: u16) -> libc::sockaddr_ll {
        // SAFETY: a sockaddr_ll of zeros is a valid one.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol.to_be();
        address.sll_ifindex = self.index;
        address.sll_halen = NEAR.len() as u8;
        address.sll_addr[..NEAR.len()].copy_from_slice(&NEAR);
        address
    }

    /// One packet that came by the cable; not every one is IP.
    pub(crate) fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.socket).read(buffer)
    }

    /// Sends an IP packet into the cable.
    pub(crate) fn send(&self, packet: &[u8]) -> io::Result<usize> {
        let is_v6 = packet.first().is_some_and(|first| first >> 4 == 6);
        let address = self.address(if is_v6 { libc::ETH_P_IPV6 } else { libc::ETH_P_IP } as u16);
        let size = size_of_val(&address) as libc::socklen_t;
        let to = (&raw const address).cast();
        // SAFETY: the packet is as long as it says, the address a sockaddr_ll of this size; both live through it.
        let sent = unsafe { libc::sendto(self.as_raw_fd(), packet.as_ptr().cast(), packet.len(), 0, to, size) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

impl AsRawFd for Cable {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Makes the system compute the checksums of what leaves by `interface`, and cut it, as it would for a card
/// that cannot: whoever reads the far end gets packets as they are on a wire.
pub(crate) fn without_offload(interface: &str) -> io::Result<()> {
    // SAFETY: the call takes no pointer.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut value = EthtoolValue { command: SET_TX_CHECKSUM, data: 0 };
    // SAFETY: an ifreq of zeros is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the interface's name is too long"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: SIOCETHTOOL reads one ifreq and the value that it leads to, which both live through the call.
    done(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) })
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
