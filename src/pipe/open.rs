//! Waits: opening a pipe: the builder, and which of its ways is taken.

use std::future::{Future, IntoFuture};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use socket2::Socket;
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Handle as Runtime;

use super::callbacks::{OnMessage, OnUp, on_end, on_message, on_up};
use super::core::{Core, Handlers, Held, Setting, held};
use super::serve::{ListenSocket, Listener};
use super::transport::{Connection, OverIo, Transport, Udp};
use super::{Addr, Dest, End, NetConf, OpenError, OpenFailure, Outcome, Pipe, Proto, connect};
use crate::net::{self, Local, Route, SocketError, SocketStep};

/// Begins to open a pipe. With a destination it becomes a client, without one a server; await it.
///
/// ```
/// use natpipe::{Proto, pipe_open};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // A server that answers whatever comes, whoever sends it.
/// let server = pipe_open(Proto::Udp)
///     .bind("127.0.0.1:0")
///     .msg_cb(|msg, _from, pipe| async move {
///         let _ = pipe.send(msg).await;
///     })
///     .await?;
///
/// let client = pipe_open(Proto::Udp).dest(server.local_addr()).await?;
/// client.send("hello").await?;
/// assert_eq!(client.recv().await?, "hello");
/// # Ok(())
/// # }
/// ```
pub fn pipe_open(proto: Proto) -> Opening {
    Opening {
        proto,
        dest: None,
        local: LocalChoice::None,
        conf: NetConf::default(),
        sock: None,
        handlers: Handlers::default(),
    }
}

enum LocalChoice {
    None,
    Route(Local, Route),
    Text(Dest),
}

/// A pipe that is about to be opened; awaiting it opens it.
///
/// Dropping the future closes what was opened so far.
#[must_use = "it does nothing until it is awaited"]
pub struct Opening {
    proto: Proto,
    dest: Option<Dest>,
    local: LocalChoice,
    conf: NetConf,
    sock: Option<Socket>,
    handlers: Handlers,
}

impl Opening {
    /// Where it leads: `"host:port"`, an address, `(host, port)`, or the path of a Unix socket.
    pub fn dest(self, dest: impl Into<Dest>) -> Self {
        Self { dest: Some(dest.into()), ..self }
    }

    /// Leaves by the route's interface, from its address, and from its port where it is bound.
    pub fn route(self, route: &Route) -> Self {
        Self { local: LocalChoice::Route(route.local(), route.clone()), ..self }
    }

    /// Binds to an address of this machine (a path for a Unix server), by whichever interface the
    /// kernel's routes choose.
    pub fn bind(self, local: impl Into<Dest>) -> Self {
        Self { local: LocalChoice::Text(local.into()), ..self }
    }

    /// Sets the options.
    pub fn conf(self, conf: NetConf) -> Self {
        Self { conf, ..self }
    }

    /// Takes a socket that exists: connected, listening, or bound. One that is none of these is
    /// connected to `dest`, or listens. It is not bound anew: beside it, `bind` and `route` are refused.
    pub fn sock(self, socket: impl Into<Socket>) -> Self {
        Self { sock: Some(socket.into()), ..self }
    }

    /// As [`Pipe::add_msg_cb`], in place before the first byte can arrive.
    pub fn msg_cb<F, R, S>(mut self, handler: F) -> Self
    where
        F: Fn(Bytes, Addr, Pipe) -> R + Send + Sync + 'static,
        R: Outcome<S>,
    {
        self.handlers.message.push(on_message(handler));
        self
    }

    /// As [`Pipe::add_up_cb`].
    pub fn up_cb<F, R, S>(mut self, handler: F) -> Self
    where
        F: Fn(Pipe) -> R + Send + Sync + 'static,
        R: Outcome<S>,
    {
        self.handlers.up.push(on_up(handler));
        self
    }

    /// As [`Pipe::add_end_cb`].
    pub fn end_cb<F, R, S>(mut self, handler: F) -> Self
    where
        F: Fn(End) -> R + Send + Sync + 'static,
        R: Outcome<S>,
    {
        self.handlers.end.push(on_end(handler));
        self
    }

