//! Waits: the pool as its user holds it.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use http::Request;
use tokio::runtime::Handle as Runtime;

use super::admit::{Admission, Origins};
use super::ask::Whom;
use super::bind::Entry;
use super::core::Core;
use super::{
    Ask, Bind, BindError, ClientError, Con, ConId, Connecting, Context, Events, IntoAnswer, Meta, Pack, PoolConf,
    Router, Target, Unpack, Upgrade, client, envelope, url,
};
use crate::base::task;
use crate::frame::ws::{Close, Refusal};
use crate::pipe::{Dest, Pipe, Proto};

/// A set of connections that share one router, the seed's `pool`.
///
/// It is a handle: clones are the same pool. When the last one is dropped the pool closes, as by [`close`](Self::close), without
/// waiting. A router must not hold a clone of its own pool, or the pool never closes by itself; its [`Context`] serves instead.
///
/// Binding, connecting and asking need a tokio runtime around them.
#[derive(Clone)]
pub struct Pool {
    handle: Arc<Handle>,
}

struct Handle {
    core: Arc<Core>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.begin_close(&Close::new(Close::GOING_AWAY, ""));
    }
}

impl Pool {
    /// A pool with the default options. The name is for the routers and for people.
    pub fn create<F, M, R>(name: &str, router: F) -> Self
    where
        F: Fn(Context, M) -> R + Send + Sync + 'static,
        M: Unpack,
        R: Future<Output: IntoAnswer> + Send + 'static,
    {
        Self::with(name, PoolConf::default(), Router::new(router))
    }

    /// A pool with these options.
    pub fn with(name: &str, conf: PoolConf, router: Router) -> Self {
        Self { handle: Arc::new(Handle { core: Core::new(name, router, conf) }) }
    }

    fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.core().name
    }

    /// Listens for members over TCP, or TLS where the options say so: `host:port`.
    pub fn bind(&self, local: impl Into<Dest>) -> Bind {
        Bind::new(self.core().clone(), Proto::Tcp, local.into())
    }

    /// Listens on a Unix socket, for WebSocket and for the seed's framing.
    pub fn bind_unix(&self, path: impl AsRef<Path>) -> Bind {
        Bind::new(self.core().clone(), Proto::Unix, path.as_ref().into())
    }

    /// Connects, and again whenever the connection is lost, for as long as the pool lives: `host:port`, `ws://host:port/path`,
    /// `wss://…` or `unix:PATH`.
    pub fn client(&self, dest: impl Into<String>) -> Connecting {
        Connecting::new(self.core().clone(), dest.into())
    }

    /// The same to a Unix socket.
    pub fn client_unix(&self, path: impl AsRef<Path>) -> Connecting {
        self.client(format!("unix:{}", path.as_ref().display()))
    }

    /// Makes a member of a pipe that is open, at whose other end is a client: a pipe to a peer behind a NAT, for example.
    /// Returns when the upgrade is done.
    ///
    /// # Errors
    /// [`BindError`]. Cancelling drops the pipe.
    pub async fn accept(&self, pipe: Pipe) -> Result<Con, BindError> {
        let admission = Admission { path: None, origins: Origins::same(), hook: None };
        let entry = Entry { core: self.core().clone(), ws: self.core().conf.ws(), admission };
        let (con, session) = entry.enter(pipe).await?;
        task::drive(&Runtime::current(), async move {
            session.await;
        });
        Ok(con)
    }

    /// Makes a member of a pipe that is open, at whose other end is a listener: the other side of [`accept`](Self::accept).
    /// It does not connect again.
    ///
    /// # Errors
    /// [`ClientError`]. Cancelling drops the pipe.
    pub async fn join(&self, pipe: Pipe) -> Result<Con, ClientError> {
        let url = format!("ws://localhost{}", url::PATH);
        let (con, session) = client::join(self.core(), pipe, &url, &self.core().conf.ws()).await?;
        task::drive(&Runtime::current(), async move {
            session.await;
        });
        Ok(con)
    }

    /// Begins to make a member of a connection to another HTTP server (hyper, axum), whose request this is. Who may come in is the
    /// other server's to decide, except for the browsers' origins.
    ///
    /// # Errors
    /// A [`Refusal`], to be answered with its status.
    pub fn upgrade<B>(&self, request: &Request<B>, origins: Origins) -> Result<Upgrade, Refusal> {
        Upgrade::new(self.core().clone(), origins, request)
    }

    /// To one member at random.
    pub fn rand(&self, msg: impl Pack) -> Ask {
        self.ask(Whom::Rand, msg)
    }

    /// To all members.
    pub fn publish(&self, msg: impl Pack) -> Ask {
        self.ask(Whom::All, msg)
    }

    /// To the member that has least to do: the fewest messages to send and answers to wait for.
    pub fn avail(&self, msg: impl Pack) -> Ask {
        self.ask(Whom::Avail, msg)
    }

    /// To all members whose metadata match.
    pub fn target(&self, target: Target, msg: impl Pack) -> Ask {
        self.ask(Whom::Match(target), msg)
    }

    /// To one connection.
    pub fn to(&self, con: ConId, msg: impl Pack) -> Ask {
        self.ask(Whom::Named(con), msg)
    }

    fn ask(&self, whom: Whom, msg: impl Pack) -> Ask {
        Ask::new(self.core().clone(), whom, msg.pack())
    }

    /// The members of this moment.
    pub fn members(&self) -> Vec<Con> {
        self.core().all().into_iter().map(Con).collect()
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.core().with(<[_]>::len)
    }

    /// True when there is no member.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until there are at least `n` members.
    ///
    /// Cancel safe.
    pub async fn joined(&self, n: usize) {
        let mut count = self.core().count.subscribe();
        // The sender is in `self`.
        let _joined = count.wait_for(|count| *count >= n).await.is_ok();
    }

    /// What happens from now on.
    pub fn events(&self) -> Events {
        Events(self.core().events.subscribe())
    }

    /// Tells all members other metadata of this end, and those who come. Members that are not natpipe learn them with the
    /// next message that is sent to them.
    pub fn set_meta(&self, meta: &Meta) {
        self.core().set_meta(meta);
        let Some(packed) = self.core().meta.get() else { return };
        let frame = envelope::metadata(&packed);
        for member in self.core().all() {
            if !member.birth.kin {
                member.meta_is_due();
            } else if let Err(error) = member.push(frame.clone(), None) {
                tracing::debug!(%error, "metadata not told");
                member.meta_is_due();
            }
        }
    }

    /// Stops listening and connecting, says goodbye to all members (1001), and returns when all are gone; that takes at most as
    /// long as [`PoolConf::goodbye`]. Those who wait for answers get errors.
    pub async fn close(&self) {
        self.core().begin_close(&Close::new(Close::GOING_AWAY, ""));
        let mut tasks = self.core().tasks.subscribe();
        // The sender is in `self`.
        let _done = tasks.wait_for(|tasks| *tasks == 0).await.is_ok();
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({}, {} members)", self.name(), self.len())
    }
}
