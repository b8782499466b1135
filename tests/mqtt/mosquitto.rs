//! A mosquitto of a test's own.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Runs until it is dropped, at the ports that were free when it was made; it can be killed and come back.
pub(super) struct Mosquitto {
    child: Option<Child>,
    dir: PathBuf,
    ports: Vec<u16>,
}

/// What it listens for.
#[derive(Clone, Copy)]
pub(super) enum Listener {
    Plain,
    Web,
    /// With the certificate of this folder.
    Tls,
    WebTls,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Mosquitto {
    pub(super) fn new() -> Self {
        Self::with(&[Listener::Plain], "allow_anonymous true")
    }

    pub(super) fn with(listeners: &[Listener], more: &str) -> Self {
        let ports: Vec<u16> = listeners.iter().map(|_| free_port()).collect();
        let dir = std::env::temp_dir().join(format!("natpipe-mosquitto-{}-{}", std::process::id(), ports[0]));
        std::fs::create_dir_all(&dir).unwrap();
        let conf = std::fs::File::create(dir.join("conf")).unwrap();
        let shown = dir.display();
        writeln!(&conf, "per_listener_settings false\npersistence false\nlog_dest none\n{more}").unwrap();
        for (listener, port) in listeners.iter().zip(&ports) {
            writeln!(&conf, "listener {port} 127.0.0.1").unwrap();
            if matches!(listener, Listener::Web | Listener::WebTls) {
                writeln!(&conf, "protocol websockets").unwrap();
            }
            if matches!(listener, Listener::Tls | Listener::WebTls) {
                writeln!(&conf, "certfile {shown}/cert.pem\nkeyfile {shown}/key.pem").unwrap();
            }
        }
        // Its own certificate, for localhost.
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let mut broker = Self { child: None, dir, ports };
        broker.start();
        broker
    }

    /// For files that the configuration names.
    pub(super) fn write(name: &str, content: &str) -> PathBuf {
        let file = std::env::temp_dir().join(format!("natpipe-mosquitto-{}-{name}", std::process::id()));
        std::fs::write(&file, content).unwrap();
        file
    }

    pub(super) fn start(&mut self) {
        let program =
            ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"].into_iter().find(|path| PathBuf::from(path).exists());
        let mut command = Command::new(program.unwrap_or("mosquitto"));
        command.arg("-c").arg(self.dir.join("conf"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.child = Some(child.expect("mosquitto is installed"));
        let begun = Instant::now();
        for port in &self.ports {
            while TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], *port))).is_err() {
                assert!(begun.elapsed() < Duration::from_secs(20), "mosquitto does not start");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(super) fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.ports[0])
    }

    pub(super) fn port(&self, listener: usize) -> u16 {
        self.ports[listener]
    }

    pub(super) fn certificate(&self) -> String {
        std::fs::read_to_string(self.dir.join("cert.pem")).unwrap()
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