    /// Asks for the address of a name anew, whatever the resolver remembers. The destination and options are set before.
    #[cfg_attr(not(feature = "smart"), allow(dead_code, reason = "for those who connect again"))]
    pub(crate) fn afresh(self) -> Self {
        if let Some(dest) = &self.dest {
            connect::forget(dest, &self.conf);
        }
        self
    }

    /// Takes IPv6 only on the IPv6 "any" address, so that IPv4 has a listener of its own.
    pub(crate) fn only_v6(mut self) -> Self {
        self.conf.socket.only_v6 = true;
        self
    }

    pub(crate) fn handlers(mut self, message: Option<OnMessage>, up: Option<OnUp>) -> Self {
        self.handlers.message.extend(message);
        self.handlers.up.extend(up);
        self
    }

    async fn open(mut self) -> Result<Pipe, OpenError> {
        let keep = if self.conf.do_close { None } else { self.sock.as_ref().and_then(|sock| sock.try_clone().ok()) };
        let runtime =
            self.conf.runtime.clone().or_else(|| Runtime::try_current().ok()).ok_or(OpenFailure::NoRuntime)?;
        let handlers = std::mem::take(&mut self.handlers);
        let setting = Setting { conf: Arc::new(self.conf.clone()), runtime };
        self.start(&setting, handlers).await.map_err(|failure| OpenError::from(failure).with_socket(keep))
    }

    async fn start(self, setting: &Setting, handlers: Handlers) -> Result<Pipe, OpenFailure> {
        self.check()?;
        // Sockets register with the runtime of the thread that makes them.
        let made = {
            let enter = Entered { runtime: setting.runtime.clone() };
            enter.run(self.make()).await?
        };
        Ok(match made {
            Made::Raw(socket) => Core::raw(socket, setting),
            Made::Listener(listener) => Core::listening(*listener, setting, handlers),
            Made::Transport(transport) => Core::connected(transport, setting, handlers, None),
        })
    }

    fn check(&self) -> Result<(), OpenFailure> {
        let wrong = |reason| Err(OpenFailure::Options { reason });
        if self.conf.use_ssl && self.proto == Proto::Udp {
            return wrong("TLS runs over streams, not over datagrams");
        }
        if self.proto == Proto::Unix && matches!(self.local, LocalChoice::Route(..)) {
            return wrong("a Unix socket has no route");
        }
        if self.proto == Proto::Unix
            && self.dest.is_none()
            && self.sock.is_none()
            && matches!(self.local, LocalChoice::None)
        {
            return wrong("a Unix server needs a path, given with bind");
        }
        if self.proto == Proto::Unix && self.dest.is_some() && !matches!(self.local, LocalChoice::None) {
            return wrong("a Unix client has no address of its own");
        }
        if self.sock.is_some() && !matches!(self.local, LocalChoice::None) {
            return wrong("a socket that is given has its address already");
        }
        #[cfg(feature = "tls")]
        if self.conf.use_ssl && self.is_server() && self.conf.tls_server.is_none() {
            return wrong("a TLS server needs a certificate, given with NetConf::tls_server");
        }
        Ok(())
    }

    /// Without a destination, and without a socket that has one, it is a server.
    fn is_server(&self) -> bool {
        self.dest.is_none() && self.sock.as_ref().is_none_or(|sock| sock.peer_addr().is_err())
    }

    async fn make(mut self) -> Result<Made, OpenFailure> {
        let is_server = self.is_server();
        let sock = self.sock.take();
        match (self.proto, is_server) {
            (Proto::Udp, _) => self.make_datagram(sock).await,
            (Proto::Tcp, true) => self.listen(sock),
            #[cfg(unix)]
            (Proto::Unix, true) => self.listen_unix(sock),
            (_, _) => self.make_client(sock).await,
        }
    }

