//! Waits: datagrams in, answers out, on one socket of a server.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio::task::yield_now;

use super::super::server::Corner;
use super::Shared;

/// Room for a request or an answer: a datagram that fits every link; what is longer is no sensible request.
const ROOM: usize = 1500;

/// Datagrams answered before other tasks get their turn: some tenths of a millisecond.
const TURN: usize = 256;

/// Answers until the task is dropped.
pub(super) async fn serve(shared: Arc<Shared>, corner: Corner, socket: Arc<UdpSocket>) {
    // One byte more shows that a datagram was cut off.
    let (mut bytes, mut out) = (vec![0; ROOM + 1], vec![0; ROOM]);
    loop {
        if let Err(error) = socket.readable().await {
            tracing::warn!(%error, "a STUN socket broke");
            return;
        }
        for _ in 0..TURN {
            match socket.try_recv_from(&mut bytes) {
                Ok((len, from)) if len <= ROOM => {
                    let reply = shared.binding().handle(Instant::now(), corner, from, &bytes[..len], &mut out);
                    if let Some((socket, reply)) = reply.and_then(|reply| Some((shared.socket(reply.from)?, reply))) {
                        // A full buffer or a refusal (ICMP) costs this one answer: the client asks again.
                        let _ = socket.try_send_to(&out[..reply.len], reply.to);
                    }
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // An earlier answer was refused: the error is that client's, not ours.
                Err(error) => tracing::trace!(%error, "receiving"),
            }
        }
        yield_now().await;
    }
}
