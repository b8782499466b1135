//! A pool within another HTTP server: hyper, and so axum, whose server it is.

use std::convert::Infallible;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use natpipe::pool::{Origins, Pool};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::{echo, in_time};

async fn serve(pool: Pool, mut request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    if request.uri().path() != "/app/pool" {
        return Ok(Response::new("hello from the server around it".to_owned()));
    }
    Ok(match pool.upgrade(&request, Origins::same()) {
        Ok(upgrade) => {
            let response = upgrade.response().map(|()| String::new());
            let upgraded = hyper::upgrade::on(&mut request);
            tokio::spawn(async move { upgrade.serve(TokioIo::new(upgraded.await.unwrap())).await.unwrap() });
            response
        }
        Err(refusal) => {
            let mut response = Response::new(refusal.reason);
            *response.status_mut() = refusal.status;
            response
        }
    })
}

#[tokio::test]
async fn a_pool_is_mounted_into_a_hyper_server() {
    let worker = echo("worker");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let pool = worker.clone();
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let pool = pool.clone();
            let service = service_fn(move |request| serve(pool.clone(), request));
            let http = hyper::server::conn::http1::Builder::new();
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
        }
    });
    let req = echo("req");
    in_time(req.client(format!("ws://{addr}/app/pool")).into_future()).await.unwrap();
    assert_eq!(req.rand("hi").await.unwrap().get::<String>().unwrap(), "hi");
    in_time(worker.joined(1)).await;
    assert_eq!(worker.rand("ho").await.unwrap().get::<String>().unwrap(), "ho");
    assert_eq!(worker.members()[0].path(), "/app/pool");

    for (path, extra, status) in [
        ("/", "", StatusCode::OK),
        ("/app/pool", "", StatusCode::UPGRADE_REQUIRED),
        ("/app/pool", "Origin: http://evil.example\r\n", StatusCode::FORBIDDEN),
    ] {
        let mut asking = TcpStream::connect(addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{extra}Connection: close\r\n\r\n");
        asking.write_all(request.as_bytes()).await.unwrap();
        let mut said = String::new();
        asking.read_to_string(&mut said).await.unwrap();
        assert!(said.starts_with(&format!("HTTP/1.1 {}", status.as_u16())), "{path}: {said}");
    }
    server.abort();
}
