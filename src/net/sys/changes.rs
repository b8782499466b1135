//! Touches: the socket on which Linux tells of links, addresses and routes (rtnetlink).

use std::io::{self, Read};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::unix::AsyncFd;

/// What is told of: links, addresses and routes of both families.
const GROUPS: libc::c_int = libc::RTMGRP_LINK
    | libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV6_ROUTE;

/// Rings when the kernel tells of something.
pub(crate) struct ChangeBell(AsyncFd<Socket>);

impl ChangeBell {
    /// For the network namespace of the calling thread.
    pub(crate) fn hang() -> io::Result<Self> {
        let socket = Socket::new(
            Domain::from(libc::AF_NETLINK),
            Type::from(libc::SOCK_RAW).nonblocking().cloexec(),
            Some(Protocol::from(libc::NETLINK_ROUTE)),
        )?;
        // SAFETY: the storage is large enough for every address; a sockaddr_nl, for which all zeros are valid, is written
        // to it and its length told.
        let ((), addr) = unsafe {
            SockAddr::try_init(|storage, len| {
                let mut addr: libc::sockaddr_nl = std::mem::zeroed();
                addr.nl_family = libc::AF_NETLINK as libc::sa_family_t;
                addr.nl_groups = GROUPS as u32;
                storage.cast::<libc::sockaddr_nl>().write(addr);
                *len = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
                Ok(())
            })
        }?;
        socket.bind(&addr)?;
        #[allow(deprecated, reason = "its successor `register` is newer than the oldest tokio that we work with")]
        Ok(Self(AsyncFd::new(socket)?))
    }

    /// Until something was told; all that was told is taken out, unread. Cancel safe.
    pub(crate) async fn rung(&mut self) -> io::Result<()> {
        let mut told = self.0.readable().await?;
        let mut unread = [0; 4096];
        let emptied = told.try_io(|socket| {
            loop {
                match socket.get_ref().read(&mut unread) {
                    Ok(_) => {}
                    // More was told than there was room for: it is taken out all the same.
                    Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                    Err(error) => return Err::<(), _>(error),
                }
            }
        });
        match emptied {
            // Empty, which is how it always ends.
            Err(_would_block) => Ok(()),
            Ok(read) => read,
        }
    }
}
