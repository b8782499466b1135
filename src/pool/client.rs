//! Waits: connections that a pool opens, and opens again.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use rand::RngExt;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use super::core::Core;
use super::member::{Birth, Member};
use super::session::Session;
use super::url::{self, Place};
use super::wire::{Counted, Delimited, Wire};
use super::{Backoff, ClientError, Con, Event, conf};
use crate::base::task;
use crate::frame::ws::{self, Close, Role};
use crate::pipe::{NetConf, Pipe, PipeStream, Proto, pipe_open};

/// A client that is about to connect. Awaiting it waits until it is connected, however long that takes; [`start`](Self::start)
/// does not wait.
#[must_use = "it does nothing until it is awaited or started"]
pub struct Connecting {
    core: Arc<Core>,
    dest: String,
    net: NetConf,
    ws: ws::Conf,
    backoff: Backoff,
    delimited: bool,
}

impl Connecting {
    pub(super) fn new(core: Arc<Core>, dest: String) -> Self {
        let ws = core.conf.ws();
        Self { core, dest, net: NetConf::default().nodelay(true), ws, backoff: Backoff::default(), delimited: false }
    }

    /// The options of the socket, as whom it trusts with `tls_client`. Nagle's delay is off unless these say otherwise.
    pub fn conf(self, net: NetConf) -> Self {
        Self { net, ..self }
    }

    /// How it waits between attempts.
    pub fn backoff(self, backoff: Backoff) -> Self {
        Self { backoff, ..self }
    }

    /// A header of the request, such as `Authorization`, or `Host` for who stands behind a proxy.
    pub fn header(self, name: HeaderName, value: HeaderValue) -> Self {
        Self { ws: self.ws.header(name, value), ..self }
    }

    /// Sends this bearer token (RFC 6750). What can not stand in a header is not sent.
    pub fn bearer(self, token: &str) -> Self {
        match HeaderValue::try_from(format!("Bearer {token}")) {
            Ok(mut value) => {
                value.set_sensitive(true);
                self.header(http::header::AUTHORIZATION, value)
            }
            Err(_) => self,
        }
    }

    /// On a Unix socket: speaks the seed's framing instead of WebSocket.
    pub fn delimited(self) -> Self {
        Self { delimited: true, ..self }
    }

    /// Begins to connect, and goes on until the pool is closed or the client stopped.
    ///
    /// # Errors
    /// [`ClientError::Dest`] when the destination is none, [`ClientError::Closed`].
    pub fn start(self) -> Result<Client, ClientError> {
        let place = url::parse(&self.dest).ok_or_else(|| ClientError::Dest { dest: self.dest.clone() })?;
        if self.core.is_closed() {
            return Err(ClientError::Closed);
        }
        let state = Arc::new(watch::Sender::new(State::default()));
        let guard = self.core.task();
        let line = Line { place, state: state.clone(), way: self };
        task::drive(&Handle::current(), async move {
            let _counted = guard;
            line.run().await;
            line.state.send_modify(|state| state.over = true);
        });
        Ok(Client { state })
    }
}

impl IntoFuture for Connecting {
    type Output = Result<Client, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let client = self.start()?;
            client.connected().await?;
            Ok(client)
        })
    }
}

#[derive(Default)]
struct State {
    con: Option<Con>,
    stopped: bool,
    over: bool,
}

/// A connection that a pool keeps up. Dropping it leaves it to the pool.
#[derive(Clone)]
pub struct Client {
    state: Arc<watch::Sender<State>>,
}

impl Client {
    /// Waits until it is connected, and gives the connection.
    ///
    /// # Errors
    /// [`ClientError::Closed`]. Cancel safe.
    pub async fn connected(&self) -> Result<Con, ClientError> {
        let mut watching = self.state.subscribe();
        let state = watching.wait_for(|state| state.con.is_some() || state.over).await;
        // The sender is in `self`.
        state.ok().and_then(|state| state.con.clone()).ok_or(ClientError::Closed)
    }

    /// The connection, while there is one.
    pub fn con(&self) -> Option<Con> {
        self.state.borrow().con.clone()
    }

    /// Says goodbye, and connects no more; returns when that is done.
    pub async fn stop(&self) {
        self.state.send_modify(|state| state.stopped = true);
        let mut watching = self.state.subscribe();
        // The sender is in `self`.
        let _over = watching.wait_for(|state| state.over).await.is_ok();
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({:?})", self.con())
    }
}

