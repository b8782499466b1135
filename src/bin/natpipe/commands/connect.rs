//! `natpipe connect`: reach the peer of a ticket.

use anyhow::{Context as _, Result};
use natpipe::NetConf;
use natpipe::nat::Proto as Over;
use natpipe::peer::Peer;
use serde_json::json;
use tokio::task::JoinSet;

use crate::args::ConnectArgs;
use crate::output::say;
use crate::peering::{self, closed, datagrams, join, over, stdio, tell_failure, tell_paths, tell_race};
use crate::progress;
use crate::spec::Spec;

pub async fn run(args: ConnectArgs, json: bool) -> Result<()> {
    let node = peering::node(&args.peer, false, false).await?;
    let mut race = None;
    let spinner = progress::spinner(json);
    spinner.set_message("looking for a way to the peer");
    let reached = node.peer_watched(&args.ticket, |events| race = Some(tokio::spawn(tell_race(events, json)))).await;
    spinner.finish_and_clear();
    let peer = reached.with_context(|| format!("can not reach {}", args.ticket.peer()))?;
    let mut told = JoinSet::new();
    told.spawn(tell_paths(peer.clone(), json));
    let done = carry(&peer, args.from.as_ref().unwrap_or(&Spec::Stdio), json).await;
    peer.close().await;
    node.close().await;
    peering::last_words(told).await;
    race.into_iter().for_each(|race| race.abort());
    done
}

async fn carry(peer: &Peer, from: &Spec, json: bool) -> Result<()> {
    match from {
        Spec::Stdio => {
            let moved = stdio(&peer.open(Over::Tcp, NetConf::default())?).await;
            closed(json, moved.as_ref().copied().unwrap_or_default());
            moved.map(drop)
        }
        from if from.listens() => serve(peer, from, json).await,
        from => {
            let near = from.open(NetConf::default()).await?;
            let far = peer.open(over(near.is_datagram()), NetConf::default())?;
            join(far, near, from, json).await
        }
    }
}

/// Everybody who comes to `from` gets a pipe to the peer, until the peer is gone.
async fn serve(peer: &Peer, from: &Spec, json: bool) -> Result<()> {
    let server = from.open(NetConf::default()).await?;
    let local = server.local_addr().to_string();
    say(json, format_args!("listening at {local}"), &json!({"event": "listening", "local": local}));
    let serving = async {
        if server.is_datagram() {
            return datagrams(server, peer).await;
        }
        let mut linked = JoinSet::new();
        loop {
            tokio::select! {
                client = server.accept() => {
                    let far = peer.open(Over::Tcp, NetConf::default())?;
                    let (client, from) = (client?, from.clone());
                    linked.spawn(async move { join(far, client, &from, json).await });
                }
                Some(ended) = linked.join_next(), if !linked.is_empty() => {
                    if let Err(error) = ended.context("a link ended badly")? {
                        tell_failure(&error, json);
                    }
                }
            }
        }
    };
    tokio::select! {
        done = serving => done,
        ended = peer.ended() => match ended {
            natpipe::peer::Ended::Closed => Ok(()),
            ended => Err(ended.into()),
        },
    }
}
