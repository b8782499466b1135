//! `natpipe stun-server`.

use std::net::{Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use natpipe::stun::Server;
use serde_json::json;

use crate::output::say;

/// Where to listen: `ADDRESS:PORT`, or a port on every address of the machine.
pub fn listen_addr(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok((Ipv6Addr::UNSPECIFIED, port).into());
    }
    text.parse().map_err(|_| format!("`{text}` is no ADDRESS:PORT, nor a port"))
}

pub async fn run(listen: Vec<SocketAddr>, listen2: Vec<SocketAddr>, json: bool) -> Result<()> {
    for second in &listen2 {
        ensure!(
            listen.iter().any(|first| first.is_ipv4() == second.is_ipv4()),
            "--listen2 {second} needs a --listen of its family beside it"
        );
    }
    let mut servers = Vec::new();
    for first in listen {
        let builder = Server::listen(first);
        let second = listen2.iter().find(|second| second.is_ipv4() == first.is_ipv4());
        let builder = second.into_iter().fold(builder, |builder, second| builder.listen2(*second));
        let server = builder.start().with_context(|| format!("can not serve STUN at {first}"))?;
        let all: Vec<String> = server.addrs().iter().map(ToString::to_string).collect();
        let event = json!({"event": "listening", "local": server.addr().to_string(), "addresses": all});
        say(json, format_args!("answering STUN requests at {} (UDP and TCP)", all.join(", ")), &event);
        servers.push(server);
    }
    // Until the signal that ends the command.
    std::future::pending().await
}
