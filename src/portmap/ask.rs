//! Waits: one packet to the gateway, sent again until it is answered.

use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};

use super::packet::LONGEST;
use super::place::Place;
use super::{Answer, Failure, Protocol, Wrong};
use crate::net::{Local, SocketOptions, socket};

/// Waits after each sending. RFC 6886 section 3.1 begins with 250 ms and doubles for a minute, RFC 6887 section 8.1.1 begins with
/// three seconds: a gateway is one hop away, and whoever waits for a ticket does not wait for either.
const WAITS: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_millis(1000), Duration::from_millis(1500)];

/// Sends `request` until `take` makes something of an answer. Bytes that are no answer at all are passed over; if nothing else
/// comes, they are the failure.
pub(super) async fn ask<T>(
    place: &Place,
    protocol: Protocol,
    request: &[u8],
    read: impl Fn(&[u8]) -> Result<Answer, Wrong>,
    mut take: impl FnMut(Answer) -> Option<Result<T, Failure>>,
) -> Result<T, Failure> {
    let to = place.at(protocol, super::packet::PORT).ok_or(Failure::NoGateway)?;
    let mut local: Local = place.route.local();
    local.addr.set_port(0);
    let socket = socket::datagram(&local, &SocketOptions::default()).map_err(|error| Failure::from(error.source))?;
    let socket = UdpSocket::from_std(socket.into())?;
    // Connected: strangers' packets never arrive, and refusals do.
    socket.connect(to).await?;
    let (mut buf, mut wrong) = ([0; LONGEST + 1], None);
    for wait in WAITS {
        socket.send(request).await?;
        let until = Instant::now() + wait;
        loop {
            let len = tokio::select! {
                biased;
                got = socket.recv(&mut buf) => got?,
                () = sleep_until(until) => break,
            };
            match read(&buf[..len.min(LONGEST)]) {
                Ok(answer) => match take(answer) {
                    Some(taken) => return taken,
                    None => wrong = Some(Wrong::NotAsked),
                },
                Err(error) => wrong = Some(error),
            }
        }
    }
    Err(wrong.map_or(Failure::NoAnswer, Failure::from))
}
