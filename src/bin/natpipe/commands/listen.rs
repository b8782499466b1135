//! `natpipe listen`: a ticket, and whoever uses it.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result};
use natpipe::peer::{Node, Peer};
use natpipe::{NetConf, Pipe, Ticket};
use serde_json::json;
use tokio::task::JoinSet;

use crate::args::ListenArgs;
use crate::output::{remark, say};
use crate::peering::{self, closed, join, stdio, tell_failure, tell_paths};
use crate::spec::Spec;

/// How long the ticket waits for what the router says: it answers in milliseconds or not at all.
const MAPPED: Duration = Duration::from_secs(1);

pub async fn run(args: ListenArgs, json: bool) -> Result<()> {
    if let Some(spec) = &args.to {
        anyhow::ensure!(!spec.listens(), "{spec} waits for others itself: --to wants something to connect to");
    }
    let node = peering::node(&args.peer, true, args.one_time).await?;
    node.mapped(MAPPED).await;
    give_out(&node.ticket()?, &args, json);
    let done = match &args.to {
        None | Some(Spec::Stdio) => one(&node, json).await,
        Some(to) => many(&node, to, args.once, json).await,
    };
    node.close().await;
    done
}

fn give_out(ticket: &Ticket, args: &ListenArgs, json: bool) {
    let (text, peer) = (ticket.to_string(), ticket.peer().to_string());
    let event = json!({"event": "ticket", "ticket": text, "peer": peer, "one_time": args.one_time});
    say(json, format_args!("the ticket, for the other side:\n\n    natpipe connect {text}\n"), &event);
    if args.peer.via.is_empty() && !json {
        if ticket.brokers().is_empty() {
            remark("hint: without --via URL (see `natpipe serve`) it works where this machine can be reached straight");
        } else {
            let brokers: Vec<String> = ticket.brokers().iter().map(ToString::to_string).collect();
            remark(format_args!("meeting at public brokers, which relay nothing: {}", brokers.join(", ")));
            remark("hint: --via URL (see `natpipe serve`) is a place of your own, --no-public-mqtt does without any");
        }
    }
    if args.qr && !json {
        match qrcode::QrCode::new(text.as_bytes()) {
            Ok(code) => remark(code.render::<qrcode::render::unicode::Dense1x2>().build()),
            Err(error) => remark(format_args!("the ticket does not fit into a QR code: {error}")),
        }
    }
}

/// The first pipe gets standard input and output.
async fn one(node: &Node, json: bool) -> Result<()> {
    let (peer, pipe) = node.accept().await?;
    let mut told = JoinSet::new();
    told.spawn(tell_paths(peer.clone(), json));
    let moved = stdio(&pipe).await;
    drop(pipe);
    peer.close().await;
    peering::last_words(told).await;
    closed(json, moved.as_ref().copied().unwrap_or_default());
    moved.map(drop)
}

/// Each pipe gets a connection to the target, until nobody comes any more, which is never; or the first ones, until they have
/// ended.
async fn many(node: &Node, to: &Spec, once: bool, json: bool) -> Result<()> {
    let (mut linked, mut told) = (JoinSet::new(), JoinSet::new());
    let mut known: Vec<Peer> = Vec::new();
    let mut failed = None;
    loop {
        let mut accept = pin!(node.accept());
        let (peer, pipe) = loop {
            tokio::select! {
                accepted = &mut accept => break accepted?,
                Some(ended) = linked.join_next(), if !linked.is_empty() => {
                    match ended.context("a link ended badly")? {
                        Err(error) if once && failed.is_none() => failed = Some(error),
                        Err(error) => tell_failure(&error, json),
                        Ok(()) => {}
                    }
                    if once && linked.is_empty() {
                        return failed.map_or(Ok(()), Err);
                    }
                }
            }
        };
        known.retain(|known| known.path().is_some());
        while told.try_join_next().is_some() {}
        if !known.iter().any(|known| known.id() == peer.id()) {
            say(json, format_args!("peer {}", peer.id()), &json!({"event": "peer", "peer": peer.id().to_string()}));
            told.spawn(tell_paths(peer.clone(), json));
            known.push(peer);
        }
        let to = to.clone();
        linked.spawn(async move { link(pipe, &to, json).await });
    }
}

async fn link(pipe: Pipe, to: &Spec, json: bool) -> Result<()> {
    let target = to.open(NetConf::default()).await?;
    join(pipe, target, to, json).await
}
