//! Waits: what gateways announce to everybody when they have restarted: RFC 6887 section 14.1.3, RFC 6886 section 3.2.1.

use std::net::{IpAddr, SocketAddr};

use tokio::net::UdpSocket;

use super::packet::LONGEST;
use super::place::Place;
use super::{Answer, read_nat_pmp, read_pcp};
use crate::net::{Local, SocketOptions, socket};

/// Where it is announced, at the address of all hosts of a link.
const PORT: u16 = 5350;

/// An ear for a gateway's announcements. Where the port can not be shared it hears nothing, and the next renewal tells.
pub(super) struct Ear {
    socket: Option<UdpSocket>,
    gateway: Option<IpAddr>,
}

impl Ear {
    pub(super) fn open(place: &Place) -> Self {
        let addr = SocketAddr::new(place.family().unspecified(), PORT);
        let local = Local { addr, interface: Some(place.route.interface().clone()) };
        let options = SocketOptions { reuse_addr: true, reuse_port: true, only_v6: true, ..SocketOptions::default() };
        let opened = socket::datagram(&local, &options).map_err(|error| error.source);
        let socket = opened.and_then(|socket| UdpSocket::from_std(socket.into()));
        if let Err(error) = &socket {
            tracing::debug!(%error, "announcements of gateways are not heard");
        }
        Self { socket: socket.ok(), gateway: place.gateway }
    }

    /// Until the gateway announces itself. Cancel safe.
    pub(super) async fn heard(&self) {
        let Some(socket) = &self.socket else { return std::future::pending().await };
        let mut buf = [0; LONGEST];
        loop {
            match socket.recv_from(&mut buf).await {
                Ok((len, from)) if Some(from.ip()) == self.gateway && is_announcement(&buf[..len]) => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "announcements of gateways are not heard any more");
                    return std::future::pending().await;
                }
            }
        }
    }
}

fn is_announcement(bytes: &[u8]) -> bool {
    matches!(read_pcp(bytes), Ok(Answer::There { .. })) || matches!(read_nat_pmp(bytes), Ok(Answer::External { .. }))
}