    async fn make_datagram(&self, sock: Option<Socket>) -> Result<Made, OpenFailure> {
        let socket = match (sock, &self.dest) {
            (Some(sock), Some(dest)) => {
                let local = connect::own_address(&sock);
                let addr = connect::first_address(dest, self.proto, local.as_ref(), &self.conf).await?;
                connect::join_datagram(sock, dest, addr)?
            }
            (Some(sock), None) => sock,
            (None, None) => net::socket::datagram(&self.local(None)?, &self.conf.socket)?,
            (None, Some(dest)) => {
                let local = self.chosen_local()?;
                let addr = connect::first_address(dest, self.proto, local.as_ref(), &self.conf).await?;
                let local = self.local(Some(addr))?;
                let addr = self.scoped(addr);
                connect::join_datagram(net::socket::datagram(&local, &self.conf.socket)?, dest, addr)?
            }
        };
        if self.conf.sock_only {
            return Ok(Made::Raw(socket));
        }
        let shown = shown_local(&socket);
        let socket =
            registered(&shown, socket.set_nonblocking(true).and_then(|()| UdpSocket::from_std(socket.into())))?;
        Ok(Made::Transport(held(registered(&shown, Udp::new(socket))?)))
    }

    fn listen(&self, sock: Option<Socket>) -> Result<Made, OpenFailure> {
        let socket = match sock {
            Some(sock) => connect::listening(sock)?,
            None => net::socket::listener(&self.local(None)?, &self.conf.socket)?,
        };
        if self.conf.sock_only {
            return Ok(Made::Raw(socket));
        }
        let shown = shown_local(&socket);
        let made = socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket.into()));
        let listener = registered(&shown, made)?;
        let local = registered(&shown, listener.local_addr())?.into();
        Ok(Made::Listener(Box::new(self.listener(ListenSocket::Tcp(listener), local))))
    }

    #[cfg(unix)]
    fn listen_unix(&self, sock: Option<Socket>) -> Result<Made, OpenFailure> {
        let path = match (&sock, &self.local) {
            (Some(sock), _) => own_path(sock),
            (None, LocalChoice::Text(dest)) => connect::path_of(dest)?,
            (None, _) => PathBuf::new(),
        };
        let (socket, file) = match sock {
            Some(sock) => (connect::listening(sock)?, None),
            None => {
                let (socket, file) = net::socket::unix_listener(&path, &self.conf.socket)?;
                (socket, Some(file))
            }
        };
        if self.conf.sock_only {
            return Ok(Made::Raw(socket));
        }
        let shown = path.display().to_string();
        let made = socket.set_nonblocking(true).and_then(|()| tokio::net::UnixListener::from_std(socket.into()));
        let listener = registered(&shown, made)?;
        let listener = self.listener(ListenSocket::Unix(listener), Addr::Unix(path.into()));
        Ok(Made::Listener(Box::new(Listener { _file: file, ..listener })))
    }

    fn listener(&self, socket: ListenSocket, local: Addr) -> Listener {
        Listener {
            socket,
            local,
            options: self.conf.socket.clone(),
            #[cfg(unix)]
            _file: None,
            #[cfg(feature = "tls")]
            tls: self
                .conf
                .tls_server
                .clone()
                .filter(|_| self.conf.use_ssl)
                .map(|server| (server, self.conf.ssl_handshake)),
        }
    }

    async fn make_client(&self, sock: Option<Socket>) -> Result<Made, OpenFailure> {
        let dest = self.dest.clone().unwrap_or_else(|| Dest::Text(String::new()));
        let stream = match (sock, self.proto) {
            (Some(sock), proto) => connect::adopted(sock, proto, &dest, &self.conf).await?,
            #[cfg(unix)]
            (None, Proto::Unix) => connect::unix(&dest, self.conf.con_timeout).await?,
            (None, _) => {
                let local = self.chosen_local()?;
                let route = match &self.local {
                    LocalChoice::Route(_, route) => Some(route),
                    _ => None,
                };
                connect::tcp(&dest, local.as_ref(), route, &self.conf).await?
            }
        };
        if self.conf.sock_only {
            return Ok(Made::Raw(stream.into_socket(&dest)?));
        }
        self.dress(stream, &dest).await.map(Made::Transport)
    }

    /// Wraps a connected stream in TLS where that is asked for.
    async fn dress(&self, stream: connect::Stream, dest: &Dest) -> Result<Held, OpenFailure> {
        #[cfg(feature = "tls")]
        if self.conf.use_ssl {
            let client = match &self.conf.tls_client {
                Some(client) => client.clone(),
                None => super::tls::TlsClient::system().map_err(|source| tls_failed(dest, source.into()))?,
            };
            return client.connect(stream, dest, self.conf.ssl_handshake).await;
        }
        let shown = dest.to_string();
        Ok(match stream {
            connect::Stream::Tcp(socket) => held(registered(&shown, Connection::tcp(socket))?),
            #[cfg(unix)]
            connect::Stream::Unix(socket) => held(registered(&shown, Connection::unix(socket))?),
        })
    }

    /// The local address that was asked for.
    fn chosen_local(&self) -> Result<Option<Local>, OpenFailure> {
        match &self.local {
            LocalChoice::None => Ok(None),
            LocalChoice::Route(local, _) => Ok(Some(local.clone())),
            LocalChoice::Text(dest) => Ok(Some(connect::literal(dest, self.proto)?.into())),
        }
    }

    /// The local address to bind: the chosen one, or any of the family of the destination; a server
    /// takes both families where the machine has them.
    fn local(&self, dest: Option<SocketAddr>) -> Result<Local, OpenFailure> {
        if let Some(local) = self.chosen_local()? {
            return Ok(local);
        }
        Ok(match dest {
            Some(addr) => Local::any(net::Family::of(addr.ip())),
            None => Local::any(net::socket::widest_family()),
        })
    }

    fn scoped(&self, addr: SocketAddr) -> SocketAddr {
        match &self.local {
            LocalChoice::Route(_, route) => route.scoped(addr),
            _ => addr,
        }
    }
}

