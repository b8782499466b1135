//! Touches: a parent's listener and a child's connection, up to where waiting begins.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use socket2::Socket;

use super::error::{BindError, InheritError};
use super::place::Place;
use crate::net::private::{self, PrivateFolder};
use crate::net::socket::UnixPath;
use crate::net::sys;
use crate::pipe::Addr;

/// A parent that is bound. Its path, and the folder made for it, go with it.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) socket: Socket,
    pub(crate) address: Addr,
    /// Removed before the folder that it is in.
    _file: Option<UnixPath>,
    _folder: Option<PrivateFolder>,
}

impl Listening {
    /// Binds where `place` says; `resolved` are the addresses of its host, if it has one.
    pub(crate) fn bind(place: &Place, resolved: &[SocketAddr]) -> Result<Self, BindError> {
        match place {
            Place::Anonymous | Place::Inherited(_) => {
                let folder =
                    PrivateFolder::new().map_err(|source| BindError::Folder { place: std::env::temp_dir(), source })?;
                Self::unix(&folder.path().join("duct"), Some(folder))
            }
            Place::Unix(path) => Self::unix(path, None),
            Place::Tcp { .. } => Self::tcp(resolved),
        }
    }

    fn unix(path: &std::path::Path, folder: Option<PrivateFolder>) -> Result<Self, BindError> {
        let (socket, file) = private::private_listener(path)?;
        Ok(Self { socket, address: Addr::Unix(path.into()), _file: Some(file), _folder: folder })
    }

    /// On the first address that can be bound.
    fn tcp(resolved: &[SocketAddr]) -> Result<Self, BindError> {
        let mut last = None;
        for addr in resolved {
            match private::tcp_listener(*addr).map(Self::on_port) {
                Ok(listening) => return Ok(listening),
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or_else(no_address, BindError::Socket))
    }

    fn on_port(socket: Socket) -> Self {
        let address = socket.local_addr().ok().and_then(|addr| addr.as_socket()).map_or(Addr::Unnamed, Addr::Ip);
        Self { socket, address, _file: None, _folder: None }
    }
}

fn no_address() -> BindError {
    BindError::Resolve { host: String::new(), source: io::ErrorKind::AddrNotAvailable.into() }
}

/// The addresses of a name, asked of the system, which may take seconds.
pub(crate) fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    some((host, port).to_socket_addrs()?)
}

/// The addresses that were found: one at least.
pub(crate) fn some(found: impl Iterator<Item = SocketAddr>) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = found.collect();
    if found.is_empty() { Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")) } else { Ok(found) }
}

/// What a child tries again: nothing is there yet, nobody listens, or another knocks at the moment.
pub(crate) fn may_come(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::NotFound | K::ConnectionRefused | K::WouldBlock)
}

/// Takes the connected socket that this process was started with. Each number is taken once.
pub(crate) fn inherit(number: i32) -> Result<Socket, InheritError> {
    static TAKEN: parking_lot::Mutex<Vec<i32>> = parking_lot::Mutex::new(Vec::new());
    let mut taken = TAKEN.lock();
    if taken.contains(&number) {
        return Err(InheritError::AlreadyTaken { number });
    }
    let no_duct = |source| InheritError::Descriptor { number, source };
    let socket = Socket::from(sys::take_inherited(number).map_err(no_duct)?);
    taken.push(number);
    // What the number stands for may be anything; a duct is a stream socket with another end.
    let checked = match socket.r#type() {
        Ok(socket2::Type::STREAM) => socket.peer_addr().map(drop),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a stream socket")),
        Err(error) => Err(error),
    };
    checked.and_then(|()| socket.set_nonblocking(false)).map_err(no_duct)?;
    Ok(socket)
}
