//! Decides and opens: one end of a pipe as it is written on the command line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, Result};
use natpipe::frame::ws;
use natpipe::pipe::transport::OverIo;
use natpipe::{Addr, NetConf, Pipe, Proto, Ticket, pipe_open};

use crate::stdio::Stdio;

/// One end of a pipe, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    Stdio,
    Tcp(String),
    TcpListen(String),
    Udp(String),
    UdpListen(String),
    Unix(PathBuf),
    UnixListen(PathBuf),
    Tls(String),
    /// The whole URL.
    WebSocket(String),
    Peer(Box<Ticket>),
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "stdio" || text == "-" {
            return Ok(Self::Stdio);
        }
        let (kind, rest) =
            text.split_once(':').ok_or_else(|| format!("`{text}` has no `:`; write tcp:HOST:PORT or stdio"))?;
        match kind {
            "tcp" => remote(rest).map(Self::Tcp),
            "udp" => remote(rest).map(Self::Udp),
            "tls" => remote(rest).map(Self::Tls),
            "ws" | "wss" => authority(text).map(|_| Self::WebSocket(text.to_owned())),
            "peer" => rest.parse().map(|ticket| Self::Peer(Box::new(ticket))).map_err(|error| format!("{error}")),
            "tcp-listen" => local(rest).map(Self::TcpListen),
            "udp-listen" => local(rest).map(Self::UdpListen),
            "unix" | "unix-listen" if rest.is_empty() => Err("the path is missing".to_owned()),
            "unix" => Ok(Self::Unix(rest.into())),
            "unix-listen" => Ok(Self::UnixListen(rest.into())),
            other => {
                let kinds = "tcp, udp, unix, with -listen for servers, tls, ws, wss, peer or stdio";
                Err(format!("`{other}` is no kind of pipe: {kinds}"))
            }
        }
    }
}

/// `HOST:PORT`, checked as far as it can be without looking the host up.
fn remote(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() => port_number(port).map(|_| text.to_owned()),
        _ => Err(format!("`{text}` is not HOST:PORT")),
    }
}

/// `HOST:PORT` of a websocket's URL, with the port of its scheme where it names none.
fn authority(url: &str) -> Result<String, String> {
    let bad = || format!("`{url}` is not ws://HOST[:PORT]/PATH");
    let (scheme, rest) = url.split_once("://").ok_or_else(bad)?;
    let host = rest.split(['/', '?']).next().filter(|host| !host.is_empty()).ok_or_else(bad)?;
    let named = host.rsplit_once(':').is_some_and(|(name, port)| !name.is_empty() && !port.contains(']'));
    if named { remote(host) } else { Ok(format!("{host}:{}", if scheme == "wss" { 443 } else { 80 })) }
}

/// `[HOST:]PORT`; without a host, this machine's loopback address.
fn local(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        None => port_number(text).map(|port| format!("127.0.0.1:{port}")),
        Some((_, port)) => port_number(port).map(|_| text.to_owned()),
    }
}

fn port_number(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("`{text}` is not a port from 0 to 65535"))
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdio => f.write_str("stdio"),
            Self::Tcp(at) => write!(f, "tcp:{at}"),
            Self::TcpListen(at) => write!(f, "tcp-listen:{at}"),
            Self::Udp(at) => write!(f, "udp:{at}"),
            Self::UdpListen(at) => write!(f, "udp-listen:{at}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::UnixListen(path) => write!(f, "unix-listen:{}", path.display()),
            Self::Tls(at) => write!(f, "tls:{at}"),
            Self::WebSocket(url) => f.write_str(url),
            // A ticket is a secret, or may hold one.
            Self::Peer(ticket) => write!(f, "peer:{}", ticket.peer()),
        }
    }
}

impl Spec {
    /// True where others come to it.
    pub fn listens(&self) -> bool {
        matches!(self, Self::TcpListen(_) | Self::UdpListen(_) | Self::UnixListen(_))
    }

    /// Opens it; a listening end is the server itself.
    pub async fn open(&self, conf: NetConf) -> Result<Pipe> {
        let opening = match self {
            Self::Stdio => return stdio(conf),
            Self::WebSocket(url) => return websocket(url, conf).await.with_context(|| format!("cannot open {self}")),
            Self::Peer(_) => anyhow::bail!("a peer can be an end of `natpipe link`; `natpipe connect` reaches one too"),
            Self::Tcp(dest) => pipe_open(Proto::Tcp).dest(dest.clone()).conf(conf),
            Self::Tls(dest) => pipe_open(Proto::Tcp).dest(dest.clone()).conf(conf.use_ssl(true)),
            Self::Udp(dest) => pipe_open(Proto::Udp).dest(dest.clone()).conf(conf),
            Self::Unix(path) => pipe_open(Proto::Unix).dest(path.clone()).conf(conf),
            Self::TcpListen(local) => pipe_open(Proto::Tcp).bind(local.clone()).conf(conf.reuse_addr(true)),
            Self::UdpListen(local) => pipe_open(Proto::Udp).bind(local.clone()).conf(conf),
            Self::UnixListen(path) => pipe_open(Proto::Unix).bind(path.clone()).conf(conf.reuse_addr(true)),
        };
        opening.await.with_context(|| format!("cannot open {self}"))
    }
}

/// A websocket's client; the boundaries of its messages mean nothing.
async fn websocket(url: &str, conf: NetConf) -> Result<Pipe> {
    let dest = authority(url).map_err(anyhow::Error::msg)?;
    let below = pipe_open(Proto::Tcp).dest(dest).conf(conf.clone().use_ssl(url.starts_with("wss:"))).await?;
    let (local, remote) = (below.local_addr().clone(), below.peer_addr().cloned().unwrap_or(Addr::Unnamed));
    let socket = ws::connect(below.into_stream().await, url, &ws::Conf::default()).await?.socket;
    Ok(Pipe::over(OverIo::new(socket.into_bytes(), local, remote), conf)?)
}

fn stdio(conf: NetConf) -> Result<Pipe> {
    Ok(Pipe::over(OverIo::new(Stdio::new(), Addr::Unnamed, Addr::Unnamed), conf)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spec_reads_back_as_it_was_written() {
        for text in [
            "stdio",
            "tcp:host:80",
            "udp:[::1]:9",
            "tls:example.org:443",
            "unix:/tmp/a:b",
            "tcp-listen:0.0.0.0:1",
            "wss://example.org/chat",
        ] {
            assert_eq!(text.parse::<Spec>().unwrap().to_string(), text);
        }
        for (url, at) in [("ws://host/x", "host:80"), ("wss://[::1]", "[::1]:443"), ("ws://host:81?x", "host:81")] {
            assert_eq!(authority(url).unwrap(), at);
        }
        assert_eq!("udp-listen:53".parse::<Spec>().unwrap().to_string(), "udp-listen:127.0.0.1:53");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, part) in [
            ("tcp", "has no `:`"),
            ("tcp:host", "not HOST:PORT"),
            ("tcp:host:http", "not a port"),
            ("sctp:host:1", "no kind of pipe"),
            ("tcp-listen:99999", "not a port"),
            ("unix:", "path is missing"),
            ("ws:host", "not ws://"),
            ("peer:np1nothing", "ticket"),
        ] {
            let error = text.parse::<Spec>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
