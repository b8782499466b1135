//! `natpipe link`: two pipes joined both ways.
//!
//! A listening end takes one peer, as the other end is one: the first connection, or for datagrams
//! the first who sends. With two listening ends both wait.

use anyhow::{Context as _, Result};
use natpipe::peer::{Node, Peer};
use natpipe::pipe::{Counters, Relay};
use natpipe::{Addr, NetConf, Pipe, Proto, Ticket, pipe_open};
use serde_json::json;

use crate::output::say;
use crate::peering::unbroken;
use crate::spec::Spec;

pub async fn run(a: Spec, b: Spec, json: bool) -> Result<()> {
    anyhow::ensure!(a != b || a != Spec::Stdio, "stdio can be one end only");
    // A server listens before the other end is tried, so that its peer can come meanwhile.
    let open = |spec| Waiting::open(spec, NetConf::default(), json);
    let (waiting_a, waiting_b) = (open(&a).await?, open(&b).await?);
    let reached = [waiting_a.reached(), waiting_b.reached()];
    let (pipe_a, pipe_b) = tokio::try_join!(waiting_a.peer(), waiting_b.peer())?;
    let (at_a, at_b) = Relay::new(pipe_a.clone(), pipe_b.clone()).wait().await;
    closed(json, at_a, at_b);
    for (node, peer) in reached.into_iter().flatten() {
        // The last bytes are on their way until the peer has heard the goodbye.
        peer.close().await;
        node.close().await;
    }
    unbroken(&pipe_a, &a)?;
    unbroken(&pipe_b, &b)
}

fn closed(json: bool, at_a: Counters, at_b: Counters) {
    let event = json!({"event": "closed", "sent": at_a.bytes_in, "received": at_b.bytes_in});
    if json {
        say(json, "", &event);
    }
}

/// An end that is open, or that waits for its peer.
pub enum Waiting {
    Open(Pipe),
    ForClient(Pipe),
    ForDatagram(Pipe),
    Reached(Box<(Node, Peer, Pipe)>),
}

impl Waiting {
    pub async fn open(spec: &Spec, conf: NetConf, json: bool) -> Result<Self> {
        if let Spec::Peer(ticket) = spec {
            return reach(ticket).await.with_context(|| format!("cannot reach {}", ticket.peer()));
        }
        let pipe = spec.open(conf).await?;
        if !spec.listens() {
            return Ok(Self::Open(pipe));
        }
        let local = pipe.local_addr().to_string();
        say(json, format_args!("listening at {local}"), &json!({"event": "listening", "local": local}));
        Ok(if matches!(spec, Spec::UdpListen(_)) { Self::ForDatagram(pipe) } else { Self::ForClient(pipe) })
    }

    /// What stands behind a peer's pipe, and has to part from it at the end.
    fn reached(&self) -> Option<(Node, Peer)> {
        match self {
            Self::Reached(reached) => Some((reached.0.clone(), reached.1.clone())),
            _ => None,
        }
    }

    pub async fn peer(self) -> Result<Pipe> {
        match self {
            Self::Open(pipe) => Ok(pipe),
            Self::Reached(reached) => Ok(reached.2),
            Self::ForClient(server) => {
                let client = server.accept().await.context("no client came")?;
                server.stop_listening().await;
                Ok(client)
            }
            Self::ForDatagram(server) => first_sender(server).await,
        }
    }
}

/// A stream to whoever made the ticket, by all ways that it names.
async fn reach(ticket: &Ticket) -> Result<Waiting> {
    let node = Node::builder().public_stun(true).start().await?;
    let peer = node.peer(ticket).await?;
    let pipe = peer.open(natpipe::nat::Proto::Tcp, NetConf::default())?;
    Ok(Waiting::Reached(Box::new((node, peer, pipe))))
}

/// Waits for a datagram, and gives a pipe that talks with its sender alone. Datagrams of others that
/// came meanwhile are not the relay's.
async fn first_sender(server: Pipe) -> Result<Pipe> {
    let first = server.recv_within(None).await.context("no datagram came")?;
    let Addr::Ip(peer) = first.from else { anyhow::bail!("the sender has no address") };
    let local = server.local_addr().clone();
    server.close().await;
    let talk = pipe_open(Proto::Udp).bind(&local).dest(peer).await?;
    talk.put_back(first);
    Ok(talk)
}
