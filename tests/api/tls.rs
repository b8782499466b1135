//! TLS: verified always, both ways where asked, ALPN, and what is refused.

use std::time::Duration;

use natpipe::pipe::OpenFailure;
use natpipe::pipe::tls::{Identity, TlsClient, TlsError, TlsServer};
use natpipe::{NetConf, Pipe, Proto, pipe_open};

use crate::{Folder, soon};

fn server_conf(identity: &Identity) -> NetConf {
    NetConf::default().tls_server(TlsServer::new(identity.clone()).unwrap())
}

fn client_conf(identity: &Identity) -> NetConf {
    NetConf::default().tls_client(TlsClient::trusting(&identity.root_pem()).unwrap())
}

/// Both ends of a TLS connection: the server's, the client's.
pub async fn ends() -> (Pipe, Pipe) {
    let identity = Identity::self_signed(&["localhost", "127.0.0.1"]).unwrap();
    let server = pipe_open(Proto::Tcp).bind("127.0.0.1:0").conf(server_conf(&identity)).await.unwrap();
    let client = pipe_open(Proto::Tcp).dest(server.local_addr()).conf(client_conf(&identity)).await.unwrap();
    let accepted = soon("accept", server.accept()).await.unwrap();
    server.stop_listening().await;
    (accepted, client)
}

