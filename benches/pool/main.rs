//! Pools beside the bare crate below them, Python's `websockets` and Node's `ws`, in one run.
//!
//! `cargo bench --bench pool [-- echo|flight|publish|idle]`. The peers are those that `.ci/test` installs.

mod bare;
mod echo;
mod idle;
mod peers;
mod publish;
#[path = "../table.rs"]
mod table;

type Bench = (&'static str, fn());

const BENCHES: &[Bench] =
    &[("echo", echo::one_at_a_time), ("flight", echo::in_flight), ("publish", publish::run), ("idle", idle::run)];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if args.first().is_some_and(|arg| arg == "idle-process") {
        return idle::process();
    }
    let number = |at: usize, usual| args.get(at).and_then(|number| number.parse().ok()).unwrap_or(usual);
    let (turns, rounds) = (number(1, 5), number(2, 20));
    match args.first().map(String::as_str) {
        Some("only-bare") => return publish::only(publish::bare_loop, turns, rounds),
        Some("only-pool") => return publish::only(publish::publish, turns, rounds),
        _ => {}
    }
    for (name, bench) in BENCHES {
        if args.is_empty() || args.iter().any(|arg| arg == name) {
            bench();
        }
    }
}

/// A runtime of one thread: each end of a connection has its own, as it has its own process in the field.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs a future on a thread of its own, for as long as the process lives.
fn beside<F: Future>(future: impl FnOnce() -> F + Send + 'static) {
    // A name for profilers.
    let thread = std::thread::Builder::new().name("beside".to_owned());
    thread
        .spawn(move || {
            runtime().block_on(future());
        })
        .unwrap();
}
