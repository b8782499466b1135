//! `natpipe peers`: who is on this network.

use std::time::Duration;

use anyhow::Result;
use natpipe::peer::{Lan, LanPeer};
use serde_json::json;

use crate::output;

pub async fn run(wait: f64, interfaces: &[String], json: bool) -> Result<()> {
    let lan = Lan::open(interfaces)?;
    tokio::time::sleep(Duration::from_secs_f64(wait)).await;
    let peers = lan.peers().borrow().clone();
    if json {
        let shown: Vec<_> =
            peers.iter().map(|peer| json!({"peer": peer.peer.to_string(), "addresses": peer.addresses})).collect();
        return output::json(&json!({ "peers": shown }));
    }
    if peers.is_empty() {
        output::remark("no peer announces itself on this network; `natpipe listen --lan` does");
    }
    peers.iter().try_for_each(print)
}

fn print(peer: &LanPeer) -> Result<()> {
    let addresses: Vec<String> = peer.addresses.iter().map(ToString::to_string).collect();
    output::line(format_args!("{}  {}", peer.peer, addresses.join(" ")))
}
