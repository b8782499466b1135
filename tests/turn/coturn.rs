//! coturn (Debian package coturn), ended with the test.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

static FOLDERS: AtomicU32 = AtomicU32::new(0);

pub struct Coturn {
    child: Child,
    folder: PathBuf,
    pub at: SocketAddr,
    /// Where it speaks TLS.
    pub tls: SocketAddr,
    args: Vec<String>,
}

impl Drop for Coturn {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// How a server is started: in a namespace, or here.
pub type Starts<'a> = &'a dyn Fn(&mut Command) -> std::io::Result<Child>;

impl Coturn {
    /// At this address, with these arguments beside what all have; `start` starts it where it is to be.
    pub fn start(ip: IpAddr, ports: [u16; 2], start: Starts<'_>, more: &[&str]) -> Self {
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("natpipe-coturn-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        certificate(&folder, ip);
        let file = |name: &str| folder.join(name).display().to_string();
        let mut args: Vec<String> =
            ["-n", "--no-dtls", "--no-cli", "--no-rfc5780", "--log-file", "stdout", "--simple-log", "-v"]
                .map(String::from)
                .to_vec();
        args.extend(["--pidfile".into(), file("pid"), "--userdb".into(), file("turndb")]);
        args.extend(["--cert".into(), file("cert.pem"), "--pkey".into(), file("key.pem")]);
        args.extend(["-L".into(), ip.to_string(), "-E".into(), ip.to_string(), "-r".into(), "example.org".into()]);
        args.extend(["-p".into(), ports[0].to_string(), "--tls-listening-port".into(), ports[1].to_string()]);
        // Relayed ports of its own, out of the range from which the system gives the listening ones.
        let first = 10_000 + number % 70 * 300;
        args.extend(["--min-port".into(), first.to_string(), "--max-port".into(), (first + 299).to_string()]);
        args.extend(more.iter().map(ToString::to_string));
        let child = launch(&args, &folder, start);
        let [at, tls] = ports.map(|port| SocketAddr::new(ip, port));
        Self { child, folder, at, tls, args }
    }

    /// On loopback, ready to be asked.
    pub fn here(more: &[&str]) -> Self {
        let ports = [free(), free()];
        let more = [&["--allow-loopback-peers", "--cli-password=none"], more].concat();
        let server = Self::start(IpAddr::from([127, 0, 0, 1]), ports, &|command| command.spawn(), &more);
        server.wait();
        server
    }

    /// Until it takes connections and answers datagrams.
    pub fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let probe = UdpSocket::bind((self.at.ip(), 0)).or_else(|_| UdpSocket::bind("0.0.0.0:0")).unwrap();
        probe.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        loop {
            // Refused while nobody listens yet.
            let _ = probe.send_to(b"\x00\x01\x00\x00\x21\x12\xa4\x42natpipe-test", self.at);
            if probe.recv(&mut [0; 512]).is_ok() {
                break;
            }
            assert!(Instant::now() < deadline, "coturn does not answer: {}", self.log());
        }
        for at in [self.at, self.tls] {
            while std::net::TcpStream::connect(at).is_err() {
                assert!(Instant::now() < deadline, "coturn does not listen: {}", self.log());
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    pub fn stop(&mut self) {
        // It may have ended by itself, which the test has said then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// As if nothing had been.
    pub fn restart(&mut self) {
        self.stop();
        self.child = launch(&self.args, &self.folder, &|command| command.spawn());
        self.wait();
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// The certificate that it shows.
    pub fn certificate(&self) -> String {
        fs::read_to_string(self.folder.join("cert.pem")).unwrap()
    }
}

fn launch(args: &[String], folder: &Path, start: Starts<'_>) -> Child {
    let log = fs::File::create(folder.join("log")).unwrap();
    let mut command = Command::new("turnserver");
    command.args(args).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    start(&mut command).expect("turnserver runs (Debian package coturn)")
}

fn certificate(folder: &Path, ip: IpAddr) {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    command.args(["-subj", "/CN=turn", "-addext", &format!("subjectAltName=IP:{ip}")]);
    command.args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"]);
    command.arg(folder.join("key.pem")).arg("-out").arg(folder.join("cert.pem"));
    let made = command.stderr(Stdio::null()).status().expect("openssl runs");
    assert!(made.success());
}

/// A port that is free over both protocols.
fn free() -> u16 {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
