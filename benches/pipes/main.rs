//! Pipes beside bare tokio, socat and haproxy, in one run, in interleaved rounds.
//!
//! `cargo bench --bench pipes [-- NAME…]` with names out of `tcp udp stream relay idle`. Each line
//! is a median with its spread, and the ratio to the peer that the bar names.

mod idle;
mod pingpong;
mod relay;
mod stream;
#[path = "../table.rs"]
mod table;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if let [role, rest @ ..] = &args[..] {
        if role == "relay-process" {
            return relay::process(rest);
        }
        if role == "idle-process" {
            return idle::process(rest);
        }
    }
    let wanted = |name: &str| args.is_empty() || args.iter().any(|arg| arg == name);
    if wanted("tcp") {
        pingpong::tcp();
    }
    if wanted("udp") {
        pingpong::udp();
    }
    if wanted("stream") {
        stream::run();
    }
    if wanted("relay") {
        relay::run();
    }
    if wanted("idle") {
        idle::run();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}