#[tokio::test]
async fn bytes_go_both_ways_and_half_close_is_carried() {
    let (accepted, client) = ends().await;
    client.send("question").await.unwrap();
    client.finish().await.unwrap();
    assert_eq!(accepted.recv().await.unwrap(), "question");
    assert!(accepted.recv().await.is_err());
    accepted.send("answer").await.unwrap();
    assert_eq!(client.recv().await.unwrap(), "answer");
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let identity = Identity::self_signed(&["127.0.0.1"]).unwrap();
    let server = pipe_open(Proto::Tcp).bind("127.0.0.1:0").conf(server_conf(&identity)).await.unwrap();
    let other = Identity::self_signed(&["127.0.0.1"]).unwrap();
    let error = pipe_open(Proto::Tcp).dest(server.local_addr()).conf(client_conf(&other)).await.unwrap_err();
    assert!(matches!(error.kind(), OpenFailure::Tls { .. }), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn the_systems_roots_are_the_default_and_do_not_vouch_for_us() {
    let identity = Identity::self_signed(&["127.0.0.1"]).unwrap();
    let server = pipe_open(Proto::Tcp).bind("127.0.0.1:0").conf(server_conf(&identity)).await.unwrap();
    let error = pipe_open(Proto::Tcp).dest(server.local_addr()).conf(NetConf::default().use_ssl(true)).await;
    assert!(matches!(error.unwrap_err().kind(), OpenFailure::Tls { .. }));
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_unless_that_name_is_asked_for() {
    let identity = Identity::self_signed(&["example.org"]).unwrap();
    let server = pipe_open(Proto::Tcp).bind("127.0.0.1:0").conf(server_conf(&identity)).await.unwrap();
    let open = |conf| pipe_open(Proto::Tcp).dest(server.local_addr()).conf(conf).into_future();
    let error = open(client_conf(&identity)).await.unwrap_err();
    assert!(matches!(error.kind(), OpenFailure::Tls { .. }), "{error}");
    let client = TlsClient::trusting(&identity.root_pem()).unwrap().server_name("example.org");
    open(NetConf::default().tls_client(client)).await.unwrap();
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_lets_in_only_who_shows_one() {
    let (own, client) = (Identity::self_signed(&["127.0.0.1"]).unwrap(), Identity::self_signed(&["client"]).unwrap());
    let tls = TlsServer::with_client_roots(own.clone(), &client.root_pem()).unwrap();
    let server = pipe_open(Proto::Tcp).bind("127.0.0.1:0").conf(NetConf::default().tls_server(tls)).await.unwrap();
    let trusting = || TlsClient::trusting(&own.root_pem()).unwrap();

    let stranger = pipe_open(Proto::Tcp).dest(server.local_addr()).conf(NetConf::default().tls_client(trusting()));
    // With TLS 1.3 a client learns of the refusal when it first reads.
    if let Ok(stranger) = stranger.await {
        soon("the stranger is put out", stranger.ended()).await;
    }
    let known = NetConf::default().tls_client(trusting().identity(client));
    let known = pipe_open(Proto::Tcp).dest(server.local_addr()).conf(known).await.unwrap();
    let accepted = soon("accept", server.accept()).await.unwrap();
    known.send("it is me").await.unwrap();
    assert_eq!(accepted.recv().await.unwrap(), "it is me");
}

#[tokio::test]
async fn protocols_without_a_common_one_are_refused() {
    let identity = Identity::self_signed(&["127.0.0.1"]).unwrap();
    let tls = TlsServer::new(identity.clone()).unwrap().alpn(&["natpipe/1", "h2"]);
    let server = pipe_open(Proto::Tcp).bind("127.0.0.1:0").conf(NetConf::default().tls_server(tls)).await.unwrap();
    let open = |alpn: &[&str]| {
        let client = TlsClient::trusting(&identity.root_pem()).unwrap().alpn(alpn);
        pipe_open(Proto::Tcp).dest(server.local_addr()).conf(NetConf::default().tls_client(client)).into_future()
    };
    assert!(open(&["natpipe/1"]).await.is_ok());
    assert!(matches!(open(&["other"]).await.unwrap_err().kind(), OpenFailure::Tls { .. }));
}

#[tokio::test]
async fn a_peer_that_never_shakes_hands_is_given_up_after_ssl_handshake_at_both_ends() {
    let identity = Identity::self_signed(&["127.0.0.1"]).unwrap();
    let limit = Duration::from_millis(100);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let conf = client_conf(&identity).ssl_handshake(limit);
    let error = pipe_open(Proto::Tcp).dest(silent.local_addr().unwrap()).conf(conf).await.unwrap_err();
    assert!(matches!(error.kind(), OpenFailure::TlsTimedOut { .. }), "{error}");

    let conf = server_conf(&identity).ssl_handshake(limit);
    let server = pipe_open(Proto::Tcp).bind("127.0.0.1:0").conf(conf).await.unwrap();
    let mute = pipe_open(Proto::Tcp).dest(server.local_addr()).await.unwrap();
    soon("the server closes the mute client", mute.ended()).await;
    let prompt = pipe_open(Proto::Tcp).dest(server.local_addr()).conf(client_conf(&identity)).await;
    assert!(prompt.is_ok(), "and serves others");
}

#[tokio::test]
async fn plain_text_sent_to_a_tls_server_harms_nobody_else() {
    let identity = Identity::self_signed(&["127.0.0.1"]).unwrap();
    let server = pipe_open(Proto::Tcp).bind("127.0.0.1:0").conf(server_conf(&identity)).await.unwrap();
    let plain = pipe_open(Proto::Tcp).dest(server.local_addr()).await.unwrap();
    plain.send("GET / HTTP/1.0\r\n\r\n").await.unwrap();
    soon("it is put out", plain.ended()).await;
    assert_eq!(server.counters().errors, 1);
    assert!(pipe_open(Proto::Tcp).dest(server.local_addr()).conf(client_conf(&identity)).await.is_ok());
}

#[test]
fn certificates_that_do_not_parse_or_do_not_fit_are_typed_errors() {
    let a = Identity::self_signed(&["a"]).unwrap();
    assert!(matches!(Identity::from_pem(b"no pem", b"no key"), Err(TlsError::Pem { .. })));
    assert!(matches!(TlsClient::trusting("nothing"), Err(TlsError::Pem { .. })));
    assert!(format!("{a:?}").len() < 40, "a key never shows");
    assert!(matches!(Identity::self_signed(&["nötig\u{0}"]), Err(TlsError::Generate { .. })));
}

#[tokio::test]
async fn a_certificate_and_key_in_files_of_the_usual_tool_are_read() {
    let folder = crate::Folder::new();
    let (key, cert) = (folder.path("key.pem"), folder.path("cert.pem"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let identity = Identity::from_files(&cert, &key).unwrap();
    let server = pipe_open(Proto::Tcp).bind("127.0.0.1:0").conf(server_conf(&identity)).await.unwrap();
    let root = std::fs::read_to_string(&cert).unwrap();
    let client = TlsClient::trusting(&root).unwrap().server_name("localhost");
    let conf = NetConf::default().tls_client(client);
    let error = pipe_open(Proto::Tcp).dest(server.local_addr()).conf(conf).await;
    // openssl marks its self-signed certificates as authorities, which may not be servers' own.
    if let Err(error) = error {
        assert!(error.to_string().contains("CaUsedAsEndEntity"), "{error}");
    }
}

#[tokio::test]
async fn a_server_whose_tls_is_switched_off_again_serves_without() {
    let identity = Identity::self_signed(&["127.0.0.1"]).unwrap();
    let conf = server_conf(&identity).use_ssl(false);
    let server = pipe_open(Proto::Tcp).bind("127.0.0.1:0").conf(conf).await.unwrap();
    let client = pipe_open(Proto::Tcp).dest(server.local_addr()).await.unwrap();
    client.send("in the clear").await.unwrap();
    let accepted = soon("accept", server.accept()).await.unwrap();
    assert_eq!(accepted.recv().await.unwrap(), "in the clear");
}

#[tokio::test]
async fn over_a_unix_socket_the_server_is_this_host_however_its_path_is_given() {
    let folder = Folder::new();
    let path = folder.path("socket");
    let identity = Identity::self_signed(&["localhost"]).unwrap();
    let _server = pipe_open(Proto::Unix).bind(path.clone()).conf(server_conf(&identity)).await.unwrap();
    let text = path.to_str().unwrap().to_owned();
    pipe_open(Proto::Unix).dest(text).conf(client_conf(&identity)).await.unwrap();
    pipe_open(Proto::Unix).dest(path).conf(client_conf(&identity)).await.unwrap();
}
