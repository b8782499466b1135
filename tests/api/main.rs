//! The crate seen from outside: pipes over real sockets of this machine.

mod bad_input;
mod callbacks;
mod close;
mod conf;
mod daemon;
mod links;
mod names;
mod namespaces;
mod open;
mod receive;
mod tls;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use natpipe::{NetConf, Pipe, Proto, pipe_open};

/// Longer than anything here takes; what is not there by then will not come.
const LIMIT: Duration = Duration::from_secs(10);

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

/// A client and the server's end of its connection, with the server that goes on listening.
struct Connected {
    server: Pipe,
    client: Pipe,
    accepted: Pipe,
}

async fn connected(conf: NetConf) -> Connected {
    let server = pipe_open(Proto::Tcp).bind("127.0.0.1:0").conf(conf.clone()).await.unwrap();
    let client = pipe_open(Proto::Tcp).dest(server.local_addr()).conf(conf).await.unwrap();
    let accepted = soon("accept", server.accept()).await.unwrap();
    Connected { server, client, accepted }
}

/// An unconnected datagram pipe and a client of it.
async fn datagrams(conf: NetConf) -> (Pipe, Pipe) {
    let server = pipe_open(Proto::Udp).bind("127.0.0.1:0").conf(conf.clone()).await.unwrap();
    let client = pipe_open(Proto::Udp).dest(server.local_addr()).conf(conf).await.unwrap();
    (server, client)
}

/// A count that handlers raise.
#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl Count {
    fn up(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits until it has begun to rise and rises no more.
    async fn settles(&self) {
        let mut before = usize::MAX;
        soon("the count stands still", async {
            while before != self.get() || before == 0 {
                before = self.get();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A folder of the test's own, removed with it.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("natpipe-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
