//! Waits: the task of a stream server, which accepts clients and makes pipes of them.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;

use super::core::{Core, Held, Keep, Setting, held};
use super::drive::Done;
use super::mailbox::{Mailbox, WhenFull};
use super::transport::Connection;
use super::{AcceptError, Addr, End, Pipe, RecvError};
use crate::base::queue::Limits;
use crate::base::task::Nursery;
use crate::net::{self, SocketOptions};

/// Clients that wait for `accept`; beyond them the kernel's backlog holds them.
const WAITING: Limits = Limits { messages: 128, bytes: 0 };
/// Handshakes at once; beyond them the kernel's backlog holds the clients.
const HANDSHAKES: usize = 256;
/// How long accepting rests after the system had no descriptor or memory left for a client.
const EXHAUSTED_REST: Duration = Duration::from_millis(50);

/// A socket that listens.
pub(crate) struct Listener {
    pub(crate) socket: ListenSocket,
    pub(crate) local: Addr,
    pub(crate) options: SocketOptions,
    /// The file of a Unix socket, removed with the listener if it is ours.
    #[cfg(unix)]
    pub(crate) _file: Option<net::socket::UnixPath>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<(super::tls::TlsServer, Duration)>,
}

pub(crate) enum ListenSocket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

type Handshaken = io::Result<Held>;

impl Listener {
    /// The next connection, its handshake still to be done. Cancel safe.
    async fn accept(&self) -> io::Result<impl Future<Output = Handshaken> + Send + 'static> {
        let accepted = match &self.socket {
            ListenSocket::Tcp(listener) => {
                let (socket, _) = listener.accept().await?;
                net::socket::inherit(SockRef::from(&socket), &self.options)?;
                Accepted::Tcp(socket)
            }
            #[cfg(unix)]
            ListenSocket::Unix(listener) => Accepted::Unix(listener.accept().await?.0),
        };
        #[cfg(feature = "tls")]
        let tls = self.tls.clone();
        Ok(async move {
            #[cfg(feature = "tls")]
            if let Some((server, limit)) = tls {
                return accepted.wrap(&server, limit).await;
            }
            accepted.plain()
        })
    }
}

enum Accepted {
    Tcp(tokio::net::TcpStream),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
}

impl Accepted {
    fn plain(self) -> Handshaken {
        Ok(match self {
            Self::Tcp(socket) => held(Connection::tcp(socket)?),
            #[cfg(unix)]
            Self::Unix(socket) => held(Connection::unix(socket)?),
        })
    }

    #[cfg(feature = "tls")]
    async fn wrap(self, server: &super::tls::TlsServer, limit: Duration) -> Handshaken {
        match self {
            Self::Tcp(socket) => {
                let (local, peer) = (socket.local_addr()?.into(), socket.peer_addr()?.into());
                server.accept(socket, local, peer, limit).await
            }
            #[cfg(unix)]
            Self::Unix(socket) => server.accept(socket, Addr::Unnamed, Addr::Unnamed, limit).await,
        }
    }
}

/// What a server pipe has beside what every pipe has.
pub(crate) struct Server {
    clients: Mutex<HashMap<u64, Client>>,
    waiting: Mailbox<Pipe>,
    /// Somebody has called `accept`.
    claimed: AtomicBool,
}

struct Client {
    core: Weak<Core>,
    /// Kept open by the server, because its handlers serve it.
    kept: Option<Pipe>,
}

impl Server {
    pub(crate) fn new() -> Self {
        let waiting = Mailbox::new(WAITING, WhenFull::Wait);
        Self { clients: Mutex::default(), waiting, claimed: AtomicBool::new(false) }
    }

    pub(crate) async fn accept(&self) -> Result<Pipe, AcceptError> {
        self.claimed.store(true, Ordering::Release);
        self.waiting.take().await.map_err(|error| match error {
            RecvError::Ended(end) => AcceptError::Ended(end),
            _ => AcceptError::NotListening,
        })
    }

    /// The client of this address.
    pub(crate) fn client(&self, peer: &Addr) -> Option<Arc<Core>> {
        let clients = self.lock();
        let mut found =
            clients.values().filter_map(|client| client.core.upgrade()).filter(|core| core.peer.as_ref() == Some(peer));
        let first = found.next()?;
        // Clients without an address are alike: which of several is meant nobody can say.
        (*peer != Addr::Unnamed || found.next().is_none()).then_some(first)
    }

    /// Lets go of the clients that the server itself kept open.
    fn let_go(&self) {
        let kept: Vec<_> = self.lock().values_mut().filter_map(|client| client.kept.take()).collect();
        drop(kept);
    }