/// The life of a client.
struct Line {
    way: Connecting,
    place: Place,
    state: Arc<watch::Sender<State>>,
}

impl Line {
    /// Connects and connects again, until it is stopped.
    async fn run(&self) {
        let mut failures = 0;
        loop {
            let lived = tokio::select! {
                connected = self.connect() => match connected {
                    Ok((con, session)) => self.stay(con, session).await,
                    Err(error) => {
                        self.tell(&error);
                        // However long it took, nothing has lived.
                        Duration::ZERO
                    }
                },
                () = self.stopped() => return,
            };
            if Backoff::is_good(lived) {
                failures = 0;
            }
            let wait = self.way.backoff.wait(failures, rand::rng().random());
            failures = failures.saturating_add(1);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stopped() => return,
            }
        }
    }

    fn tell(&self, error: &ClientError) {
        self.way.core.tell(Event::Retrying { dest: self.way.dest.clone(), why: error.to_string() });
    }

    /// Is a member until the connection ends, and tells how long that was; a client that is stopped says goodbye.
    async fn stay(&self, con: Con, session: Session) -> Duration {
        let begun = Instant::now();
        self.state.send_modify(|state| state.con = Some(con.clone()));
        let mut session = std::pin::pin!(session);
        let left = tokio::select! {
            left = &mut session => left,
            () = self.stopped() => {
                con.close(Close::NORMAL, "");
                session.await
            }
        };
        tracing::debug!(%left, "a client's connection ended");
        self.state.send_modify(|state| state.con = None);
        begun.elapsed()
    }

    async fn stopped(&self) {
        let mut watching = self.state.subscribe();
        tokio::select! {
            // The sender is in `self`.
            _stopped = watching.wait_for(|state| state.stopped) => {}
            () = self.way.core.closed() => {}
        }
    }

    async fn connect(&self) -> Result<(Con, Session), ClientError> {
        let core = &self.way.core;
        let pipe = match &self.place {
            Place::Tcp { dest, tls, .. } => {
                pipe_open(Proto::Tcp).dest(&**dest).conf(secured(self.way.net.clone(), *tls)).await?
            }
            Place::Unix(path) => pipe_open(Proto::Unix).dest(path.as_path()).conf(self.way.net.clone()).await?,
        };
        let url = match &self.place {
            Place::Tcp { url, .. } => url.as_str(),
            Place::Unix(_) if self.way.delimited => {
                let limit = core.conf.max_message.saturating_add(core.conf.max_meta).saturating_add(1024);
                let peer = pipe.peer_addr().cloned();
                let wire = Wire::Delimited(Box::new(Delimited::new(Counted::new(pipe.into_stream().await), limit)));
                return add(core, Birth { role: Role::Client, peer, path: "".into(), kin: false }, wire);
            }
            Place::Unix(_) => "ws://localhost/ws",
        };
        join(core, pipe, url, &self.way.ws).await
    }
}

#[cfg(feature = "tls")]
fn secured(net: NetConf, tls: bool) -> NetConf {
    if tls { net.use_ssl(true) } else { net.use_ssl(false) }
}

#[cfg(not(feature = "tls"))]
fn secured(net: NetConf, _: bool) -> NetConf {
    net
}

/// Upgrades a connected pipe, as its client, and makes a member of it.
pub(super) async fn join(
    core: &Arc<Core>,
    pipe: Pipe,
    url: &str,
    ws: &ws::Conf,
) -> Result<(Con, Session), ClientError> {
    let peer = pipe.peer_addr().cloned();
    let stream: PipeStream = pipe.into_stream().await;
    let connected = ws::connect(Counted::new(stream), url, ws).await?;
    let kin = connected.subprotocol.is_some_and(|spoken| spoken == conf::SUBPROTOCOL);
    let path = url.parse::<http::Uri>().map(|uri| uri.path().into()).unwrap_or_default();
    add(core, Birth { role: Role::Client, peer, path, kin }, Wire::Ws(Box::new(connected.socket)))
}

fn add(core: &Arc<Core>, birth: Birth, wire: Wire) -> Result<(Con, Session), ClientError> {
    let member = Member::new(birth, core);
    if core.add(&member) {
        Ok((Con(member.clone()), Session::new(core, member, wire)))
    } else if core.is_closed() {
        Err(ClientError::Closed)
    } else {
        Err(ClientError::Members { limit: core.conf.members })
    }
}
