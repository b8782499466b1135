//! Touches: sockets between two programs of one user: pairs, listeners that nobody else may reach, and connections,
//! all without a runtime.

use std::fs::{self, File, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::{Domain, SockAddr, Socket, Type};

use super::socket::{UnixPath, is_abandoned, refused, unix};
use super::{SocketError, SocketStep};

/// One child is awaited; one more may knock before the first is let in.
const BACKLOG: i32 = 1;
/// The owner reads and writes; nobody else does.
const OWNER_ONLY: u32 = 0o600;
/// Tries to find a folder name that nobody has taken.
const FOLDER_TRIES: usize = 16;

/// Two Unix stream sockets, connected with each other.
pub(crate) fn pair() -> Result<(Socket, Socket), SocketError> {
    refused(SocketStep::Create, &"a pair of Unix sockets", Socket::pair(Domain::UNIX, Type::STREAM, None))
}

/// A Unix socket that listens on a path and that only this user can connect to. What stands at the path already is
/// left alone, links included; only a socket of this user's that nobody listens on any more is replaced.
pub(crate) fn private_listener(path: &Path) -> Result<(Socket, UnixPath), SocketError> {
    let shown = path.display();
    let socket = unix(&shown)?;
    let addr = refused(SocketStep::Bind, &shown, SockAddr::unix(path))?;
    // Linux gives the file the mode that the socket has when it is bound: there is no moment in which others could
    // connect. `umask` would be that of all threads.
    let inode = refused(SocketStep::Create, &shown, socket.try_clone().map(OwnedFd::from).map(File::from))?;
    refused(SocketStep::Bind, &shown, inode.set_permissions(Permissions::from_mode(OWNER_ONLY)))?;
    let mut bound = socket.bind(&addr);
    if bound.is_err() && is_mine(path, &inode) && is_abandoned(path, &addr) {
        bound = fs::remove_file(path).and_then(|()| socket.bind(&addr));
    }
    refused(SocketStep::Bind, &shown, bound)?;
    let file = UnixPath::of(path);
    refused(SocketStep::Bind, &shown, owner_only(path))?;
    refused(SocketStep::Listen, &shown, socket.listen(BACKLOG))?;
    Ok((socket, file))
}

/// A socket file of the user who made the socket behind `inode`. Links are not followed.
fn is_mine(path: &Path, inode: &File) -> bool {
    let (Ok(found), Ok(ours)) = (fs::symlink_metadata(path), inode.metadata()) else { return false };
    found.file_type().is_socket() && found.uid() == ours.uid()
}

/// Sees to the mode of the file before anybody can connect (nobody can before `listen`). Links are not followed.
fn owner_only(path: &Path) -> io::Result<()> {
    #[cfg(not(target_os = "linux"))]
    rustix::fs::chmodat(
        rustix::fs::CWD,
        path,
        rustix::fs::Mode::from_raw_mode(OWNER_ONLY as _),
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    )?;
    let found = fs::symlink_metadata(path)?;
    if found.file_type().is_socket() && found.mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "the socket's file would be open to other users"))
}

/// A new folder among the temporary files that only this user can enter; it goes, with what is in it, when dropped.
#[derive(Debug)]
pub(crate) struct PrivateFolder(PathBuf);

