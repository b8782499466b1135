//! Through tinyproxy to a broker.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use natpipe::Identity;
use natpipe::pipe::tls::TlsClient;
use natpipe::rendezvous::{MqttClient, Proxy};

use super::mosquitto::{Listener, Mosquitto};
use super::{peer, soon, talk};

/// A tinyproxy of this test's own.
struct Tinyproxy {
    child: Child,
    conf: PathBuf,
    addr: SocketAddr,
}

impl Tinyproxy {
    fn new() -> Self {
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let conf = std::env::temp_dir().join(format!("natpipe-mqttproxy-{}-{}", std::process::id(), addr.port()));
        let said = format!("Port {}\nListen 127.0.0.1\nTimeout 600\nMaxClients 20\nLogLevel Error\n", addr.port());
        std::fs::write(&conf, said + "BasicAuth ann swordfish\n").unwrap();
        let mut command = Command::new("tinyproxy");
        command.args(["-d", "-c"]).arg(&conf).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("tinyproxy is installed");
        let begun = Instant::now();
        while TcpStream::connect(addr).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "tinyproxy does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { child, conf, addr }
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
async fn a_proxy_leads_to_brokers_by_each_carrier() {
    let all = [Listener::Plain, Listener::Tls, Listener::Web, Listener::WebTls];
    let broker = Mosquitto::with(&all, "allow_anonymous true");
    let (bobs, bob) = peer(&[&broker.url()]).await;
    let tinyproxy = Tinyproxy::new();
    let trust = TlsClient::trusting(&broker.certificate()).unwrap();
    let through = |user: &str| format!("http://{user}@{}", tinyproxy.addr).parse::<Proxy>().unwrap();
    for url in [
        format!("mqtt://localhost:{}", broker.port(0)),
        format!("mqtts://localhost:{}", broker.port(1)),
        format!("ws://localhost:{}/mqtt", broker.port(2)),
        format!("wss://localhost:{}/mqtt", broker.port(3)),
    ] {
        let me = Identity::generate().unwrap();
        let builder = || MqttClient::builder(&me).broker(url.parse().unwrap()).tls(trust.clone());
        let client = builder().proxy(through("ann:swordfish")).start().unwrap();
        soon(&url, client.ready()).await.unwrap_or_else(|error| panic!("{url}: {error}"));
        talk(&client, &bob, &bobs).await;
        let refused = builder().proxy(through("ann:herring")).start().unwrap();
        let error = soon(&url, refused.ready()).await.unwrap_err().to_string();
        assert!(error.contains("roxy") && !error.contains("herring"), "{url}: {error}");
    }
}
