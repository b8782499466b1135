//! What must hold for any bytes of a TURN server: shared by the fuzz target and the test that replays its corpus.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use natpipe::Family;
use natpipe::stun::{Credentials, Timing};
use natpipe::turn::{Core, Cut, Settings, channel_data, cut};

/// The longest piece of a stream.
const LIMIT: usize = 4096;

/// A client that hears the bytes as a stream of its server's, each message as the answer to what it asked last, neither panics nor
/// talks without end, and hears nobody whom it did not let in. Whether it got an address.
pub fn server(bytes: &[u8]) -> bool {
    let (mut now, peer) = (Instant::now(), SocketAddr::from(([203, 0, 113, 5], 4000)));
    let settings = Settings {
        credentials: Credentials::long_term("ann", "hush"),
        family: Family::V4,
        stream: true,
        tcp: true,
        lifetime: Duration::from_secs(600),
        timing: Timing::default(),
        seed: [7; 32],
    };
    let (mut core, mut rest, mut open) = (Core::new(settings, now), bytes, false);
    let mut last = core.poll_transmit().unwrap_or_default();
    while let Ok(Some((piece, len))) = cut(rest, LIMIT) {
        rest = &rest[len..];
        let mut message = Vec::new();
        let piece = match piece {
            Cut::Message(bytes) => {
                message.extend_from_slice(bytes);
                message[4..20].copy_from_slice(&last[4..20]);
                Cut::Message(&message)
            }
            Cut::Channel { number, data } => {
                let again = channel_data(number, data, true).unwrap();
                assert_eq!(cut(&again, LIMIT), Ok(Some((Cut::Channel { number, data }, again.len()))));
                Cut::Channel { number, data }
            }
        };
        if let Some((from, _)) = core.handle(now, piece) {
            assert_eq!(from.ip(), peer.ip());
        }
        open |= core.relayed().is_some();
        core.permit(now, peer.ip());
        core.send(now, peer, b"hello");
        core.connect(now, peer);
        now += Duration::from_secs(30);
        core.handle_timeout(now);
        let mut said = 0;
        while let Some(bytes) = core.poll_transmit() {
            (last, said) = (bytes, said + 1);
            assert!(said < 1000, "it talks without end");
        }
        while core.poll_event().is_some() {}
        assert!(core.poll_timeout().is_none_or(|due| due > now), "time stands still");
    }
    open
}
