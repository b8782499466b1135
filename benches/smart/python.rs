//! The published Python package of the same protocol, two processes of it.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{Rounds, ours};

const MESSAGES: usize = 100_000;

fn script(role: &str, port: u16) -> Command {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = home.join("target/python/bin/python");
    assert!(python.exists(), "no {}: `.ci/test` makes it", python.display());
    let mut command = Command::new(python);
    command.arg(home.join("interop/smart/throughput.py")).args([role, &port.to_string(), &MESSAGES.to_string(), "64"]);
    command
}

fn theirs() -> f64 {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let receiver = script("receive", port).stdout(Stdio::piped()).spawn().unwrap();
    let mut sender = script("send", port).spawn().unwrap();
    let said = receiver.wait_with_output().unwrap();
    sender.kill().unwrap();
    sender.wait().unwrap();
    String::from_utf8(said.stdout).unwrap().trim().parse().unwrap()
}

pub fn beside() {
    let mut rounds = Rounds::new(&["natpipe", "python"]);
    for _ in 0..3 {
        let ours = 2_000_000.0 / ours::one_way(64, 2_000_000).as_secs_f64();
        rounds.note(&[ours / 1000.0, theirs() / 1000.0]);
    }
    rounds.print("one way, 64 B (thousands of messages a second); Python in two processes");
}
