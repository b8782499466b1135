//! Routers that open ports when they are asked: miniupnpd (Debian package miniupnpd-nftables), and one that is told what to say.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use natpipe::lab::Router;

/// The tables that miniupnpd fills, and what lets its mappings in through the rules that the lab has.
const TABLES: &str = "
table inet upnp {
    chain forward { type filter hook forward priority filter; policy accept; jump open; }
    chain open { }
    chain prerouting { type nat hook prerouting priority -110; policy accept; jump mapped; }
    chain postrouting { type nat hook postrouting priority 90; policy accept; jump back; }
    chain mapped { }
    chain back { }
}
insert rule ip filter forward ct status dnat accept
";

/// The firewall of IPv6, moved to where miniupnpd opens pinholes in it.
const FIREWALL: &str = "
flush chain ip6 filter forward
add rule inet upnp forward iifname wan meta nfproto ipv6 ct state { established, related } accept
add rule inet upnp forward iifname wan meta nfproto ipv6 drop
";

/// Global addresses for gateways, none of which is used by anything else here.
static GLOBAL: AtomicU8 = AtomicU8::new(1);
static FOLDERS: AtomicU32 = AtomicU32::new(0);

/// miniupnpd in a router's namespace. It ends with this value, and its mappings with it.
pub struct Miniupnpd {
    child: Child,
    folder: PathBuf,
    /// The address that its mappings are on; none when it has none.
    pub external: Option<IpAddr>,
}

impl Drop for Miniupnpd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// With a global address for its mappings; `more` are lines of its configuration.
pub fn miniupnpd(router: &Router, more: &str) -> Miniupnpd {
    let external = IpAddr::from([9, 0, 0, GLOBAL.fetch_add(1, Ordering::Relaxed)]);
    router.add_address(external).unwrap();
    start(router, Some(external), more)
}

/// On whatever address its outside has.
pub fn miniupnpd_inside(router: &Router, more: &str) -> Miniupnpd {
    start(router, None, more)
}

fn start(router: &Router, external: Option<IpAddr>, more: &str) -> Miniupnpd {
    router.nft(TABLES).unwrap();
    run(router, external, more)
}

/// Once more, where its tables are already: as after a restart.
pub fn run(router: &Router, external: Option<IpAddr>, more: &str) -> Miniupnpd {
    let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("natpipe-upnp-{}-{number}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let address = external.map(|ip| format!("ext_ip={ip}\n")).unwrap_or_default();
    let conf = format!(
        "ext_ifname=wan\nlistening_ip=lan\n{address}http_port=5000\nsecure_mode=yes\nsystem_uptime=no\n\
         upnp_table_name=upnp\nupnp_nat_table_name=upnp\nupnp_forward_chain=open\nupnp_nat_chain=mapped\n\
         upnp_nat_postrouting_chain=back\nuuid=6e617470-6970-6500-0000-000000000001\n{more}\n\
         allow 1024-65535 0.0.0.0/0 1024-65535\n"
    );
    fs::write(folder.join("conf"), conf).unwrap();
    let log = fs::File::create(folder.join("log")).unwrap();
    let mut command = Command::new("miniupnpd");
    command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
    command.arg("-d").arg("-f").arg(folder.join("conf")).arg("-P").arg(folder.join("pid"));
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let begin = Command::spawn;
    let child = router.run(|| begin(&mut command)).expect("miniupnpd runs (Debian package miniupnpd-nftables)");
    let mut started = Miniupnpd { child, folder, external };
    started.wait();
    started
}

impl Miniupnpd {
    /// Until it says that it listens.
    fn wait(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let log = self.log();
            if log.contains("HTTP listening on port") || log.contains("Listening for NAT-PMP/PCP") {
                return;
            }
            assert_eq!(self.child.try_wait().unwrap(), None, "miniupnpd has ended: {log}");
            assert!(Instant::now() < deadline, "miniupnpd does not listen: {log}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

/// The mappings that a router has, as nftables says.
pub fn mappings(router: &Router) -> String {
    let mut command = Command::new("nft");
    command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
    command.args(["list", "chain", "inet", "upnp", "mapped"]);
    String::from_utf8(router.run(|| command.output()).unwrap().stdout).unwrap()
}

/// A gateway that says what the test wants it to say. It ends with the process.
#[derive(Clone, Default)]
pub struct Liar {
    /// Every datagram that came to its port 5351.
    pub asked: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Liar {
    /// Answers PCP and NAT-PMP by `answer`, which may give several datagrams.
    pub fn pcp(router: &Router, answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        let liar = Self::default();
        let socket = router.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5351))).unwrap();
        let asked = liar.asked.clone();
        thread::spawn(move || {
            let mut buf = [0; 2048];
            while let Ok((len, from)) = socket.recv_from(&mut buf) {
                asked.lock().unwrap().push(buf[..len].to_vec());
                for bytes in answer(&buf[..len]) {
                    socket.send_to(&bytes, from).unwrap();
                }
            }
        });
        liar
    }

    /// Answers UPnP: the search with this location, and each request at its port 5000 with what `answer` makes of it.
    pub fn upnp(router: &Router, location: &str, answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) {
        let gateway = gateway_of(router);
        let found = format!(
            "HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nEXT:\r\nLOCATION: {}\r\n\
             CACHE-CONTROL: max-age=120\r\nUSN: uuid:1\r\n\r\n",
            location.replace("GATEWAY", &gateway.to_string())
        );
        let (search, http) = router.run(|| {
            let search = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 1900)).unwrap();
            (search, TcpListener::bind((Ipv4Addr::UNSPECIFIED, 5000)).unwrap())
        });
        thread::spawn(move || {
            let mut buf = [0; 2048];
            while let Ok((_, from)) = search.recv_from(&mut buf) {
                // Whoever asks may be gone.
                let _ = search.send_to(found.as_bytes(), from);
            }
        });
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for stream in http.incoming().flatten() {
                let answer = answer.clone();
                thread::spawn(move || serve(stream, &*answer));
            }
        });
    }
}

fn serve(mut stream: std::net::TcpStream, answer: &dyn Fn(&str) -> Vec<u8>) {
    let (mut request, mut buf) = (Vec::new(), [0; 4096]);
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    while let Ok(len @ 1..) = stream.read(&mut buf) {
        request.extend_from_slice(&buf[..len]);
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
        if body.len() >= length.unwrap_or(0) {
            let answer = answer(&text);
            // It may be more than the other side wants to hear.
            let _ = stream.write_all(&answer);
            return;
        }
    }
}

/// The address of a router in its own network.
pub fn gateway_of(router: &Router) -> Ipv4Addr {
    let mut command = Command::new("ip");
    command.args(["-4", "-oneline", "addr", "show", "dev", "lan"]);
    let output = router.run(|| command.output()).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let network = text.split_whitespace().skip_while(|word| *word != "inet").nth(1).unwrap();
    network.split('/').next().unwrap().parse().unwrap()
}

/// Lets the IPv6 firewall of a router with miniupnpd be opened by it.
pub fn opens_pinholes(router: &Router) {
    router.nft(FIREWALL).unwrap();
}
