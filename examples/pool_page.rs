//! A web server whose page is a member of a pool: the page asks the server, and the server asks the page.
//! `pool_page ADDRESS:PORT`, then open it in a browser.

use std::convert::Infallible;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use natpipe::pool::{Context, Event, Origins, Pool, Value};

const MODULE: &str = include_str!("../interop/browser/natpipe-pool.js");
const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>A page in a pool</title><pre id="log"></pre>
<script type="module">
  import { join } from "./natpipe-pool.js";
  const pool = await join(`ws://${location.host}/pool`, async (msg) => `the page has heard: ${msg}`, { meta: { role: "page" } });
  document.getElementById("log").textContent = await pool.ask("hello from the page");
</script>"#;

async fn serve(pool: Pool, mut request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let (kind, body) = match request.uri().path() {
        "/pool" => return Ok(joins(&pool, &mut request)),
        "/natpipe-pool.js" => ("text/javascript", MODULE),
        _ => ("text/html", PAGE),
    };
    Ok(Response::builder().header("content-type", kind).body(body.to_owned()).unwrap_or_default())
}

/// A page of this server's own becomes a member; other sites' pages are refused.
fn joins(pool: &Pool, request: &mut Request<Incoming>) -> Response<String> {
    match pool.upgrade(request, Origins::same()) {
        Ok(upgrade) => {
            let response = upgrade.response().map(|()| String::new());
            let upgraded = hyper::upgrade::on(request);
            tokio::spawn(async move {
                if let Ok(io) = upgraded.await {
                    drop(upgrade.serve(TokioIo::new(io)).await);
                }
            });
            response
        }
        Err(refusal) => {
            let mut response = Response::new(refusal.reason);
            *response.status_mut() = refusal.status;
            response
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::create("site", |_ctx: Context, msg: Value| async move {
        println!("the page says: {}", msg.as_str().unwrap_or("?"));
        msg
    });
    let listener =
        tokio::net::TcpListener::bind(std::env::args().nth(1).ok_or("usage: pool_page ADDRESS:PORT")?).await?;
    println!("http://{}/", listener.local_addr()?);

    let mut events = pool.events();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            let Event::Joined(member) = event else { continue };
            match member.ask("who is there?").await {
                Ok(answer) => println!("{}", answer.get::<String>().unwrap_or_default()),
                Err(error) => eprintln!("{error}"),
            }
        }
    });
    loop {
        let (stream, _) = listener.accept().await?;
        let pool = pool.clone();
        let service = service_fn(move |request| serve(pool.clone(), request));
        let http = hyper::server::conn::http1::Builder::new();
        tokio::spawn(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
    }
}
