//! A peer that is known by its name, and moves.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use natpipe::net::Resolver;
use natpipe::smart::{Endpoint, Reconnect, SmartSocket};
use natpipe::{Family, NetConf};

use crate::{peers, socket, soon, text};

/// A real name server (dnsmasq) whose answers are to be kept for an hour.
struct Names {
    process: Child,
    addr: SocketAddr,
    file: PathBuf,
}

impl Names {
    async fn with(ip: &str) -> Self {
        let addr = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("smart-names-{}", std::process::id()));
        fs::write(&file, format!("{ip} moving.test\n")).unwrap();
        let mut command = Command::new("dnsmasq");
        command.args(["--no-daemon", "--no-resolv", "--no-hosts", "--bind-interfaces", "--pid-file="]);
        command.args(["--conf-file=/dev/null", "--listen-address=127.0.0.1", "--local=/test/", "--local-ttl=3600"]);
        command.arg(format!("--port={}", addr.port())).arg(format!("--addn-hosts={}", file.display()));
        let process = command.stderr(Stdio::null()).spawn().expect("dnsmasq is installed (`.ci/test` does it)");
        let names = Self { process, addr, file };
        names.says(ip).await;
        names
    }

    fn resolver(&self) -> Resolver {
        Resolver::with_servers(&[self.addr]).unwrap()
    }

    /// Waits until the server, asked for the first time, says so.
    async fn says(&self, ip: &str) {
        let expected = [ip.parse::<IpAddr>().unwrap()];
        soon("the name server's answer", async {
            let ask = async || self.resolver().lookup("moving.test", Family::V4, Duration::from_millis(500)).await;
            while !ask().await.is_ok_and(|found| found == expected) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    async fn moves(&self, ip: &str) {
        fs::write(&self.file, format!("{ip} moving.test\n")).unwrap();
        let pid = nix::unistd::Pid::from_raw(self.process.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
        self.says(ip).await;
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.file);
    }
}

#[tokio::test]
async fn each_try_to_connect_again_asks_for_the_address_anew() {
    let names = Names::with("127.0.0.1").await;
    let resolver = names.resolver();
    let old = socket();
    let port = old.bind("127.0.0.1:0").await.unwrap().port().unwrap();
    let client = SmartSocket::builder()
        .reconnect(Reconnect::exponential(Duration::from_millis(20), Duration::from_millis(100)))
        .build()
        .unwrap();
    let at = Endpoint::from(("moving.test", port)).conf(NetConf::default().resolver(resolver.clone()));
    client.connect(at).unwrap();
    client.send("to the old place").await.unwrap();
    assert_eq!(text(&old).await, "to the old place");

    // The peer moves to another address, the same port; who keeps answers as long as they may be kept does not find it.
    names.moves("127.0.0.2").await;
    let limit = Duration::from_secs(2);
    let known = resolver.lookup("moving.test", Family::V4, limit).await.unwrap();
    assert_eq!(known, ["127.0.0.1".parse::<IpAddr>().unwrap()], "the resolver keeps what it knows");
    let new = socket();
    new.bind(("127.0.0.2", port)).await.unwrap();
    old.close().await.unwrap();
    client.send("to the new place").await.unwrap();
    assert_eq!(text(&new).await, "to the new place");
    peers(&client, 1).await;
}
