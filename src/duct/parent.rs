//! Waits: the end that listens, in a task.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::codec::{Codec, Json};
use super::duct::Duct;
use super::error::{BindError, ListenError, RecvError, SendError};
use super::link::{Deadline, accept, resolve};
use super::listening::Listening;
use super::options::DuctOptions;
use super::place::{Place, VARIABLE, told};
use crate::net::private;
use crate::pipe::Addr;

/// The end of a duct that listens for one child, and is a duct when that has come.
///
/// Its listener is gone once the child is there: a second child is refused. A Unix path is its owner's alone and is
/// removed then, or when the parent is dropped.
#[derive(Debug)]
pub struct DuctParent<T, C = Json> {
    place: Place,
    options: DuctOptions,
    codec: Arc<C>,
    listening: Option<Listening>,
    /// Where it has listened.
    address: Option<Addr>,
    duct: Option<Duct<T, C>>,
}

impl<T> DuctParent<T> {
    /// On a new path in a new folder that only this user can enter: the seed's `psuedo_anonymous_parent_duct()`.
    pub fn anonymous() -> Self {
        Self::at(Place::Anonymous)
    }

    /// On a Unix path, which must be free (a socket of this user's that nobody listens on is replaced).
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::at(Place::Unix(path.into()))
    }

    /// On a TCP port of an interface of this machine, by address or name; port 0 takes a free one. The seed's
    /// `psuedo_anonymous_tcp_parent_duct()` is `tcp("localhost", 0)`. Bytes go over TCP as they are: whoever can reach
    /// the port can be the child. Use a duct over a TLS pipe, or a peer's, where that matters.
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self::at(Place::Tcp { host: host.into(), port })
    }

    fn at(place: Place) -> Self {
        let (options, codec) = (DuctOptions::default(), Arc::new(Json));
        Self { place, options, codec, listening: None, address: None, duct: None }
    }
}

impl<T, C> DuctParent<T, C> {
    /// With another codec. Before `bind`.
    pub fn codec<D: Codec<T>>(self, codec: D) -> DuctParent<T, D> {
        let Self { place, options, listening, address, .. } = self;
        DuctParent { place, options, codec: Arc::new(codec), listening, address, duct: None }
    }

    /// With other options. Before `bind`.
    pub fn options(self, options: DuctOptions) -> Self {
        Self { options, ..self }
    }
}

impl<T, C: Codec<T>> DuctParent<T, C> {
    /// Begins to listen.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn bind(&mut self) -> Result<(), BindError> {
        if self.address.is_some() {
            return Err(BindError::AlreadyConnected);
        }
        let resolved = match &self.place {
            Place::Tcp { host, port } => {
                resolve(host, *port).await.map_err(|source| BindError::Resolve { host: host.clone(), source })?
            }
            _ => Vec::new(),
        };
        let listening = Listening::bind(&self.place, &resolved)?;
        self.address = Some(listening.address.clone());
        self.listening = Some(listening);
        Ok(())
    }

    /// Where it listens, or has listened: the port is the real one. `None` before `bind`.
    pub fn listener_address(&self) -> Option<&Addr> {
        self.address.as_ref()
    }

    /// Tells a program that will be started where to connect, in its environment (`NATPIPE_DUCT`), for
    /// [`DuctChild::from_env`](super::DuctChild::from_env). Nothing before `bind`.
    pub fn tell(&self, command: &mut Command) {
        if let Some(address) = &self.address {
            command.env(VARIABLE, told(address));
        }
    }

    /// Waits for the child. True when it has come; false when `limit` has passed, and `listen` can be called again.
    ///
    /// # Errors
    /// [`ListenError`].
    ///
    /// Cancel safe.
    pub async fn listen(&mut self, limit: impl Into<Option<Duration>>) -> Result<bool, ListenError> {
        if self.duct.is_some() {
            return Err(ListenError::AlreadyConnected);
        }
        let listening = self.listening.as_ref().ok_or(ListenError::NotBound)?;
        let failed = |source| ListenError::Io { address: listening.address.to_string(), source };
        let mut deadline = Deadline::new(limit.into());
        // The runtime may not have heard of one that is there: the listener is asked itself.
        let socket = match private::accept(&listening.socket).map_err(failed)? {
            Some(socket) => socket,
            None => match deadline.within(accept(&listening.socket)).await {
                Some(accepted) => accepted.map_err(failed)?,
                None => return Ok(false),
            },
        };
        self.listening = None;
        self.duct = Some(Duct::attach(socket, self.options.clone(), self.codec.clone())?);
        Ok(true)
    }

    /// The duct, when the child is there.
    pub fn duct(&self) -> Option<&Duct<T, C>> {
        self.duct.as_ref()
    }

    /// The duct alone. `None` when no child has come; the listener goes too then.
    pub fn into_duct(self) -> Option<Duct<T, C>> {
        self.duct
    }

    /// See [`Duct::send`].
    ///
    /// # Errors
    /// [`SendError`]; [`SendError::NotConnected`] before the child has come.
    pub async fn send(&self, object: &T) -> Result<(), SendError> {
        self.duct().ok_or(SendError::NotConnected)?.send(object).await
    }

    /// See [`Duct::recv`].
    ///
    /// # Errors
    /// [`RecvError`]; [`RecvError::NotConnected`] before the child has come.
    pub async fn recv(&self) -> Result<T, RecvError> {
        self.duct().ok_or(RecvError::NotConnected)?.recv().await
    }

    /// See [`Duct::poll`].
    ///
    /// # Errors
    /// [`RecvError::NotConnected`] before the child has come, and after `close`.
    pub async fn poll(&self, limit: impl Into<Option<Duration>>) -> Result<bool, RecvError> {
        self.duct().ok_or(RecvError::NotConnected)?.poll(limit).await
    }

    /// Ends the duct, or the listening. See [`Duct::close`].
    pub async fn close(&mut self) {
        self.listening = None;
        if let Some(duct) = &self.duct {
            duct.close().await;
        }
    }
}
