//! Waits: connections in, answers out, on one port of a server.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout, timeout_at};

use super::super::server::{Corner, source};
use super::super::stream::next_message;
use super::Shared;
use crate::base::task::Nursery;

/// The longest request over a stream.
const ROOM: usize = 2048;

/// Connections at once on one port; more wait in the kernel's queue.
const CONNECTIONS: usize = 4096;

/// Connections of one source at once: a household behind one address is far below it, and a flood leaves the others room.
const OF_ONE_SOURCE: usize = 256;

/// How long a connection may say nothing, or not all of a message. A hole punched over TCP keeps its connection for as long as punching takes
/// (RFC 8489 section 6.2.2 leaves the closing to the client).
const IDLE: Duration = Duration::from_secs(60);

/// After accepting failed, as when descriptors have run out.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers until the task is dropped.
pub(super) async fn serve(shared: Arc<Shared>, corner: Corner, listener: TcpListener, runtime: Handle) {
    let mut clients = Nursery::new(&runtime);
    let mut sources = Sources::default();
    loop {
        tokio::select! {
            ended = clients.next(), if !clients.is_empty() => {
                if let Some(ip) = ended {
                    sources.leave(ip);
                }
            }
            accepted = listener.accept(), if clients.len() < CONNECTIONS => match accepted {
                Ok((stream, from)) => {
                    // One more than it may have is closed at once.
                    if sources.enter(from.ip()) {
                        let shared = shared.clone();
                        clients.begin(async move {
                            client(shared, corner, stream, from).await;
                            from.ip()
                        });
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "accepting");
                    sleep(PAUSE).await;
                }
            },
        }
    }
}

/// How many connections each source has.
#[derive(Default)]
struct Sources(HashMap<(u8, u64), usize>);

impl Sources {
    /// False when the source has all that it may have.
    fn enter(&mut self, ip: IpAddr) -> bool {
        let open = self.0.entry(source(ip)).or_default();
        let room = *open < OF_ONE_SOURCE;
        *open += usize::from(room);
        room
    }

    fn leave(&mut self, ip: IpAddr) {
        if let Entry::Occupied(mut open) = self.0.entry(source(ip)) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}

/// One connection, until it ends, says nothing whole for too long, or says what is no STUN.
pub(super) async fn client(shared: Arc<Shared>, corner: Corner, mut stream: TcpStream, from: SocketAddr) {
    let (mut bytes, mut out) = (Vec::with_capacity(256), vec![0; ROOM]);
    // Only a whole message counts, or a byte every now and then would keep the connection for ever.
    let mut deadline = tokio::time::Instant::now() + IDLE;
    loop {
        let read = timeout_at(deadline, stream.read_buf(&mut (&mut bytes))).await;
        if !matches!(read, Ok(Ok(1..))) {
            return;
        }
        loop {
            let len = match next_message(&bytes, ROOM) {
                Ok(Some(len)) => len,
                Ok(None) => break,
                Err(_) => return,
            };
            let reply = shared.binding().handle_stream(Instant::now(), corner, from, &bytes[..len], &mut out);
            bytes.drain(..len);
            deadline = tokio::time::Instant::now() + IDLE;
            if let Some(reply) = reply
                && !matches!(timeout(IDLE, stream.write_all(&out[..reply])).await, Ok(Ok(())))
            {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_is_one_source_and_what_is_closed_makes_room() {
        let mut sources = Sources::default();
        let own = |n: usize| IpAddr::V6(format!("2001:db8::{n:x}").parse().unwrap());
        assert!((0..OF_ONE_SOURCE).all(|n| sources.enter(own(n))));
        assert!(!sources.enter(own(OF_ONE_SOURCE)));
        assert!(sources.enter("2001:db8:0:1::1".parse().unwrap()));
        sources.leave(own(0));
        assert!(sources.enter(own(OF_ONE_SOURCE)));
        assert!(!sources.enter(own(1)));
    }
}
