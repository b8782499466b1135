//! Touches: network namespaces: made, entered and left by the calling thread, and the user namespace that gives an ordinary user the right to.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::process;

/// A network namespace. It lives for as long as this value, a thread, a process or a socket is in it.
#[derive(Debug)]
pub(crate) struct Namespace(OwnedFd);

impl Namespace {
    /// A new, empty one. The calling thread stays where it is.
    pub(crate) fn create() -> io::Result<Self> {
        let back = Back(Self::current()?);
        // SAFETY: the call takes no pointer; it moves the calling thread alone, which `back` brings home.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let made = Self::current();
        drop(back);
        made
    }

    /// That of the calling thread.
    pub(crate) fn current() -> io::Result<Self> {
        Ok(Self(File::open("/proc/thread-self/ns/net")?.into()))
    }

    /// Calls `work` with the calling thread inside: sockets and processes made there stay there.
    pub(crate) fn inside<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let back = Back(Self::current()?);
        self.enter()?;
        let result = work();
        drop(back);
        Ok(result)
    }

    /// Moves the calling thread in for good.
    pub(crate) fn enter(&self) -> io::Result<()> {
        // SAFETY: the descriptor is open and of a network namespace; the call moves the calling thread alone.
        match unsafe { libc::setns(self.0.as_raw_fd(), libc::CLONE_NEWNET) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// A path by which another process of this user can name it, while this value lives.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", process::id(), self.0.as_raw_fd()).into()
    }
}

/// Brings the thread home when it is dropped, a panic included.
struct Back(Namespace);

impl Drop for Back {
    fn drop(&mut self) {
        if let Err(error) = self.0.enter() {
            // A thread lost in another network would make every later result a lie, also where nobody reads why.
            let why = "cannot return to the network namespace that this thread came from";
            let _ = writeln!(io::stderr(), "{why}: {error}");
            process::abort();
        }
    }
}

/// A file in memory with this text, read from its start: input for a program, of any length.
pub(crate) fn memory_file(text: &str) -> io::Result<File> {
    // SAFETY: the name is a string that ends in zero.
    let fd = unsafe { libc::memfd_create(c"input".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and has no other owner.
    let mut file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// Makes the process root of a new user namespace, unless it may make network namespaces already. It is then
/// in a network of its own too, which has a loopback: to that of before it could never return from another.
/// Only a process of one thread can do it; it allocates nothing, so it can be called before `main`.
pub(crate) fn become_root_of_own_users() -> io::Result<()> {
    if may_make_namespaces() {
        return Ok(());
    }
    // SAFETY: neither call takes a pointer.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    // SAFETY: the call takes no pointer.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error());
    }
    write_proc(c"/proc/self/setgroups", format_args!("deny"))?;
    write_proc(c"/proc/self/uid_map", format_args!("0 {uid} 1"))?;
    write_proc(c"/proc/self/gid_map", format_args!("0 {gid} 1"))?;
    set_loopback_up()
}

fn set_loopback_up() -> io::Result<()> {
    // SAFETY: the call takes no pointer.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: an ifreq of zeros is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives through the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The capabilities (linux/capability.h) that the lab needs in its user namespace.
const NEEDED: u32 = 1 << 12 | 1 << 21; // CAP_NET_ADMIN, CAP_SYS_ADMIN
/// _LINUX_CAPABILITY_VERSION_3, whose data are two words of each kind.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

fn may_make_namespaces() -> bool {
    let mut header = [CAPABILITY_VERSION, 0];
    let mut data = MaybeUninit::<[u32; 6]>::zeroed();
    // SAFETY: the header is a version and a process id (0: this one); version 3 writes six words of data.
    let result = unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), data.as_mut_ptr()) };
    // SAFETY: zeroed words are valid, whether or not the call wrote them.
    let effective = unsafe { data.assume_init() }[0];
    result == 0 && effective & NEEDED == NEEDED
}

fn write_proc(path: &CStr, text: std::fmt::Arguments<'_>) -> io::Result<()> {
    let mut line = [0u8; 32];
    let mut rest = &mut line[..];
    rest.write_fmt(text)?;
    let left = rest.len();
    let length = line.len() - left;
    // SAFETY: the path is a string that ends in zero.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just opened and has no other owner.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the first `length` bytes of `line` are the text.
    let written = unsafe { libc::write(file.as_raw_fd(), line.as_ptr().cast(), length) };
    if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