impl PrivateFolder {
    pub(crate) fn new() -> io::Result<Self> {
        let place = std::env::temp_dir();
        let mut last = io::ErrorKind::AlreadyExists.into();
        for _ in 0..FOLDER_TRIES {
            let path = place.join(format!("natpipe-{:016x}", any_number()));
            // Making a folder fails where something is already, a link included.
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        // The socket in it has removed its file; whatever else was put there stays, and the folder with it.
        let _ = fs::remove_dir(&self.0);
    }
}

/// Not a secret: it only keeps names apart.
fn any_number() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

/// A TCP socket that listens, for one connection.
pub(crate) fn tcp_listener(addr: SocketAddr) -> Result<Socket, SocketError> {
    let socket = refused(SocketStep::Create, &addr, Socket::new(Domain::for_address(addr), Type::STREAM, None))?;
    refused(SocketStep::Option("O_NONBLOCK"), &addr, socket.set_nonblocking(true))?;
    refused(SocketStep::Option("SO_REUSEADDR"), &addr, socket.set_reuse_address(true))?;
    refused(SocketStep::Bind, &addr, socket.bind(&addr.into()))?;
    refused(SocketStep::Listen, &addr, socket.listen(BACKLOG))?;
    Ok(socket)
}

/// The next connection of a listener, as a socket that blocks; `None` when none is waiting.
pub(crate) fn accept(listener: &Socket) -> io::Result<Option<Socket>> {
    match listener.accept() {
        Ok((socket, from)) => {
            socket.set_nonblocking(false)?;
            if !from.is_unix() {
                socket.set_tcp_nodelay(true)?;
            }
            Ok(Some(socket))
        }
        // Who knocked has gone again.
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
        Err(error) => Err(error),
    }
}

/// A connection on its way: connected, or to be waited for until it can be written to.
pub(crate) enum Begun {
    Connected(Socket),
    Underway(Socket),
}

/// Connects to a path that is no link.
pub(crate) fn unix_connect(path: &Path) -> io::Result<Socket> {
    if fs::symlink_metadata(path)?.file_type().is_symlink() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is a link, which somebody may have planted"));
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A listener whose queue is full would hold up a socket that blocks for as long as it likes.
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    socket.set_nonblocking(false)?;
    Ok(socket)
}

/// Begins to connect over TCP. What is underway has not blocked; [`finish`] ends it.
pub(crate) fn tcp_connect(addr: SocketAddr) -> io::Result<Begun> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&addr.into()) {
        Ok(()) => Ok(Begun::Connected(finish(socket)?)),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(Begun::Underway(socket)),
        Err(error) => Err(error),
    }
}

/// Tells how connecting went, and makes the socket one that blocks.
pub(crate) fn finish(socket: Socket) -> io::Result<Socket> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    socket.set_nonblocking(false)?;
    Ok(socket)
}

/// What to wait for on a descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ready {
    Read,
    Write,
}

/// Blocks until the descriptor is ready. False when `limit` has passed; `None` waits for ever.
pub(crate) fn wait(fd: &impl AsFd, what: Ready, limit: Option<Duration>) -> io::Result<bool> {
    let flags = match what {
        Ready::Read => PollFlags::IN,
        Ready::Write => PollFlags::OUT,
    };
    let until = limit.and_then(|limit| Instant::now().checked_add(limit));
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match rustix::event::poll(&mut [PollFd::new(fd, flags)], timeout.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_listener_is_its_owners_alone_and_goes_with_its_file() {
        let folder = PrivateFolder::new().unwrap();
        assert_eq!(fs::metadata(folder.path()).unwrap().mode() & 0o777, 0o700);
        let path = folder.path().join("s");
        let (socket, file) = private_listener(&path).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o777, 0o600);
        drop((socket, file));
        assert!(fs::symlink_metadata(&path).is_err());
        let place = folder.path().to_path_buf();
        drop(folder);
        assert!(!place.exists());
    }

    #[test]
    fn a_planted_link_is_neither_bound_through_nor_removed() {
        let folder = PrivateFolder::new().unwrap();
        let (link, target) = (folder.path().join("link"), folder.path().join("target"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let error = private_listener(&link).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        assert!(fs::symlink_metadata(&target).is_err(), "nothing was made where the link leads");
        assert!(fs::symlink_metadata(&link).unwrap().file_type().is_symlink());
        let listening = private_listener(&target).unwrap();
        assert_eq!(unix_connect(&link).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        unix_connect(&target).unwrap();
        drop(listening);
        fs::remove_file(&link).unwrap();
    }

    #[test]
    fn a_socket_that_nobody_listens_on_is_replaced_and_one_in_use_is_not() {
        let folder = PrivateFolder::new().unwrap();
        let path = folder.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(fs::symlink_metadata(&path).is_ok(), "left behind");
        let _listening = private_listener(&path).unwrap();
        assert_eq!(private_listener(&path).unwrap_err().source.kind(), io::ErrorKind::AddrInUse);
    }
}
