//! `natpipe serve`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use natpipe::rendezvous::{Limits, Server};
use natpipe::{Identity, NetConf, Pipe, Proto, pipe_open};
use serde_json::json;

use crate::args::ServeArgs;
use crate::ends::Signals;
use crate::output::{self, remark, say};

/// The longest request for metrics, and how long it may take.
const REQUEST: usize = 8 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);

pub async fn run(args: ServeArgs, json: bool) -> Result<()> {
    let mut signals = Signals::new()?;
    let identity = match &args.identity {
        Some(file) => Identity::from_file_or_new(file)?,
        None => Identity::generate()?,
    };
    let builder = Server::listen(args.listen, identity).limits(limits(&args));
    let builder = args.listen2.into_iter().fold(builder, |builder, addr| builder.listen2(addr));
    let builder = args.host.into_iter().fold(builder, |builder, host| builder.host(host));
    let server = builder.start().await.with_context(|| format!("can not serve at {}", args.listen))?;
    let server = Arc::new(server);
    let metrics = match args.metrics {
        Some(addr) => Some(metrics(addr, server.clone()).await?),
        None => None,
    };
    tell(&server, metrics.as_ref(), args.identity.is_some(), json)?;
    signals.next().await;
    say(json, "stopping", &json!({"event": "stopping"}));
    if let Some(metrics) = metrics {
        metrics.close().await;
    }
    // Where a request for metrics is still answered the server ends with the process.
    if let Some(server) = Arc::into_inner(server) {
        server.close().await;
    }
    Ok(())
}

fn limits(args: &ServeArgs) -> Limits {
    let mut limits = Limits::default();
    if let Some(most) = args.max_peers {
        limits = limits.peers(most);
    }
    if let Some(most) = args.max_per_address {
        limits = limits.per_address(most);
    }
    if let Some(kilobytes) = args.relay_rate {
        limits = limits.rate(kilobytes.saturating_mul(1000));
    }
    if let Some(megabytes) = args.relay_quota {
        limits = limits.quota(megabytes.saturating_mul(1_000_000));
    }
    if args.no_relay { limits.pairs(0) } else { limits }
}

/// The URL on standard output, for programs and for `--via "$(…)"`; the rest for people.
fn tell(server: &Server, metrics: Option<&Pipe>, kept: bool, json: bool) -> Result<()> {
    let url = server.url().to_string();
    let metrics = metrics.map(|pipe| pipe.local_addr().to_string());
    if json {
        let stun: Vec<String> = server.stun_addrs().iter().map(ToString::to_string).collect();
        let local = server.addr().to_string();
        return output::json(
            &json!({"event": "serving", "url": url, "local": local, "stun": stun, "metrics": metrics}),
        );
    }
    output::line(&url)?;
    remark(format_args!("peers meet at {} (TCP), STUN is answered there (UDP and TCP)", server.addr()));
    if let Some(metrics) = metrics {
        remark(format_args!("counters at http://{metrics}/metrics, health at http://{metrics}/health"));
    }
    if !kept {
        remark("hint: the URL is another one at the next start; --identity FILE keeps it");
    }
    Ok(())
}

/// A small HTTP server: one request for each connection.
async fn metrics(addr: SocketAddr, server: Arc<Server>) -> Result<Pipe> {
    let server = Arc::downgrade(&server);
    let conf = NetConf::default().recv_timeout(PATIENCE);
    let answering = move |client: Pipe| {
        let server = server.clone();
        async move {
            let Ok(request) = request(&client).await else { return };
            let counters = server.upgrade().map(|server| server.counters());
            let answer = match (request.as_str(), counters) {
                ("GET /metrics", Some(counters)) => http("200 OK", &counters.prometheus()),
                ("GET /health", Some(_)) => http("200 OK", "ok\n"),
                ("GET /metrics" | "GET /health", None) => http("503 Service Unavailable", "stopping\n"),
                _ => http("404 Not Found", "there are /metrics and /health\n"),
            };
            if client.send(answer).await.is_ok() {
                let _ = client.finish().await;
                // Until the other end has read it.
                let _ = tokio::time::timeout(PATIENCE, client.ended()).await;
            }
            client.close().await;
        }
    };
    let opening = pipe_open(Proto::Tcp).bind(addr).conf(conf).up_cb(answering);
    opening.await.with_context(|| format!("can not answer for metrics at {addr}"))
}

/// The method and the path, when all of the request's head has come.
async fn request(client: &Pipe) -> Result<String> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        anyhow::ensure!(head.len() < REQUEST, "a request for metrics is too long");
        head.extend_from_slice(&client.recv().await?);
    }
    let line = String::from_utf8_lossy(&head);
    let mut words = line.split_whitespace();
    Ok([words.next().unwrap_or_default(), words.next().unwrap_or_default()].join(" "))
}

fn http(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}
