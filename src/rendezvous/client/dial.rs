//! Waits: from a server's URL to a registered connection.

use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::frames::Frames;
use super::super::wire::{FIRST_WINDOW, Frame, Reason, VERSION};
use super::proxy::Proxy;
use crate::frame::ws;
use crate::key::{Carrier, Identity, ServerUrl, tls};
use crate::net::Route;
use crate::pipe::tls::TlsClient;
use crate::pipe::{self, NetConf, OpenError, OpenFailure, PipeStream, Proto, pipe_open};

/// From the first packet to being registered, for each way that is tried.
const LIMIT: Duration = Duration::from_secs(10);
/// For one connection to be answered: its first packet is sent again after one second and after three.
const CONNECT: Duration = Duration::from_secs(5);
/// Without an answer for so long a second one begins, from another port. Both together take less than the limit.
const BESIDE: Duration = Duration::from_secs(3);

/// What carries a connection to the server: TCP, or a websocket over TCP or over the web's TLS. Inside is TLS by key.
pub(super) type Carried = Box<dyn Io>;

pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Why a client is not connected to its server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The server's address, or the proxy's, can not be reached.
    #[error("can not reach the rendezvous server or proxy {server}")]
    Open {
        /// `HOST:PORT`.
        server: String,
        /// Why not.
        #[source]
        source: OpenError,
    },
    /// Who answers has not the key of the URL: the URL is old, or somebody stands in between. Nothing was said to it.
    #[error("{server} is not the server of the URL: it has another key. Is the URL of another server, or an old one?")]
    NotTheServer {
        /// `HOST:PORT`.
        server: String,
    },
    /// Who answers speaks another protocol, or the connection broke.
    #[error("{server} is no rendezvous server that can be talked to: {source}")]
    Handshake {
        /// `HOST:PORT`.
        server: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The proxy does not lead there.
    #[error("no way to {server}: {source}")]
    Proxy {
        /// `HOST:PORT` of the server.
        server: String,
        /// What the proxy says.
        #[source]
        source: io::Error,
    },
    /// The server turns this peer away.
    #[error("the rendezvous server {server} turns us away: {why}")]
    Refused {
        /// `HOST:PORT`.
        server: String,
        /// Why.
        why: Reason,
    },
    /// The server took too long.
    #[error("the rendezvous server {server} did not answer within {limit:?}")]
    TimedOut {
        /// `HOST:PORT`.
        server: String,
        /// The limit.
        limit: Duration,
    },
    /// No websocket comes about there: it is another server, or a reverse proxy that does not pass websockets on.
    #[error("no websocket to {server}")]
    WebSocket {
        /// `HOST:PORT`.
        server: String,
        /// Why not.
        #[source]
        source: ws::ConnectError,
    },
    /// The identity can not be used for TLS.
    #[error("the identity can not be used for TLS")]
    Identity(#[source] rustls::Error),
    /// It was called outside a tokio runtime.
    #[error("a rendezvous client needs a tokio runtime")]
    NoRuntime,
}

impl ConnectError {
    /// Something stands in the way, and may let another way pass.
    fn is_obstructed(&self) -> bool {
        match self {
            Self::Handshake { .. } | Self::TimedOut { .. } => true,
            Self::Open { source, .. } => matches!(source.kind(), OpenFailure::ConnectTimedOut { .. }),
            _ => false,
        }
    }
}

/// How a server is reached.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) url: ServerUrl,
    pub(super) route: Option<Route>,
    pub(super) proxy: Option<Proxy>,
    pub(super) web_tls: Option<TlsClient>,
}

/// Reaches a server, again and again.
pub(super) struct Dialer {
    way: Way,
    tls: TlsConnector,
    conf: NetConf,
}

/// A registered connection.
pub(super) struct Line {
    pub(super) frames: Frames<ReadHalf<TlsStream<Carried>>>,
    pub(super) writing: WriteHalf<TlsStream<Carried>>,
    pub(super) keepalive: Duration,
    pub(super) window: u32,
    /// Our address, as the system chose it.
    pub(super) local: Option<IpAddr>,
}

impl Dialer {
    pub(super) fn new(way: Way, identity: &Identity) -> Result<Self, ConnectError> {
        let config =
            tls::client_config(identity, way.url.key(), &[super::super::ALPN]).map_err(ConnectError::Identity)?;
        let conf = NetConf::default().nodelay(true).con_timeout(CONNECT).dns_timeout(LIMIT);
        Ok(Self { way, tls: TlsConnector::from(Arc::clone(&config)), conf })
    }

    /// The way that the URL names. What does not pass straight is tried once more as a websocket, which firewalls and proxies
    /// that look into connections let through. `advance` is called with each step that is made.
    pub(super) async fn dial(&self, advance: &(impl Fn() + Sync)) -> Result<Line, ConnectError> {
        let carrier = self.way.url.carrier();
        match (carrier, self.dial_by(carrier, advance).await) {
            (Carrier::Natpipe, Err(error)) if error.is_obstructed() => {
                advance();
                // The first error is the one to tell: the other way is a guess.
                self.dial_by(Carrier::Ws, advance).await.map_err(|_| error)
            }
            (_, dialled) => dialled,
        }
    }

    async fn dial_by(&self, carrier: Carrier, advance: &(impl Fn() + Sync)) -> Result<Line, ConnectError> {
        match timeout(LIMIT, self.reach(carrier, advance)).await {
            Ok(line) => line,
            Err(_) => Err(ConnectError::TimedOut { server: self.way.url.authority(), limit: LIMIT }),
        }
    }

