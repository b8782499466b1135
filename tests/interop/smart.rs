//! Smart sockets: the published Python package of the same protocol, in every role, mode and guarantee;
//! and a page in headless Chromium.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use natpipe::NetConf;
use natpipe::pipe::tls::{Identity as Certificate, TlsClient, TlsServer};
use natpipe::smart::{Builder, Delivery, Endpoint, Identity, SendMode, SmartSocket};

use crate::beside::{chromium, page as served, tempdir};
use crate::{python, script};

const COUNT: usize = 200;

/// The package at work, ended with the test.
struct Agent {
    child: Child,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Agent {
    fn start(port: u16, flags: &[&str]) -> Self {
        let mut command = python();
        command.arg(script("smart/agent.py")).args(["--port", &port.to_string(), "--count", &COUNT.to_string()]);
        Self { child: command.args(flags).stdout(Stdio::piped()).spawn().unwrap() }
    }

    /// The lines that it prints to its end.
    async fn lines(mut self) -> Vec<String> {
        let out = self.child.stdout.take().unwrap();
        let reading = tokio::task::spawn_blocking(move || BufReader::new(out).lines().map(Result::unwrap).collect());
        soon("its lines", reading).await.unwrap()
    }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

/// A port that nobody uses now.
fn free() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Begins as the other end of an agent.
async fn other_end(socket: &SmartSocket, agent_binds: bool, port: u16) {
    if agent_binds {
        socket.connect(("127.0.0.1", port)).unwrap();
    } else {
        socket.bind(("127.0.0.1", port)).await.unwrap();
    }
}

fn numbered() -> Vec<String> {
    (0..COUNT).map(|n| format!("m{n}")).collect()
}

fn role(agent_binds: bool) -> &'static str {
    if agent_binds { "bind" } else { "connect" }
}

const MODES: [(&str, SendMode); 2] = [("publish", SendMode::Publish), ("roundrobin", SendMode::RoundRobin)];
const GUARANTEES: [(&str, Delivery); 2] =
    [("at-most-once", Delivery::AtMostOnce), ("at-least-once", Delivery::AtLeastOnce)];

/// Every message once, and in order where that is promised.
#[track_caller]
fn check(mut got: Vec<String>, delivery: Delivery, case: &str) {
    let mut expected = numbered();
    if delivery == Delivery::AtLeastOnce {
        got.sort();
        got.dedup();
        expected.sort();
    }
    assert_eq!(got, expected, "{case}");
}

#[tokio::test]
async fn what_we_send_arrives_there_in_every_role_mode_and_guarantee() {
    for agent_binds in [true, false] {
        for (_, mode) in MODES {
            for (_, delivery) in GUARANTEES {
                let case = format!("agent binds: {agent_binds}, {mode:?}, {delivery:?}");
                let (port, socket) = (free(), SmartSocket::builder().mode(mode).delivery(delivery).build().unwrap());
                other_end(&socket, agent_binds, port).await;
                let agent = Agent::start(port, &["--role", role(agent_binds), "--behavior", "sink"]);
                for text in numbered() {
                    socket.send(text).await.unwrap();
                }
                check(agent.lines().await, delivery, &case);
                soon("closing", socket.close()).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn what_is_sent_there_arrives_here_in_every_role_mode_and_guarantee() {
    for agent_binds in [true, false] {
        for (mode, _) in MODES {
            for (guarantee, delivery) in GUARANTEES {
                let case = format!("agent binds: {agent_binds}, {mode}, {guarantee}");
                let (port, socket) = (free(), SmartSocket::new().unwrap());
                other_end(&socket, agent_binds, port).await;
                let flags = ["--role", role(agent_binds), "--behavior", "source", "--send-mode", mode];
                let _agent = Agent::start(port, &[&flags[..], &["--delivery", guarantee, "--linger", "5"]].concat());
                let mut got = Vec::new();
                while got.len() < COUNT {
                    let payload = soon("a message", socket.recv()).await.unwrap();
                    got.push(String::from_utf8(payload.to_vec()).unwrap());
                }
                check(arrived(got), delivery, &case);
            }
        }
    }
}

/// The package turns what it sends before it is connected around: the first message comes last.
fn arrived(mut got: Vec<String>) -> Vec<String> {
    if got.last().is_some_and(|last| last == "m0") {
        got.rotate_right(1);
    }
    got
}

#[tokio::test]
async fn an_echo_by_identity_answers_whom_it_heard_at_either_end() {
    for agent_binds in [true, false] {
        for ours in [true, false] {
            let (port, identity) = (free(), Identity::from([0xA1; 16]));
            let socket = SmartSocket::builder().identity([7; 16]).build().unwrap();
            other_end(&socket, agent_binds, port).await;
            let behavior = if ours { "source" } else { "echo" };
            let identity_text = identity.to_string();
            let flags = ["--role", role(agent_binds), "--behavior", behavior, "--identity", &identity_text];
            let agent = Agent::start(port, &[&flags[..], &["--linger", "3"]].concat());
            if ours {
                for _ in 0..COUNT {
                    let message = soon("a message", socket.recv_from()).await.unwrap();
                    assert_eq!(message.from, identity);
                    socket.send_to(message.from, message.data).await.unwrap();
                }
            } else {
                for text in numbered() {
                    socket.send(text).await.unwrap();
                }
                for text in numbered() {
                    let message = soon("the echo", socket.recv_from()).await.unwrap();
                    assert_eq!((message.data, message.from), (text.into(), identity));
                }
                assert_eq!(agent.lines().await, numbered());
            }
        }
    }
}

#[tokio::test]
async fn a_python_end_that_is_bound_is_reached_by_websocket_too() {
    let (port, socket) = (free(), SmartSocket::new().unwrap());
    socket.connect(Endpoint::websocket(&format!("ws://127.0.0.1:{port}/")).unwrap()).unwrap();
    let agent = Agent::start(port, &["--role", "bind", "--behavior", "echo", "--linger", "3"]);
    for text in numbered() {
        socket.send(text).await.unwrap();
    }
    for text in numbered() {
        assert_eq!(soon("the echo", socket.recv()).await.unwrap(), text);
    }
    assert_eq!(agent.lines().await, numbered());
}

fn sure() -> Builder {
    SmartSocket::builder().delivery(Delivery::AtLeastOnce)
}

#[tokio::test]
async fn the_package_acknowledges_what_we_ask_it_to() {
    let (port, socket) = (free(), sure().build().unwrap());
    other_end(&socket, false, port).await;
    let _agent = Agent::start(port, &["--behavior", "sink", "--linger", "5"]);
    for text in numbered() {
        soon("the acknowledgement", socket.send_acknowledged(text, None)).await.unwrap();
    }
    assert_eq!(socket.counters().acknowledged, COUNT as u64);
}

#[tokio::test]
async fn both_verify_each_other_over_tls() {
    let dir = std::env::temp_dir().join(format!("natpipe-smart-tls-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args([PathBuf::from("-keyout"), key.clone(), PathBuf::from("-out"), cert.clone()])
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success());
    let (cert_text, key_text) = (cert.display().to_string(), key.display().to_string());
    let ca = std::fs::read_to_string(&cert).unwrap();
    for agent_binds in [true, false] {
        let (port, socket) = (free(), SmartSocket::new().unwrap());
        if agent_binds {
            let client = TlsClient::trusting(&ca).unwrap().server_name("localhost");
            let conf = NetConf::default().tls_client(client);
            socket.connect(Endpoint::from(("127.0.0.1", port)).conf(conf)).unwrap();
        } else {
            let server = TlsServer::new(Certificate::from_files(&cert, &key).unwrap()).unwrap();
            let conf = NetConf::default().tls_server(server);
            socket.bind(Endpoint::from(("127.0.0.1", port)).conf(conf)).await.unwrap();
        }
        let flags = ["--role", role(agent_binds), "--behavior", "echo", "--tls", "true", "--linger", "3"];
        let files = ["--tls-cert", &cert_text, "--tls-key", &key_text, "--tls-ca", &cert_text];
        let agent = Agent::start(port, &[&flags[..], &files].concat());
        for text in numbered() {
            socket.send(text).await.unwrap();
        }
        for text in numbered() {
            assert_eq!(soon("the echo", socket.recv()).await.unwrap(), text);
        }
        assert_eq!(agent.lines().await, numbered(), "agent binds: {agent_binds}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test]
async fn a_python_end_that_is_killed_and_comes_back_is_found_again() {
    let (port, socket) = (free(), sure().build().unwrap());
    socket.connect(("127.0.0.1", port)).unwrap();
    for _ in 0..3 {
        let agent = Agent::start(port, &["--role", "bind", "--behavior", "sink", "--linger", "30"]);
        soon("the acknowledgement", socket.send_acknowledged("again", None)).await.unwrap();
        drop(agent);
    }
}

/// A socket whose messages are to be acknowledged, bound where a browser connects to by this scheme.
async fn for_a_page(scheme: &str, port: u16, tls: Option<&TlsServer>) -> (SmartSocket, String) {
    let socket = sure().build().unwrap();
    let conf = tls.map_or_else(NetConf::default, |server| NetConf::default().tls_server(server.clone()));
    let addr = socket.bind(Endpoint::from(("127.0.0.1", port)).conf(conf)).await.unwrap();
    (socket, format!("{scheme}://127.0.0.1:{}/", addr.port().unwrap()))
}

/// A page says hello for sure, sends back everything in order, and is back with what it had to say when the other end was away.
async fn a_page_talks(scheme: &str, tls: Option<TlsServer>) {
    let page = Identity::from([0xb0; 16]);
    let (socket, url) = for_a_page(scheme, 0, tls.as_ref()).await;
    let port = url.trim_end_matches('/').rsplit_once(':').unwrap().1.parse().unwrap();
    let dir = tempdir(&format!("smart-{scheme}"));
    let _browser = chromium(&dir, &format!("http://127.0.0.1:{}/smart.html?socket={url}", served()));
    let hello = soon("the page", socket.recv_from()).await.unwrap();
    assert_eq!((hello.from, &hello.data[..]), (page, &b"a page"[..]));
    for text in numbered() {
        // Each is acknowledged by the page; one at a time they come back in order.
        soon("the acknowledgement", socket.send_acknowledged(text.clone(), None)).await.unwrap();
        assert_eq!(soon("the echo", socket.recv()).await.unwrap(), text);
    }
    // More than the browser gives to the page at once.
    let long: Vec<u8> = (0..300_000u32).map(|n| ((n * 7) >> 3) as u8).collect();
    socket.send_to(page, long.clone()).await.unwrap();
    assert!(soon("the long echo", socket.recv()).await.unwrap() == long);
    socket.send_to(page, vec![0xff, 0, 0]).await.unwrap();
    assert_eq!(soon("its word", socket.recv()).await.unwrap(), "acknowledged");
    soon("closing", socket.close()).await.unwrap();
    let (socket, _) = for_a_page(scheme, port, tls.as_ref()).await;
    let back = soon("the page's return", socket.recv_from()).await.unwrap();
    assert_eq!((back.from, &back.data[..]), (page, &b"sent while nobody was there"[..]));
}

#[tokio::test]
async fn a_page_in_a_browser_is_a_peer_over_ws() {
    a_page_talks("ws", None).await;
}

#[tokio::test]
async fn a_page_in_a_browser_is_a_peer_over_wss() {
    let server = TlsServer::new(Certificate::self_signed(&["127.0.0.1"]).unwrap()).unwrap();
    a_page_talks("wss", Some(server)).await;
}
