//! Touches: interfaces and route tables as Linux tells them, for the calling thread's network namespace.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::AsRawFd;
use std::{fs, io, mem, ptr};

use crate::net::interface::{Link, without_label};
use crate::net::{Family, Flags, Mac};

/// Every interface by name: index, hardware address, MTU and flags, also of those that have no address.
pub(crate) fn links() -> io::Result<Vec<(String, Link)>> {
    let list = List::get()?;
    let asker = asking_socket()?;
    let mut found: BTreeMap<String, Link> = BTreeMap::new();
    let mut entry = list.0;
    // SAFETY: getifaddrs returned a list whose entries stay valid until `list` is dropped.
    while let Some(item) = unsafe { entry.as_ref() } {
        // SAFETY: each entry's name is a string that ends in zero.
        let name = unsafe { CStr::from_ptr(item.ifa_name) }.to_string_lossy();
        let link = found.entry(without_label(&name).to_owned()).or_default();
        link.flags = flags(item.ifa_flags);
        // SAFETY: each entry's address is null or valid for as long as the list.
        let family = unsafe { item.ifa_addr.as_ref() }.map(|addr| i32::from(addr.sa_family));
        if family == Some(libc::AF_PACKET) {
            // SAFETY: an address of this family is a sockaddr_ll, which is longer than a sockaddr.
            let hardware = unsafe { &*item.ifa_addr.cast::<libc::sockaddr_ll>() };
            link.index = hardware.sll_ifindex.unsigned_abs();
            link.mac = mac(hardware);
        }
        entry = item.ifa_next;
    }
    for (name, link) in &mut found {
        // An interface without a hardware address (a tunnel, a VPN) has no such entry.
        if link.index == 0 {
            link.index = index(name);
        }
        link.mtu = mtu(&asker, name);
    }
    Ok(found.into_iter().filter(|(_, link)| link.index != 0).collect())
}

/// The text of the kernel's route table of a family, for this thread's network namespace.
pub(crate) fn route_table(family: Family) -> Option<String> {
    let name = match family {
        Family::V4 => "route",
        Family::V6 => "ipv6_route",
    };
    fs::read_to_string(format!("/proc/thread-self/net/{name}")).ok()
}

/// The list that getifaddrs allocates, freed with its owner.
struct List(*mut libc::ifaddrs);

impl List {
    fn get() -> io::Result<Self> {
        let mut head = ptr::null_mut();
        // SAFETY: `head` is a place for one pointer, which is all that the call writes.
        if unsafe { libc::getifaddrs(&raw mut head) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(head))
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: the list came from getifaddrs and is freed once.
        unsafe { libc::freeifaddrs(self.0) }
    }
}

fn flags(bits: libc::c_uint) -> Flags {
    let has = |flag: libc::c_int| bits & flag.unsigned_abs() != 0;
    Flags {
        up: has(libc::IFF_UP),
        running: has(libc::IFF_RUNNING),
        loopback: has(libc::IFF_LOOPBACK),
        point_to_point: has(libc::IFF_POINTOPOINT),
        broadcast: has(libc::IFF_BROADCAST),
        multicast: has(libc::IFF_MULTICAST),
    }
}

fn mac(hardware: &libc::sockaddr_ll) -> Option<Mac> {
    let bytes: [u8; 6] = hardware.sll_addr.get(..6)?.try_into().ok()?;
    (hardware.sll_halen == 6 && bytes != [0; 6]).then_some(Mac(bytes))
}

/// The kernel's number for a name; 0 when it has none by now.
fn index(name: &str) -> u32 {
    let Ok(name) = CString::new(name) else { return 0 };
    // SAFETY: the name ends in zero and lives for the call.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

/// A socket to ask the kernel about interfaces with; it never carries a packet.
fn asking_socket() -> io::Result<socket2::Socket> {
    let unix = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::DGRAM, None)?;
    Ok(unix)
}

fn mtu(asker: &socket2::Socket, name: &str) -> Option<u32> {
    if name.len() >= libc::IFNAMSIZ {
        return None;
    }
    // SAFETY: an all-zero ifreq is valid; the name is copied with room for its final zero; the
    // call writes nothing but the union that is read after it succeeded.
    unsafe {
        let mut request: libc::ifreq = mem::zeroed();
        ptr::copy_nonoverlapping(name.as_ptr().cast(), request.ifr_name.as_mut_ptr(), name.len());
        let answered = libc::ioctl(asker.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) == 0;
        answered.then(|| request.ifr_ifru.ifru_mtu.unsigned_abs())
    }
}
