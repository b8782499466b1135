//! A rendezvous server on this machine, and peers that meet at it.

mod flood;
mod lying;
mod proxied;
mod relaying;
mod staying;
mod talking;
mod web;

use std::time::Duration;

use natpipe::Identity;
use natpipe::rendezvous::{Client, Limits, Server};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(30);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(done) => done,
        Err(_) => panic!("{what} did not happen within {LIMIT:?}"),
    }
}

/// A server on a free port.
async fn server() -> Server {
    server_with(Limits::default()).await
}

async fn server_with(limits: Limits) -> Server {
    let identity = Identity::generate().unwrap();
    Server::listen("127.0.0.1:0".parse().unwrap(), identity).limits(limits).start().await.unwrap()
}

/// A peer that is registered.
struct Registered {
    identity: Identity,
    client: Client,
}

async fn peer(server: &Server) -> Registered {
    let identity = Identity::generate().unwrap();
    let client = soon("the registration", Client::connect(&server.url(), &identity)).await.unwrap();
    Registered { identity, client }
}
