//! Through an HTTP proxy: tinyproxy, and ones that refuse.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use natpipe::Identity;
use natpipe::rendezvous::{Client, ConnectError, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{server, soon};

/// A tinyproxy of this test's own.
struct Tinyproxy {
    child: Child,
    conf: std::path::PathBuf,
    addr: SocketAddr,
}

impl Tinyproxy {
    async fn new(more: &str) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = free.local_addr().unwrap();
        drop(free);
        let conf = std::env::temp_dir().join(format!("natpipe-tinyproxy-{}-{}", std::process::id(), addr.port()));
        let mut file = std::fs::File::create(&conf).unwrap();
        writeln!(file, "Port {}\nListen 127.0.0.1\nTimeout 600\nMaxClients 20\nLogLevel Error\n{more}", addr.port())
            .unwrap();
        let child = Command::new("tinyproxy")
            .args(["-d", "-c"])
            .arg(&conf)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("tinyproxy is installed");
        let listens = async {
            while TcpStream::connect(addr).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        soon("the proxy", listens).await;
        Self { child, conf, addr }
    }

    fn url(&self, user: &str) -> Proxy {
        format!("http://{user}{}", self.addr).parse().unwrap()
    }
}

impl Drop for Tinyproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.conf);
    }
}

#[tokio::test]
async fn peers_meet_through_tinyproxy_with_its_password() {
    let server = server().await;
    let proxy = Tinyproxy::new("BasicAuth ann swordfish").await;
    let (ann, bob) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let through = |identity: &Identity, user: &str| {
        let builder = Client::builder(&server.url(), identity).proxy(proxy.url(user));
        async { soon("the registration", builder.connect()).await }
    };
    let at_ann = through(&ann, "ann:swordfish@").await.unwrap();
    let at_bob = through(&bob, "ann:swordfish@").await.unwrap();
    let to_bob = at_ann.signal(bob.peer_id()).unwrap();
    to_bob.send("through two proxies").await.unwrap();
    let from_ann = soon("the conversation", at_bob.accept()).await.unwrap();
    assert_eq!(soon("the message", from_ann.recv()).await.unwrap(), "through two proxies");
    for user in ["", "ann:wrong@"] {
        let refused = through(&ann, user).await;
        assert!(matches!(&refused, Err(ConnectError::Proxy { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn a_proxy_that_does_not_lead_there_is_named_with_its_answer() {
    let server = server().await;
    for (answer, said) in [
        (&b"HTTP/1.1 403 Forbidden\r\n\r\n"[..], "status 403"),
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n", "a user and a password"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "does not answer in HTTP"),
        (&[b'a'; 10_000], "does not come to the end"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy: Proxy = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let answering = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(answer).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        };
        let me = Identity::generate().unwrap();
        let connecting = Client::builder(&server.url(), &me).proxy(proxy).connect();
        let (refused, ()) = soon("the refusal", async { tokio::join!(connecting, answering) }).await;
        let Err(error @ ConnectError::Proxy { .. }) = refused else { panic!("{refused:?}") };
        assert!(error.to_string().contains(said), "{error}");
    }
}
