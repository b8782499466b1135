//! Touches: descriptors that one process leaves open for another, and what is done before a process exits.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Leaves the descriptor open in the process that `command` starts, and in no other that is started meanwhile: the
/// mark that closes it at `exec` goes away in the child alone. It must be open when the command is started.
pub(crate) fn keep_open(command: &mut Command, fd: RawFd) {
    let unmark = move || {
        // SAFETY: `fcntl` may be called between fork and exec, and changes a flag of this one number.
        let done = unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
        if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: the closure makes one system call, allocates nothing and takes no lock.
    unsafe { command.pre_exec(unmark) };
}

/// Takes a descriptor that the process was started with, for this process alone. The caller sees to it that a number
/// is taken once.
pub(crate) fn take_inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // The standard streams belong to everybody.
    if fd <= libc::STDERR_FILENO {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: asks for the flags of a number, which may be that of no open descriptor.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and was left open for whoever takes it by this number; nobody else in this program was told
    // of it.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: changes a flag of a descriptor that is ours.
    if unsafe { libc::fcntl(owned.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(owned)
}

/// Has `work` called when the process exits in an orderly way (`exit`, or the end of `main`). False when the system
/// takes no more of these.
pub(crate) fn at_exit(work: extern "C" fn()) -> bool {
    // SAFETY: a function that lives as long as the program, and that takes and returns nothing.
    unsafe { libc::atexit(work) == 0 }
}
