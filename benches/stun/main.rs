//! The STUN server beside coturn, in interleaved rounds: `cargo bench --bench stun`.
//!
//! A round floods one server with requests over loopback, as many in flight as it can take, and divides what it
//! answered by the CPU time that its process used for it: requests per second and core. Then both get a flood of
//! random bytes from random sources, with their memory before and after.

#[path = "../table.rs"]
mod table;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use natpipe::stun::{Limits, Proof, Request, Server, TransactionId};

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(2);
/// Requests in flight: more than either server answers at one wake-up.
const FLYING: usize = 512;
/// Packets of random bytes.
const RUBBISH: usize = 2_000_000;
/// Clock ticks a second, in which Linux counts CPU time.
const TICKS: f64 = 100.0;

fn main() {
    if std::env::args().any(|arg| arg == "server-process") {
        return serve();
    }
    let mut servers = [Running::ours(), Running::coturn()];
    for server in &servers {
        server.wait_until_it_answers();
    }
    let mut rates: [Vec<f64>; 2] = Default::default();
    let mut totals: [Vec<f64>; 2] = Default::default();
    for _ in 0..table::rounds(ROUNDS) {
        for (at, server) in servers.iter().enumerate() {
            let (per_core, a_second) = server.flood();
            rates[at].push(per_core);
            totals[at].push(a_second);
        }
    }
    let ratios: Vec<f64> = rates[0].iter().zip(&rates[1]).map(|(ours, theirs)| ours / theirs).collect();
    println!("STUN requests (thousands a second; median of {ROUNDS} interleaved rounds [min - max])");
    for ((server, rates), totals) in servers.iter().zip(&rates).zip(&totals) {
        println!("  {:<10} {} per core   {} answered", server.name, shown(rates), shown(totals));
    }
    println!("  ratio per core, median of the rounds' ratios: {:.2}", table::median(&ratios));
    table::judge("STUN requests", &[("natpipe", &rates[0]), ("coturn", &rates[1])]);
    for server in &mut servers {
        let before = server.memory();
        rubbish(server.at);
        println!(
            "  {:<10} memory before {RUBBISH} random packets {before} KiB, after {} KiB",
            server.name,
            server.memory()
        );
        assert!(server.child.try_wait().unwrap().is_none(), "{} is still there", server.name);
    }
}

fn serve() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // Both without a limit per source: the flood comes from one.
        let server = Server::listen("127.0.0.1:0".parse().unwrap()).limits(Limits::none()).start().unwrap();
        println!("{}", server.addr());
        std::future::pending::<()>().await;
    });
}

struct Running {
    name: &'static str,
    child: Child,
    at: SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn ours() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.arg("server-process").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { name: "natpipe", child, at: line.trim().parse().unwrap() }
    }

    /// One thread serves its UDP port, as of ours.
    fn coturn() -> Self {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new("turnserver");
        command.args(["-n", "-S", "--no-tls", "--no-dtls", "--no-cli", "--pidfile", "/dev/null", "-L", "127.0.0.1"]);
        command.args(["-p", &free.port().to_string(), "--log-file", "/dev/null", "--simple-log", "--no-stdout-log"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("coturn is installed");
        Self { name: "coturn", child, at: free }
    }

    fn wait_until_it_answers(&self) {
        let socket = client(self.at);
        let begun = Instant::now();
        loop {
            let _ = socket.send(&request(0));
            if socket.recv(&mut [0; 1500]).is_ok() {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{} does not answer", self.name);
        }
    }

    /// Requests per second of its CPU time, and per second, in thousands.
    fn flood(&self) -> (f64, f64) {
        let socket = client(self.at);
        let mut buf = [0; 1500];
        let (mut sent, mut got, mut lost) = (0u64, 0u64, 0u64);
        let cpu = self.cpu();
        let begun = Instant::now();
        while begun.elapsed() < ROUND {
            while sent - got - lost < FLYING as u64 {
                sent += u64::from(socket.send(&request(sent)).is_ok());
            }
            for _ in 0..FLYING / 2 {
                match socket.recv(&mut buf) {
                    Ok(_) => got += 1,
                    // A socket's buffer was full somewhere: what flew is gone.
                    Err(_) => lost = sent - got,
                }
            }
        }
        let (cpu, elapsed) = (self.cpu() - cpu, begun.elapsed().as_secs_f64());
        (got as f64 / cpu / 1000.0, got as f64 / elapsed / 1000.0)
    }

    /// Seconds of CPU time so far.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / TICKS
    }

    /// Resident memory in KiB.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

fn client(at: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(at).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    socket
}

fn request(n: u64) -> Vec<u8> {
    let mut id = [0; 12];
    id[..8].copy_from_slice(&n.to_be_bytes());
    Request::new().encode(TransactionId::modern(id), &Proof::default()).unwrap()
}

/// Random lengths and bytes, half of them with the look of STUN, from addresses all over 127/8.
fn rubbish(at: SocketAddr) {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut socket = None;
    let mut bytes = vec![0; 600];
    for n in 0..RUBBISH {
        if n % 500 == 0 {
            let [a, b, c, ..] = next().to_be_bytes();
            socket = UdpSocket::bind((Ipv4Addr::new(127, a, b, c.clamp(1, 254)), 0)).ok();
        }
        let len = next() as usize % bytes.len();
        bytes[..len].chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&next().to_be_bytes()[..chunk.len()]));
        if n % 2 == 0 && len >= 20 {
            bytes[..2].copy_from_slice(&[0, 1]);
            bytes[2..4].copy_from_slice(&((len - 20) as u16 & 0xFFFC).to_be_bytes());
            bytes[4..8].copy_from_slice(&0x2112_A442_u32.to_be_bytes());
        }
        if let Some(socket) = &socket {
            let _ = socket.send_to(&bytes[..len], at);
        }
    }
}

fn shown(values: &[f64]) -> String {
    let (middle, least, most) = table::spread(values);
    format!("{middle:.0} [{least:.0} - {most:.0}]")
}
