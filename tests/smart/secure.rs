//! TLS, and who is let in.

use natpipe::NetConf;
use natpipe::pipe::tls::{Identity as Certificate, TlsClient, TlsServer};
use natpipe::smart::{Cause, Endpoint, Event, SmartSocket};

use crate::{event, peers, socket, soon, text};

fn certificate(name: &str) -> Certificate {
    Certificate::self_signed(&[name]).unwrap()
}

fn tls_server(server: TlsServer) -> Endpoint {
    Endpoint::from("127.0.0.1:0").conf(NetConf::default().tls_server(server))
}

fn tls_client(addr: natpipe::Addr, client: TlsClient) -> Endpoint {
    Endpoint::from(addr).conf(NetConf::default().tls_client(client.server_name("server")))
}

#[tokio::test]
async fn messages_of_every_size_go_through_tls() {
    let server_id = certificate("server");
    let roots = server_id.root_pem();
    let server = socket();
    let addr = server.bind(tls_server(TlsServer::new(server_id).unwrap())).await.unwrap();
    let client = socket();
    client.connect(tls_client(addr.clone(), TlsClient::trusting(&roots).unwrap())).unwrap();
    for len in [0, 1, 64, 17_000, 2_000_000] {
        client.send(vec![3; len]).await.unwrap();
        assert_eq!(soon("the message", server.recv()).await.unwrap(), vec![3; len]);
        server.send(vec![4; len]).await.unwrap();
        assert_eq!(soon("the answer", client.recv()).await.unwrap(), vec![4; len]);
    }
    // Who does not trust the server does not talk to it.
    let stranger = socket();
    let mut events = stranger.events();
    stranger.connect(tls_client(addr, TlsClient::trusting(&certificate("other").root_pem()).unwrap())).unwrap();
    let why = event(&mut events, |event| match event {
        Event::NotReached { why, .. } => Some(why),
        _ => None,
    });
    assert!(why.await.contains("TLS"));
    client.close().await.unwrap();
}

#[tokio::test]
async fn a_peer_is_checked_by_its_certificate_before_it_counts() {
    let (server_id, alice, mallory) = (certificate("server"), certificate("alice"), certificate("mallory"));
    let roots = server_id.root_pem();
    let both = [alice.root_pem(), mallory.root_pem()].concat();
    let der = certificate_der(&alice.root_pem());
    let server =
        SmartSocket::builder().admit(move |candidate| candidate.certificate() == Some(&der[..])).build().unwrap();
    let mut events = server.events();
    let asks = TlsServer::with_client_roots(server_id, &both).unwrap();
    let addr = server.bind(tls_server(asks)).await.unwrap();
    let as_whom = |who: Certificate| {
        let client = socket();
        let tls = TlsClient::trusting(&roots).unwrap().identity(who);
        client.connect(tls_client(addr.clone(), tls)).unwrap();
        client
    };
    let bad = as_whom(mallory);
    let cause = event(&mut events, |event| match event {
        Event::Refused { cause, .. } => Some(cause),
        _ => None,
    });
    assert_eq!(cause.await, Cause::NotAdmitted(bad.identity()));
    bad.close().await.unwrap();
    let good = as_whom(alice);
    good.send("it is me").await.unwrap();
    assert_eq!(text(&server).await, "it is me");
    peers(&server, 1).await;
}

/// The DER in a PEM text of one certificate.
fn certificate_der(pem: &str) -> Vec<u8> {
    use std::io::Write;
    let mut openssl = std::process::Command::new("openssl")
        .args(["x509", "-outform", "DER"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    openssl.stdin.take().unwrap().write_all(pem.as_bytes()).unwrap();
    let output = openssl.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}
