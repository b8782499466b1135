//! Peers with a broker and TURN servers alone: no server of natpipe's anywhere.

use std::time::Duration;

use natpipe::lab::{Host, Internet, Kind, Link};
use natpipe::peer::{Node, PathKind};
use natpipe::turn::TurnServer;

use super::coturn_server::Coturn;
use super::meeting::mosquitto;
use super::peers::connect_as;
use super::punch::KINDS;

fn coturn(host: &Host) -> Coturn {
    let start = |command: &mut std::process::Command| host.start(command);
    let server = Coturn::start(host.v4().unwrap(), [3478, 5349], &start, &["-a", "-u", "ann:hush"]);
    host.run(|| server.wait());
    server
}

/// Every pair of these kinds so often: each gets a pipe to the right peer that carries every byte once and in order.
fn every_pair(kinds: &[Kind], runs: u32) {
    let mut wrong = Vec::new();
    for (at, a) in kinds.iter().enumerate() {
        let mut row = format!("{a}:");
        for b in &kinds[at..] {
            let internet = Internet::with_link(Link::steady(Duration::from_millis(10)), 1).unwrap();
            let places = ["broker", "first", "second"].map(|name| internet.host(name).unwrap());
            let (_broker, url) = mosquitto(&places[0]);
            // They tell what STUN servers tell as well, and two see what one does not.
            let servers = [coturn(&places[1]), coturn(&places[2])];
            let turn: TurnServer = format!("turn:ann:hush@{}", servers[0].at).parse().unwrap();
            let builder = || {
                Node::builder()
                    .via(url.clone())
                    .stun(servers[0].at)
                    .stun(servers[1].at)
                    .turn(turn.clone())
                    .port_mapping(false)
            };
            let (host, other) = (internet.behind(*a).unwrap(), internet.behind(*b).unwrap());
            let (mut met, mut direct) = (0, 0);
            for _ in 0..runs {
                let [caller, answerer] = connect_as(&builder, [&host, &other], 16);
                met += u32::from(caller.sum == answerer.sum);
                direct += u32::from(caller.last.is_some_and(|path| path.kind != PathKind::Relay));
            }
            row.push_str(&format!(" {b} {direct}/{met};"));
            if met < runs {
                wrong.push(format!("{a} and {b}: {met} of {runs}"));
            }
        }
        println!("{row}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// All fourteen kinds with `NATPIPE_RUNS`; the table is kept in docs/peers.md.
#[test]
fn every_pair_meets_with_a_broker_and_turn_servers_alone() {
    match std::env::var("NATPIPE_RUNS").ok().and_then(|runs| runs.parse().ok()) {
        Some(runs) => every_pair(&KINDS, runs),
        None => every_pair(&[Kind::Home, Kind::Linux, Kind::SymmetricRandom], 1),
    }
}
