//! Ducts between two processes beside a bare Unix socket pair with the same frames, Python's multiprocessing.Pipe and
//! the ipc-channel crate, in one run, in interleaved rounds: `cargo bench --bench duct [-- ROUNDS [NAME…]]`, a NAME
//! being the beginning of that of a peer or of a play.
//!
//! Parents run on the first core and children on the second: where the scheduler puts them would decide more than they
//! do. Each line is a median with its spread, and the median of the rounds' ratios to the duct (above 1: slower than it);
//! and the same of the CPU time of both processes, which other programs on the machine disturb less.

mod peers;
mod plays;
#[path = "../table.rs"]
mod table;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
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
    let rounds = table::rounds(args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(ROUNDS));
    let all: [Peer; 6] = [
        ("duct, blocking", peers::duct),
        ("bare socket pair", peers::bare),
        ("duct, async", peers::tasks),
        ("duct, JSON", peers::json),
        ("multiprocessing.Pipe", peers::multiprocessing),
        ("ipc-channel", peers::ipc_channel),
    ];
    let plays = [
        ("round trip, 64 B", Play::new("round-trip", 64, 4_000)),
        ("one way, 64 B", Play::new("one-way", 64, 100_000)),
        ("one way, 64 KiB", Play::new("one-way", 64 << 10, 3_000)),
    ];
    let chosen: Vec<Peer> =
        all.iter().copied().filter(|(name, _)| is_wanted(&args, name, &all.map(|peer| peer.0))).collect();
    for (title, play) in plays {
        if is_wanted(&args, title, &plays.map(|play| play.0)) {
            compare(title, play, &chosen, rounds);
        }
    }
}

/// Whether it is named, or none of its kind is.
fn is_wanted(args: &[String], name: &str, kind: &[&str]) -> bool {
    let named = |name: &str| args.iter().any(|arg| name.starts_with(arg.as_str()));
    named(name) || !kind.iter().any(|name| named(name))
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

fn compare(title: &str, play: Play, all: &[Peer], rounds: usize) {
    let mut times = vec![Vec::new(); all.len()];
    let mut costs = vec![Vec::new(); all.len()];
    for _ in 0..rounds {
        for (at, (name, run)) in all.iter().enumerate() {
            let play = if name.starts_with("duct") { play.longer() } else { play };
            let before = cpu();
            let took = run(&play).as_secs_f64();
            let per_message = 1e6 / play.count as f64;
            times[at].push(took * per_message);
            costs[at].push((cpu() - before) * per_message);
        }
    }
    println!("{title} (microseconds a message; {rounds} rounds)");
    for (at, (name, _)) in all.iter().enumerate() {
        println!("  {name:<22} {}   CPU {}", row(&times[at], &times[0]), row(&costs[at], &costs[0]));
    }
    let figures: Vec<(&str, &[f64])> = all.iter().zip(&times).map(|((name, _), times)| (*name, &times[..])).collect();
    table::judge(title, &figures);
}

/// Median [least - most], ratio to the first.
fn row(taken: &[f64], first: &[f64]) -> String {
    let ratios: Vec<f64> = taken.iter().zip(first).map(|(theirs, ours)| theirs / ours).collect();
    let (middle, least, most) = table::spread(taken);
    format!("{middle:>8.3} [{least:.3} - {most:.3}] {:>6.2}", table::median(&ratios))
}

/// Seconds of CPU time of this process and of the children that have ended.
fn cpu() -> f64 {
    let of = |who| {
        let usage = getrusage(who).unwrap();
        [usage.user_time(), usage.system_time()].map(|time| time.num_microseconds() as f64 / 1e6).iter().sum::<f64>()
    };
    of(UsageWho::RUSAGE_SELF) + of(UsageWho::RUSAGE_CHILDREN)
}
