//! Waits: how long a datagram may be to reach a server whole.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::Rng as _;
use tokio::net::UdpSocket;
use tokio::time::{sleep_until, timeout_at};

use crate::net::{Family, Route, SocketOptions, socket, sys};
use crate::stun::{Message, Proof, Request, TransactionId};

/// Sizes of packets that links are known for: Ethernet; PPPoE; common tunnels; IPv6's least; and two for bad cases.
const SIZES: [u16; 9] = [1500, 1492, 1480, 1460, 1440, 1420, 1380, 1280, 576];

/// How often each size is sent, so that a lost packet is not taken for one that is too long, and how far apart.
const TIMES: u32 = 3;
const APART: Duration = Duration::from_millis(60);

/// How long the last answer is waited for.
const WAIT: Duration = Duration::from_millis(400);

/// Bytes of UDP's header.
const UDP: u16 = 8;

/// The longest packet of [`SIZES`] that reached the server whole, or nothing if none did. A server that refuses PADDING
/// has read it too, so that any answer counts; what is measured is the way there.
pub(super) async fn measure(route: &Route, server: SocketAddr) -> Option<u16> {
    match ask(route, server).await {
        Ok(mtu) => mtu,
        Err(error) => {
            tracing::debug!(%error, "the MTU can not be measured");
            None
        }
    }
}

async fn ask(route: &Route, server: SocketAddr) -> io::Result<Option<u16>> {
    let socket = UdpSocket::from_std(socket::datagram(&route.local(), &SocketOptions::default())?.into())?;
    sys::never_fragment(&socket, route.family())?;
    let requests: BTreeMap<[u8; 12], (u16, Vec<u8>)> = SIZES
        .into_iter()
        .filter_map(|size| {
            let mut id = [0; 12];
            rand::rng().fill_bytes(&mut id);
            Some((id, (size, padded(size, route.family(), id)?)))
        })
        .collect();
    let mut best = None;
    for _ in 0..TIMES {
        let sent: Vec<_> = requests.values().filter(|(size, _)| best.is_none_or(|best| *size > best)).collect();
        for (_, bytes) in sent {
            // One that is too long for the card is refused at once.
            let _ = socket::send_now(&socket, bytes, server);
        }
        let until = Instant::now() + APART;
        listen(&socket, server, &requests, until, &mut best).await;
        sleep_until(until.into()).await;
    }
    listen(&socket, server, &requests, Instant::now() + WAIT, &mut best).await;
    Ok(best)
}

/// A request that makes a packet of this size.
fn padded(size: u16, family: Family, id: [u8; 12]) -> Option<Vec<u8>> {
    let ip = if family == Family::V4 { 20 } else { 40 };
    let wanted = usize::from(size - ip - UDP);
    let id = TransactionId::modern(id);
    let encode = |padding| Request::new().padding(padding).encode(id, &Proof::default()).ok();
    let least = encode(4)?.len() - 4;
    // STUN counts in words: a size that is no multiple of four is missed by up to three bytes, to the safe side.
    encode((wanted.checked_sub(least)?) / 4 * 4).filter(|bytes| bytes.len() <= wanted)
}

/// Takes answers until the longest was answered, or `until`.
async fn listen(
    socket: &UdpSocket,
    server: SocketAddr,
    requests: &BTreeMap<[u8; 12], (u16, Vec<u8>)>,
    until: Instant,
    best: &mut Option<u16>,
) {
    let mut buf = [0; 2048];
    while *best != SIZES.first().copied() {
        let Ok(received) = timeout_at(until.into(), socket.recv_from(&mut buf)).await else { return };
        let Ok((len, from)) = received else { continue };
        let Ok(message) = Message::parse(&buf[..len]) else { continue };
        let size = message.id().as_bytes()[4..].first_chunk::<12>().and_then(|id| requests.get(id));
        if let (true, Some((size, _))) = (from == server, size) {
            *best = (*best).max(Some(*size));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_padded_request_makes_a_packet_of_the_size_or_up_to_three_bytes_less() {
        for (family, ip) in [(Family::V4, 20), (Family::V6, 40)] {
            for size in SIZES {
                let len = padded(size, family, [1; 12]).unwrap().len() + ip + usize::from(UDP);
                assert!((usize::from(size) - 3..=usize::from(size)).contains(&len), "{size}: {len}");
            }
        }
    }
}