    async fn reach(&self, carrier: Carrier, advance: &(impl Fn() + Sync)) -> Result<Line, ConnectError> {
        let server = self.way.url.authority();
        let failed = |source| match is_other_key(&source) {
            true => ConnectError::NotTheServer { server: server.clone() },
            false => ConnectError::Handshake { server: server.clone(), source },
        };
        let stream = self.connect().await?;
        advance();
        let local = stream.local_addr().ok().map(|addr| addr.ip().to_canonical());
        let stream = match carrier {
            Carrier::Natpipe => Box::new(stream),
            Carrier::Ws => self.websocket("ws", stream).await?,
            Carrier::Wss => self.websocket("wss", self.web_tls(stream).await?).await?,
        };
        let stream = self.tls.connect(tls::server_name(), stream).await.map_err(failed)?;
        advance();
        self.register(stream, local).await
    }

    /// A TCP connection to the server, or through the proxy.
    async fn connect(&self) -> Result<TcpStream, ConnectError> {
        let mut stream = self.open().await?;
        if let Some(proxy) = &self.way.proxy {
            let server = self.way.url.authority();
            let refused = |source| ConnectError::Proxy { server: server.clone(), source };
            proxy.tunnel(&mut stream, &server).await.map_err(refused)?;
        }
        Ok(stream)
    }

    /// A NAT may swallow a flow, each packet that is sent again included, as when the port that it has for it is taken. So who is
    /// not answered begins once more, from another port, and the first that is answered is taken.
    async fn open(&self) -> Result<TcpStream, ConnectError> {
        let mut first = pin!(self.open_once());
        if let Ok(opened) = timeout(BESIDE, &mut first).await {
            return opened;
        }
        tracing::debug!("not answered: a second connection begins");
        let mut second = pin!(self.open_once());
        let (opened, other) = tokio::select! {
            opened = &mut first => (opened, second),
            opened = &mut second => (opened, first),
        };
        match opened {
            Ok(stream) => Ok(stream),
            Err(_) => other.await,
        }
    }

    async fn open_once(&self) -> Result<TcpStream, ConnectError> {
        let server = self.way.url.authority();
        let failed = |source| ConnectError::Handshake { server: server.clone(), source };
        let dest = self.way.proxy.as_ref().map_or(server.as_str(), Proxy::authority);
        let opening = pipe_open(Proto::Tcp).dest(dest).conf(self.conf.clone().sock_only(true));
        let opening = self.way.route.iter().fold(opening, pipe::Opening::route);
        let pipe = opening.await.map_err(|source| ConnectError::Open { server: dest.to_owned(), source })?;
        let socket = pipe.into_socket().ok_or_else(|| failed(io::ErrorKind::NotConnected.into()))?;
        TcpStream::from_std(socket.into()).map_err(failed)
    }

    /// The web's TLS, with names and authorities.
    async fn web_tls(&self, stream: TcpStream) -> Result<PipeStream, ConnectError> {
        let server = self.way.url.authority();
        let socket = stream.into_std().map_err(|source| ConnectError::Handshake { server: server.clone(), source })?;
        let conf = self.conf.clone().use_ssl(true).ssl_handshake(LIMIT);
        let conf = self.way.web_tls.iter().cloned().fold(conf, NetConf::tls_client);
        let opened = pipe_open(Proto::Tcp).dest(server.as_str()).sock(socket).conf(conf).await;
        Ok(opened.map_err(|source| ConnectError::Open { server, source })?.into_stream().await)
    }

    async fn websocket<S: Io + 'static>(&self, scheme: &str, stream: S) -> Result<Carried, ConnectError> {
        let url = format!("{scheme}://{}{}", self.way.url.authority(), self.way.url.path());
        let conf = ws::Conf::default().max_message(super::super::WS_MESSAGE);
        let connected = ws::connect(stream, &url, &conf).await;
        let refused = |source| ConnectError::WebSocket { server: self.way.url.authority(), source };
        Ok(Box::new(connected.map_err(refused)?.socket.into_bytes()))
    }

    async fn register(&self, stream: TlsStream<Carried>, local: Option<IpAddr>) -> Result<Line, ConnectError> {
        let server = self.way.url.authority();
        let failed = |source| ConnectError::Handshake { server: server.clone(), source };
        let (reading, mut writing) = split(stream);
        let mut hello = Vec::new();
        Frame::Hello { version: VERSION }.write(&mut hello);
        writing.write_all(&hello).await.map_err(failed)?;
        writing.flush().await.map_err(failed)?;
        let mut frames = Frames::new(reading);
        loop {
            let invalid = |what: &str| failed(io::Error::new(io::ErrorKind::InvalidData, what.to_owned()));
            match frames.take().map_err(|error| invalid(&error.to_string()))? {
                Some(Frame::Welcome { version, keepalive, window }) => {
                    if version == 0 || keepalive == 0 || window < FIRST_WINDOW {
                        return Err(invalid("its welcome makes no sense"));
                    }
                    let keepalive = Duration::from_secs(keepalive.into());
                    return Ok(Line { frames, writing, keepalive, window, local });
                }
                Some(Frame::Goodbye(why)) => return Err(ConnectError::Refused { server: server.clone(), why }),
                Some(_) => return Err(invalid("it does not begin with a welcome")),
                None => {}
            }
            if !frames.fill().await.map_err(failed)? {
                return Err(failed(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

/// The server's key was not the one of the URL.
fn is_other_key(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure)))
}
