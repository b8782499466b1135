//! Two hosts, the path between them, and processes that run there.

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use natpipe::lab::{Host, Internet};

pub struct World {
    internet: Internet,
    /// Who receives, and who sends.
    pub hosts: [Host; 2],
}

/// A process in one of the hosts, ended with this.
pub struct Running {
    child: Child,
    /// Its first line.
    pub said: String,
    out: BufReader<ChildStdout>,
    host: Option<Host>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl World {
    pub fn new() -> Self {
        let internet = Internet::direct().unwrap();
        let hosts = ["receiver", "sender"].map(|name| internet.host(name).unwrap());
        Self { internet, hosts }
    }

    pub fn address(&self, host: usize) -> IpAddr {
        self.hosts[host].v4().unwrap()
    }

    /// TCP between the two is dropped from now on: what can, goes over UDP.
    pub fn only_udp(&self) {
        for (at, host) in self.hosts.iter().enumerate() {
            let (v4, v6) = (self.address(1 - at), self.hosts[1 - at].v6().unwrap());
            let drops = format!("ip daddr {v4} meta l4proto tcp drop\nip6 daddr {v6} meta l4proto tcp drop");
            let chain = format!("chain out {{\ntype filter hook output priority 0\n{drops}\n}}");
            let rules = format!("table inet only_udp {{\n{chain}\n}}");
            host.nft(&rules).unwrap();
        }
    }

    /// A rendezvous server on a host of its own.
    pub fn rendezvous(&self) -> Running {
        let host = self.internet.host("rendezvous").unwrap();
        let own = host.v4().unwrap().to_string();
        let mut running = start(&host, &["server", &own]);
        running.host = Some(host);
        running
    }

    /// MiB in each second between two processes that play these roles.
    pub fn rate(&self, receiver: &[&str], sender: &[&str], mib: usize) -> f64 {
        let (mib, own) = (mib.to_string(), self.address(0).to_string());
        let mut receiving = start(&self.hosts[0], &[receiver, &[&own, &mib]].concat());
        let said = receiving.said.clone();
        let sending = start(&self.hosts[1], &[sender, &[&said, &mib]].concat());
        let mut rate = String::new();
        receiving.out.read_line(&mut rate).unwrap();
        drop(sending);
        rate.trim().parse().unwrap_or_else(|_| panic!("{receiver:?} said {rate:?}"))
    }
}

/// One of our roles, once it has said its first line.
pub fn start(host: &Host, role: &[&str]) -> Running {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(format!("role={}", role[0])).args(&role[1..]);
    let mut child = host.start(command.stdin(Stdio::piped()).stdout(Stdio::piped())).unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    out.read_line(&mut said).unwrap();
    assert!(!said.is_empty(), "{role:?} said nothing");
    Running { child, said: said.trim().to_owned(), out, host: None }
}
