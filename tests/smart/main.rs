//! Smart sockets seen from outside, over real sockets of this machine.

mod basics;
mod guarantees;
mod hostile;
mod limits;
mod names;
mod reconnect;
mod secure;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use natpipe::smart::{Event, Events, Identity, SmartSocket, protocol::Envelope};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer than anything here takes; what is not there by then will not come.
const LIMIT: Duration = Duration::from_secs(20);

/// Waits for something that must happen.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(done) => done,
        Err(_) => panic!("{what} did not happen within {LIMIT:?}"),
    }
}

/// Waits until a condition holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    soon(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// Waits until so many peers are connected.
async fn peers(socket: &SmartSocket, count: usize) {
    until("connecting", || socket.peers().len() == count).await;
}

async fn text(socket: &SmartSocket) -> String {
    let data = soon("a message", socket.recv()).await.unwrap();
    String::from_utf8(data.to_vec()).unwrap()
}

/// The next event that a test looks for.
async fn event<T>(events: &mut Events, mut of: impl FnMut(Event) -> Option<T>) -> T {
    soon("an event", async {
        loop {
            let event = events.next().await.expect("the socket lives");
            if let Some(found) = of(event) {
                return found;
            }
        }
    })
    .await
}

/// Two sockets, the second connected to the first.
async fn connected(server: SmartSocket, client: SmartSocket) -> (SmartSocket, SmartSocket) {
    let addr = server.bind("127.0.0.1:0").await.unwrap();
    client.connect(addr).unwrap();
    peers(&server, 1).await;
    peers(&client, 1).await;
    (server, client)
}

fn socket() -> SmartSocket {
    SmartSocket::new().unwrap()
}

/// A peer that speaks the protocol by hand, and breaks it where a test wants.
struct Raw {
    stream: TcpStream,
}

impl Raw {
    async fn connect(to: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(to).await.unwrap() }
    }

    /// Connected, and greeted on both sides.
    async fn greeted(to: SocketAddr, identity: u8) -> Self {
        let mut raw = Self::connect(to).await;
        raw.hello(identity).await;
        raw
    }

    async fn hello(&mut self, identity: u8) {
        self.say(&Envelope::Hello { version: 1, identity: Identity::from([identity; 16]) }).await;
        assert!(matches!(self.hear().await, Some(Envelope::Hello { version: 1, .. })));
    }

    async fn say(&mut self, envelope: &Envelope) {
        let mut bytes = Vec::new();
        envelope.encode(&mut bytes);
        self.write(&bytes).await;
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next frame; `None` at the end.
    async fn hear(&mut self) -> Option<Envelope> {
        soon("a frame", async {
            let len = self.stream.read_u32().await.ok()?;
            let mut frame = vec![0; len as usize];
            self.stream.read_exact(&mut frame).await.ok()?;
            Some(Envelope::decode(frame.into()).unwrap())
        })
        .await
    }

    /// Waits until the other end has closed.
    async fn closed(&mut self) {
        while self.hear().await.is_some() {}
    }
}
