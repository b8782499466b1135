//! STUN on real sockets of this machine: client and server of this crate against each other, and against servers
//! that misbehave.

mod hostile;
mod report;
mod serving;

use std::net::SocketAddr;
use std::time::Duration;

use natpipe::stun::{Server, Timing};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(10);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(done) => done,
        Err(_) => panic!("{what} did not happen within {LIMIT:?}"),
    }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A server with two addresses by two ports.
fn server_of_four() -> Server {
    Server::listen(addr("127.0.0.1:0")).listen2(addr("127.0.0.2:0")).start().unwrap()
}

/// Gives up after about half a second.
fn impatient() -> Timing {
    Timing::default().rto(Duration::from_millis(50)).requests(3).last_wait(4).stream_timeout(Duration::from_millis(500))
}
