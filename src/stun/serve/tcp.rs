//! Waits: connections in, answers out, on one port of a server.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use super::super::server::Corner;
use super::super::stream::next_message;
use super::Shared;
use crate::base::task::Nursery;

/// The longest request over a stream.
const ROOM: usize = 2048;

/// Connections at once on one port; more wait in the kernel's queue.
const CONNECTIONS: usize = 4096;

/// Connections of one source at once: a household behind one address is far below it, and a flood leaves the others room.
const OF_ONE_SOURCE: usize = 256;

/// How long a connection may say nothing. A hole punched over TCP keeps its connection for as long as punching takes
/// (RFC 8489 section 6.2.2 leaves the closing to the client).
const IDLE: Duration = Duration::from_secs(60);

/// After accepting failed, as when descriptors have run out.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers until the task is dropped.
pub(super) async fn serve(shared: Arc<Shared>, corner: Corner, listener: TcpListener, runtime: Handle) {
    let mut clients = Nursery::new(&runtime);
    let mut sources: HashMap<IpAddr, usize> = HashMap::new();
    loop {
        tokio::select! {
            ended = clients.next(), if !clients.is_empty() => {
                if let Some(Entry::Occupied(mut open)) = ended.map(|source| sources.entry(source)) {
                    *open.get_mut() -= 1;
                    if *open.get() == 0 {
                        open.remove();
                    }
                }
            }
            accepted = listener.accept(), if clients.len() < CONNECTIONS => match accepted {
                Ok((stream, from)) => {
                    let open = sources.entry(from.ip()).or_default();
                    // One more is closed at once.
                    if *open < OF_ONE_SOURCE {
                        *open += 1;
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

/// One connection, until it ends, says nothing for too long, or says what is no STUN.
pub(super) async fn client(shared: Arc<Shared>, corner: Corner, mut stream: TcpStream, from: SocketAddr) {
    let (mut bytes, mut out) = (Vec::with_capacity(256), vec![0; ROOM]);
    loop {
        let read = timeout(IDLE, stream.read_buf(&mut (&mut bytes))).await;
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
            if let Some(reply) = reply
                && !matches!(timeout(IDLE, stream.write_all(&out[..reply])).await, Ok(Ok(())))
            {
                return;
            }
        }
    }
}
