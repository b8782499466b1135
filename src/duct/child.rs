//! Waits: the end that connects, in a task.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use socket2::Socket;

use super::codec::{Codec, Json};
use super::duct::Duct;
use super::error::{ConnectError, InheritError, RecvError, SendError};
use super::link::{Deadline, connected, resolve};
use super::listening::{inherit, may_come};
use super::options::DuctOptions;
use super::place::{Place, VARIABLE};
use crate::net::private::{self, Begun};

/// The end of a duct that connects to a parent.
#[derive(Debug)]
pub struct DuctChild<T, C = Json> {
    place: Place,
    options: DuctOptions,
    codec: Arc<C>,
    duct: Option<Duct<T, C>>,
}

impl<T> DuctChild<T> {
    /// Of the parent on this Unix path.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::at(Place::Unix(path.into()))
    }

    /// Of the parent on this port of a host, by address or name.
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self::at(Place::Tcp { host: host.into(), port })
    }

    /// Of the parent that this process was started by, as the environment tells (`NATPIPE_DUCT`).
    ///
    /// # Errors
    /// [`InheritError`] when the variable is not there, or names no duct.
    pub fn from_env() -> Result<Self, InheritError> {
        let found = std::env::var_os(VARIABLE).ok_or(InheritError::NotSet { variable: VARIABLE })?;
        Ok(Self::at(Place::parse(&found)?))
    }

    fn at(place: Place) -> Self {
        Self { place, options: DuctOptions::default(), codec: Arc::new(Json), duct: None }
    }
}

impl<T, C> DuctChild<T, C> {
    /// With another codec. Before `connect`.
    pub fn codec<D: Codec<T>>(self, codec: D) -> DuctChild<T, D> {
        let Self { place, options, .. } = self;
        DuctChild { place, options, codec: Arc::new(codec), duct: None }
    }

    /// With other options. Before `connect`.
    pub fn options(self, options: DuctOptions) -> Self {
        Self { options, ..self }
    }
}

impl<T, C: Codec<T>> DuctChild<T, C> {
    /// Connects. While the address is absent or refuses, it tries again `connect_retry_count` times, each time after
    /// `connect_retry_delay`.
    ///
    /// # Errors
    /// [`ConnectError`].
    ///
    /// Cancelling gives up; it can be called again.
    pub async fn connect(&mut self) -> Result<(), ConnectError> {
        if self.duct.is_some() {
            return Err(ConnectError::AlreadyConnected);
        }
        let mut tries = 1;
        let socket = loop {
            match self.try_once().await? {
                Ok(socket) => break socket,
                Err(error) if may_come(&error) && tries <= self.options.connect_retry_count => {
                    tokio::time::sleep(self.options.connect_retry_delay).await;
                    tries += 1;
                }
                Err(source) => {
                    return Err(ConnectError::Refused { address: self.place.to_string(), tries, source });
                }
            }
        };
        self.duct = Some(Duct::attach(socket, self.options.clone(), self.codec.clone())?);
        Ok(())
    }

    async fn try_once(&self) -> Result<io::Result<Socket>, ConnectError> {
        Ok(match &self.place {
            Place::Anonymous => Err(io::ErrorKind::InvalidInput.into()),
            Place::Unix(path) => private::unix_connect(path),
            Place::Inherited(number) => Ok(inherit(*number)?),
            Place::Tcp { host, port } => {
                let resolved = resolve(host, *port)
                    .await
                    .map_err(|source| ConnectError::Resolve { host: host.clone(), source })?;
                first_of(&resolved, self.options.timeout).await
            }
        })
    }

    /// The duct, when it is connected.
    pub fn duct(&self) -> Option<&Duct<T, C>> {
        self.duct.as_ref()
    }

    /// The duct alone. `None` when it is not connected.
    pub fn into_duct(self) -> Option<Duct<T, C>> {
        self.duct
    }

    /// See [`Duct::send`].
    ///
    /// # Errors
    /// [`SendError`]; [`SendError::NotConnected`] before `connect`.
    pub async fn send(&self, object: &T) -> Result<(), SendError> {
        self.duct().ok_or(SendError::NotConnected)?.send(object).await
    }

    /// See [`Duct::recv`].
    ///
    /// # Errors
    /// [`RecvError`]; [`RecvError::NotConnected`] before `connect`.
    pub async fn recv(&self) -> Result<T, RecvError> {
        self.duct().ok_or(RecvError::NotConnected)?.recv().await
    }

    /// See [`Duct::poll`].
    ///
    /// # Errors
    /// [`RecvError::NotConnected`] before `connect`, and after `close`.
    pub async fn poll(&self, limit: impl Into<Option<Duration>>) -> Result<bool, RecvError> {
        self.duct().ok_or(RecvError::NotConnected)?.poll(limit).await
    }

    /// See [`Duct::close`].
    pub async fn close(&self) {
        if let Some(duct) = &self.duct {
            duct.close().await;
        }
    }
}

/// A connection to the first address that takes it, each within `limit`.
async fn first_of(addrs: &[SocketAddr], limit: Option<Duration>) -> io::Result<Socket> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for addr in addrs {
        match tcp(*addr, limit).await {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn tcp(addr: SocketAddr, limit: Option<Duration>) -> io::Result<Socket> {
    let socket = match private::tcp_connect(addr)? {
        Begun::Connected(socket) => return Ok(socket),
        Begun::Underway(socket) => socket,
    };
    Deadline::new(limit).within(connected(socket)).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}