/// What opening comes to.
enum Made {
    Raw(Socket),
    Listener(Box<Listener>),
    Transport(Held),
}

/// Runs a future so that what it registers belongs to a given runtime, whoever polls it.
struct Entered {
    runtime: Runtime,
}

impl Entered {
    async fn run<F: Future>(&self, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| {
            let _inside = self.runtime.enter();
            future.as_mut().poll(cx)
        })
        .await
    }
}

impl IntoFuture for Opening {
    type Output = Result<Pipe, OpenError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.open())
    }
}

impl Pipe {
    /// A pipe over any transport. It needs to be called inside a tokio runtime, or with one in `conf`.
    ///
    /// # Errors
    /// [`OpenFailure::NoRuntime`].
    pub fn over(transport: impl Transport, conf: NetConf) -> Result<Self, OpenError> {
        let runtime = conf.runtime.clone().or_else(|| Runtime::try_current().ok()).ok_or(OpenFailure::NoRuntime)?;
        let setting = Setting { conf: Arc::new(conf), runtime };
        Ok(Core::connected(held(transport), &setting, Handlers::default(), None))
    }

    /// Two ends of a stream in memory: each holds up to `room` bytes that the other has not read.
    ///
    /// # Errors
    /// [`OpenFailure::NoRuntime`].
    pub fn pair(room: usize, conf: NetConf) -> Result<(Self, Self), OpenError> {
        let (a, b) = tokio::io::duplex(room.max(1));
        let over = |end| Self::over(OverIo::new(end, Addr::Unnamed, Addr::Unnamed), conf.clone());
        Ok((over(a)?, over(b)?))
    }
}

#[cfg(feature = "tls")]
fn tls_failed(dest: &Dest, source: io::Error) -> OpenFailure {
    OpenFailure::Tls { dest: dest.to_string(), source }
}

/// The path that a given Unix socket is bound to.
#[cfg(unix)]
fn own_path(socket: &Socket) -> PathBuf {
    let addr = socket.local_addr().ok();
    addr.as_ref().and_then(|addr| addr.as_pathname()).map(PathBuf::from).unwrap_or_default()
}

fn shown_local(socket: &Socket) -> String {
    socket
        .local_addr()
        .ok()
        .and_then(|addr| addr.as_socket())
        .map_or_else(|| "a socket".into(), |addr| addr.to_string())
}

fn registered<T>(target: &str, result: io::Result<T>) -> Result<T, SocketError> {
    result.map_err(|source| SocketError { step: SocketStep::Register, target: target.to_owned(), source })
}
