//! `natpipe stun-server`.

use std::net::{Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result, bail};
use natpipe::stun::{Server, ServerBuilder};
use serde_json::json;

use crate::output::say;

/// Where to listen: `ADDRESS:PORT`, or a port on every address of the machine.
pub fn listen_addr(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok((Ipv6Addr::UNSPECIFIED, port).into());
    }
    text.parse().map_err(|_| format!("`{text}` is no ADDRESS:PORT, nor a port"))
}

/// Each first address with its second: the next one of its family.
fn paired(first: Vec<SocketAddr>, mut second: Vec<SocketAddr>) -> Result<Vec<(SocketAddr, Option<SocketAddr>)>> {
    let mut pairs = Vec::new();
    for first in first {
        let at = second.iter().position(|second| second.is_ipv4() == first.is_ipv4());
        pairs.push((first, at.map(|at| second.remove(at))));
    }
    match second.first() {
        None => Ok(pairs),
        Some(left) => bail!("--listen2 {left} needs a --listen of its family beside it"),
    }
}

pub async fn run(listen: Vec<SocketAddr>, listen2: Vec<SocketAddr>, json: bool) -> Result<()> {
    let mut servers = Vec::new();
    for (first, second) in paired(listen, listen2)? {
        let builder = second.into_iter().fold(Server::listen(first), ServerBuilder::listen2);
        let server = builder.start().with_context(|| format!("can not serve STUN at {first}"))?;
        let all: Vec<String> = server.addrs().iter().map(ToString::to_string).collect();
        let event = json!({"event": "listening", "local": server.addr().to_string(), "addresses": all});
        say(json, format_args!("answering STUN requests at {} (UDP and TCP)", all.join(", ")), &event);
        servers.push(server);
    }
    // Until the signal that ends the command.
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn second_addresses_belong_to_the_first_ones_of_their_family_in_order() {
        let first = addrs(&["10.0.0.1:1", "[::1]:1", "10.0.0.2:1", "10.0.0.3:1"]);
        let pairs = paired(first.clone(), addrs(&["10.1.0.1:2", "10.1.0.2:2", "[::2]:2"])).unwrap();
        let second = addrs(&["10.1.0.1:2", "[::2]:2", "10.1.0.2:2"]).into_iter().map(Some).chain([None]);
        assert_eq!(pairs, first.into_iter().zip(second).collect::<Vec<_>>());
    }

    #[test]
    fn a_second_address_without_a_first_one_is_refused() {
        for second in [&["[::2]:2"][..], &["10.1.0.1:2", "10.1.0.2:2"]] {
            assert!(paired(addrs(&["10.0.0.1:1"]), addrs(second)).is_err());
        }
    }
}
