//! A relay of one TCP stream, each relay a process of its own, with source and sink in this one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use natpipe::pipe::Relay;
use natpipe::{Pipe, Proto, pipe_open};

use crate::{runtime, table};

const BYTES: usize = 3 << 30;
const WRITE: usize = 1 << 18;

/// What one relay did in one round.
#[derive(Clone, Copy)]
struct Run {
    gbit: f64,
    cpu_per_gib: f64,
}

impl Run {
    fn gbit(&self) -> f64 {
        self.gbit
    }

    fn cpu(&self) -> f64 {
        self.cpu_per_gib
    }
}

pub fn run() {
    let relays: Vec<&str> = vec!["natpipe", "tokio-256k", "tokio-8k", "splice-crate", "socat", "haproxy", "none"];
    let mut runs = vec![Vec::new(); relays.len()];
    for round in 0..=table::rounds(5) {
        for (relay, runs) in relays.iter().zip(&mut runs) {
            let run = measure(relay);
            if round > 0 {
                runs.push(run);
            }
        }
    }
    println!("\nA linked TCP relay (median of 5 interleaved rounds [min – max])");
    for (relay, runs) in relays.iter().zip(&runs) {
        let (gbit, min, max) = table::spread(&runs.iter().map(|r| r.gbit).collect::<Vec<_>>());
        let cpu = table::spread(&runs.iter().map(|r| r.cpu_per_gib).collect::<Vec<_>>()).0;
        println!("  {relay:<16} {gbit:>7.2} Gbit/s [{min:.2} – {max:.2}]   {cpu:>7.3} s of CPU per GiB");
    }
    for (title, figure) in
        [("A linked TCP relay", Run::gbit as fn(&Run) -> f64), ("CPU of a linked TCP relay", Run::cpu)]
    {
        let figures: Vec<Vec<f64>> = runs.iter().map(|runs| runs.iter().map(figure).collect()).collect();
        let named: Vec<(&str, &[f64])> = relays.iter().zip(&figures).map(|(name, own)| (*name, &own[..])).collect();
        table::judge(title, &named);
    }
}

fn measure(relay: &str) -> Run {
    let sink = TcpListener::bind("127.0.0.1:0").unwrap();
    let sink_port = sink.local_addr().unwrap().port();
    let mut process = (relay != "none").then(|| start(relay, sink_port));
    let port = process.as_ref().map_or(sink_port, |(_, port)| *port);
    let reader = std::thread::spawn(move || {
        let (mut stream, _) = sink.accept().unwrap();
        let (mut buf, mut got) = (vec![0; WRITE], 0);
        while got < BYTES {
            match stream.read(&mut buf).unwrap() {
                0 => break,
                n => got += n,
            }
        }
        assert_eq!(got, BYTES, "the relay lost bytes");
        Instant::now()
    });
    let mut source = connect(port);
    let data = vec![7; WRITE];
    let begun = Instant::now();
    for _ in 0..BYTES / WRITE {
        source.write_all(&data).unwrap();
    }
    let elapsed = reader.join().unwrap() - begun;
    drop(source);
    let cpu = process.as_mut().map_or(0.0, |(child, _)| stop(child));
    Run { gbit: BYTES as f64 * 8.0 / elapsed.as_secs_f64() / 1e9, cpu_per_gib: cpu / (BYTES >> 30) as f64 }
}

fn connect(port: u16) -> TcpStream {
    for _ in 0..200 {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => return stream,
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    panic!("the relay does not listen");
}

fn start(relay: &str, sink: u16) -> (Child, u16) {
    match relay {
        "socat" => {
            let port = free_port();
            let listen = format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr");
            let child = Command::new("socat").args(["-b", "262144", &listen, &format!("TCP:127.0.0.1:{sink}")]).spawn();
            let child = child.expect("socat is installed");
            // socat takes one connection only, so it can not be probed.
            std::thread::sleep(Duration::from_millis(200));
            (child, port)
        }
        "haproxy" => {
            let port = free_port();
            let path = std::env::temp_dir().join(format!("natpipe-bench-{}.cfg", std::process::id()));
            let text = format!(
                "global\n nbthread 1\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n \
                 option splice-auto\nlisten relay\n bind 127.0.0.1:{port}\n server sink 127.0.0.1:{sink}\n"
            );
            std::fs::write(&path, text).unwrap();
            let child = Command::new("haproxy").arg("-db").arg("-f").arg(&path).stderr(Stdio::null()).spawn();
            std::thread::sleep(Duration::from_millis(200));
            (child.expect("haproxy is installed"), port)
        }
        own => {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["relay-process", own, &sink.to_string()])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            (child, line.trim().parse().unwrap())
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Ends a relay and tells the seconds of CPU that it took.
fn stop(child: &mut Child) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = fields.get(11..13).map_or(0.0, |t| t.iter().map(|n| n.parse::<f64>().unwrap_or(0.0)).sum());
    let _ = child.kill();
    let _ = child.wait();
    ticks / 100.0
}

/// The relay's own process: takes one connection and relays it to the sink.
pub fn process(args: &[String]) {
    let sink: u16 = args[1].parse().unwrap();
    let kind = args[0].clone();
    runtime().block_on(async move {
        let task = tokio::spawn(async move {
            if kind == "natpipe" {
                return natpipe_relay(sink).await;
            }
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            println!("{}", listener.local_addr().unwrap().port());
            let (mut a, _) = listener.accept().await.unwrap();
            let mut b = tokio::net::TcpStream::connect(("127.0.0.1", sink)).await.unwrap();
            match kind.as_str() {
                "tokio-256k" => drop(tokio::io::copy_bidirectional_with_sizes(&mut a, &mut b, WRITE, WRITE).await),
                "tokio-8k" => drop(tokio::io::copy_bidirectional(&mut a, &mut b).await),
                "splice-crate" => drop(tokio_splice2::copy_bidirectional(&mut a, &mut b).await),
                other => panic!("no relay {other}"),
            }
        });
        task.await.unwrap();
        // The process is measured until it is stopped from outside.
        std::future::pending::<()>().await;
    });
}

async fn natpipe_relay(sink: u16) {
    let listener = pipe_open(Proto::Tcp).bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().port().unwrap());
    let a: Pipe = listener.accept().await.unwrap();
    let b = pipe_open(Proto::Tcp).dest(("127.0.0.1", sink)).await.unwrap();
    Relay::new(a, b).wait().await;
}
