//! A RabbitMQ of the test's own, on free ports of the loopback, which ends with the test whatever happens.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Where Debian's package has the program that needs no other user.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
/// How long it may take to come up on a machine that has a lot to do.
const PATIENCE: Duration = Duration::from_secs(120);

/// The shell that holds the broker and its port mapper: when our end of its standard input closes, also because the
/// test has died, it kills them all, and
/// removes what they wrote unless told to keep it.
const HOLDER: &str = r#"
epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 <&- &
{ "$0" >"$OUT" 2>&1 <&-; kill -s KILL -- -$$; } &
read -r keep
[ "$keep" = keep ] || rm -rf "$HOME"
kill -s KILL -- -$$
"#;

/// A broker with the virtual host, user and password `test`.
pub struct Broker {
    pub port: u16,
    pub tls_port: u16,
    epmd: u16,
    dist: u16,
    dir: PathBuf,
    child: Option<Child>,
}

#[allow(dead_code, reason = "the benches use it as well, and each uses a part")]
impl Broker {
    /// One that all tests of a process share.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    pub fn start() -> Self {
        assert!(Path::new(SERVER).exists(), "no {SERVER}: `.ci/test` installs it (rabbitmq-server)");
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("natpipe-rabbitmq-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let [port, tls_port, epmd, dist] = free_ports();
        let mut broker = Self { port, tls_port, epmd, dist, dir, child: None };
        broker.configure();
        broker.run();
        broker
    }

    pub fn url(&self) -> String {
        format!("amqp://test:test@127.0.0.1:{}/test", self.port)
    }

    /// The certificate that its TLS port has signed itself.
    pub fn certificate(&self) -> PathBuf {
        self.dir.join("cert.pem")
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.stdin.take().unwrap().write_all(b"keep\n").unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again with what it has kept on disk.
    pub fn run(&mut self) {
        let log = self.dir.join("log");
        fs::create_dir_all(&log).unwrap();
        let child = Command::new("/bin/sh")
            .args(["-c", HOLDER, SERVER])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", &self.dir)
            .env("OUT", log.join("out"))
            .env("ERL_EPMD_PORT", self.epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", "natpipe@localhost")
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.port.to_string())
            .env("RABBITMQ_DIST_PORT", self.dist.to_string())
            .env("RABBITMQ_MNESIA_BASE", self.dir.join("data"))
            .env("RABBITMQ_LOG_BASE", &log)
            .env("RABBITMQ_CONFIG_FILE", self.dir.join("rabbitmq.conf"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", self.dir.join("plugins"))
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none",
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        self.child = Some(child);
        self.wait();
    }

    fn configure(&self) {
        let (cert, key) = (self.certificate(), self.dir.join("key.pem"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args([
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost,IP:127.0.0.1",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
                "-keyout",
            ])
            .arg(&key)
            .arg("-out")
            .arg(&cert)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let conf = format!(
            "default_vhost = test\ndefault_user = test\ndefault_pass = test\nlisteners.ssl.1 = 127.0.0.1:{}\n\
             ssl_options.certfile = {}\nssl_options.keyfile = {}\nssl_options.verify = verify_none\n",
            self.tls_port,
            cert.display(),
            key.display(),
        );
        fs::write(self.dir.join("rabbitmq.conf"), conf).unwrap();
        fs::write(self.dir.join("plugins"), "[].").unwrap();
    }

    /// Until it speaks AMQP.
    fn wait(&mut self) {
        let begun = Instant::now();
        while !speaks(self.port) {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && begun.elapsed() < PATIENCE, "the broker does not come up:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log/out")).unwrap_or_default()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn speaks(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    stream.write_all(b"AMQP\0\0\x09\x01").is_ok() && stream.read_exact(&mut [0; 7]).is_ok()
}

fn free_ports<const N: usize>() -> [u16; N] {
    let all: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    all.map(|listener| listener.local_addr().unwrap().port())
}
