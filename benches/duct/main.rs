//! Ducts between two processes beside a bare Unix socket pair with the same frames, Python's multiprocessing.Pipe and
//! the ipc-channel crate, in one run, in interleaved rounds: `cargo bench --bench duct [-- ROUNDS]`.
//!
//! Parents run on the first core and children on the second: where the scheduler puts them would decide more than they
//! do. Each line is a median with its spread, and the median of the rounds' ratios to the duct (above 1: slower than it).

mod peers;
mod plays;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use plays::Play;
use std::time::Duration;

const ROUNDS: usize = 25;

type Peer = (&'static str, fn(&Play) -> Duration);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if let [role, peer, rest @ ..] = &args[..]
        && role == "child"
    {
        pin(1);
        return child(peer, rest);
    }
    pin(0);
    let rounds = args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(ROUNDS);
    let all: &[Peer] = &[
        ("duct, blocking", peers::duct),
        ("bare socket pair", peers::bare),
        ("duct, async", peers::tasks),
        ("duct, JSON", peers::json),
        ("multiprocessing.Pipe", peers::multiprocessing),
        ("ipc-channel", peers::ipc_channel),
    ];
    compare("round trip, 64 B", Play::new("round-trip", 64, 4_000), all, rounds);
    compare("one way, 64 B", Play::new("one-way", 64, 100_000), all, rounds);
    compare("one way, 64 KiB", Play::new("one-way", 64 << 10, 3_000), all, rounds);
}

/// Best effort: a machine may have one core.
fn pin(core: usize) {
    let mut cores = CpuSet::new();
    if cores.set(core).is_ok() {
        let _ = sched_setaffinity(Pid::from_raw(0), &cores);
    }
}

fn child(peer: &str, rest: &[String]) {
    let play = Play::from_args(rest);
    match peer {
        "duct" => peers::duct_child(&play),
        "tasks" => peers::tasks_child(&play),
        "json" => peers::json_child(&play),
        "bare" => peers::bare_child(&play),
        _ => peers::ipc_channel_child(&play, &rest[3]),
    }
}

/// Ratios of the rounds are of what ran side by side; those of the least times are of what ran least disturbed.
fn compare(title: &str, play: Play, all: &[Peer], rounds: usize) {
    let mut times = vec![Vec::new(); all.len()];
    for _ in 0..rounds {
        for ((_, run), times) in all.iter().zip(&mut times) {
            times.push(run(&play).as_secs_f64() / play.count as f64 * 1e6);
        }
    }
    println!(
        "{title} (microseconds a message; median of {rounds} interleaved rounds [min - max]; ratio to the first; of the least)"
    );
    for ((name, _), taken) in all.iter().zip(&times) {
        let mut ratios: Vec<f64> = taken.iter().zip(&times[0]).map(|(theirs, ours)| theirs / ours).collect();
        let ratio = median(&mut ratios);
        let mut sorted = taken.clone();
        let middle = median(&mut sorted);
        let (least, most) = (sorted[0], sorted[sorted.len() - 1]);
        let of_least = least / times[0].iter().copied().fold(f64::INFINITY, f64::min);
        println!("  {name:<22} {middle:>8.3} [{least:.3} - {most:.3}]   {ratio:.2}   {of_least:.2}");
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