    /// Nobody accepts any more, and those who wait for it are let go. Each holds its server: where a runtime ends, and the
    /// server's task with it, they would keep one another for ever.
    pub(crate) fn abandon(&self, end: End) {
        self.waiting.end(end);
        while let Some(Ok(client)) = self.waiting.try_take() {
            drop(client);
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Core>> {
        self.lock().values().filter_map(|client| client.core.upgrade()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// True when somebody at this server gets what its clients send.
    pub(crate) fn listens(&self) -> bool {
        self.hub.is_claimed() || !self.hub.listeners().is_empty()
    }

    /// A client has ended.
    pub(crate) fn forget(&self, client: u64) {
        let gone = self.server.as_ref().and_then(|server| server.lock().remove(&client));
        drop(gone);
    }

    /// A client's receiving has ended: if the server kept it, it may go when nobody else holds it.
    pub(crate) fn release_client(&self, client: u64) {
        let kept = self.server.as_ref().and_then(|server| server.lock().get_mut(&client).and_then(|c| c.kept.take()));
        drop(kept);
    }
}

/// Runs a server from its first client to its end.
pub(crate) async fn serve(core: Arc<Core>, listener: Listener) {
    let done = Done(core.clone());
    let end = tokio::select! {
        biased;
        () = core.when(|life| life.closing) => End::Closed,
        end = accept_all(&core, &listener) => end,
    };
    drop(listener);
    let Some(server) = &core.server else { return };
    core.life.send_modify(|life| life.ended = Some(end));
    server.waiting.end(end);
    let keep = core.life.borrow().keep;
    match keep {
        Keep::None => close_clients(server).await,
        Keep::Accepted => server.let_go(),
        Keep::All => {}
    }
    // Those who were never accepted have no other owner.
    while let Some(Ok(pipe)) = server.waiting.try_take() {
        pipe.close().await;
    }
    super::drive::run_ends(&core, end).await;
    drop(done);
}

async fn close_clients(server: &Server) {
    let clients = server.all();
    clients.iter().for_each(|client| client.begin_close());
    for client in clients {
        client.done().await;
    }
}

async fn accept_all(core: &Arc<Core>, listener: &Listener) -> End {
    let mut handshakes: Nursery<Handshaken> = Nursery::new(&core.runtime);
    loop {
        tokio::select! {
            accepted = listener.accept(), if handshakes.len() < HANDSHAKES => match accepted {
                Ok(handshake) => handshakes.begin(handshake),
                Err(error) => rest(core, &error).await,
            },
            Some(shaken) = handshakes.next(), if !handshakes.is_empty() => match shaken {
                Ok(transport) => admit(core, transport).await,
                Err(error) => {
                    core.counters.failed();
                    tracing::debug!(pipe = core.id, %error, "a client was refused");
                }
            },
        }
    }
}

/// A failed accept harms nobody else: most errors belong to one client, the others pass.
async fn rest(core: &Core, error: &io::Error) {
    core.counters.failed();
    tracing::warn!(pipe = core.id, %error, "a client could not be accepted");
    let exhausted = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    if error.raw_os_error().is_some_and(|code| exhausted.contains(&code)) {
        tokio::time::sleep(EXHAUSTED_REST).await;
    }
}

async fn admit(core: &Arc<Core>, transport: Held) {
    let Some(server) = &core.server else { return };
    let setting = Setting { conf: core.conf.clone(), runtime: core.runtime.clone() };
    let pipe = Core::connected(transport, &setting, super::core::Handlers::default(), Some(core.clone()));
    let kept = core.listens();
    let client = Client { core: Arc::downgrade(pipe.core()), kept: kept.then(|| pipe.clone()) };
    server.lock().insert(pipe.core().id, client);
    let ups = core.hub.ups();
    let served = kept || !ups.is_empty();
    pipe.core().run_ups(&pipe, ups);
    if pipe.core().life.borrow().done {
        core.forget(pipe.core().id);
    }
    if !served || server.claimed.load(Ordering::Acquire) {
        server.waiting.put(pipe, 0).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipe::{Proto, pipe_open};

    #[test]
    fn a_runtime_that_ends_leaves_nothing_of_a_server_with_clients_that_nobody_has_accepted() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (server, client) = runtime.block_on(async {
            let server = pipe_open(Proto::Tcp).bind("127.0.0.1:0").await.unwrap();
            let client = pipe_open(Proto::Tcp).dest(server.local_addr().clone()).await.unwrap();
            while server.core().server.as_ref().unwrap().waiting.is_empty() {
                tokio::task::yield_now().await;
            }
            (server, client)
        });
        let core = Arc::downgrade(server.core());
        drop(runtime);
        let another = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let accepted = another.block_on(async { tokio::time::timeout(Duration::from_secs(9), server.accept()).await });
        assert!(matches!(accepted, Ok(Err(AcceptError::Ended(End::Closed)))));
        drop((server, client));
        assert!(core.upgrade().is_none());
    }
}
