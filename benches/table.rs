//! Rounds of several contenders in turn, what came of them, and the bars that the issues set: shared by all benches.
//!
//! `NATPIPE_QUICK=1` runs three rounds at most of everything.

#![allow(dead_code, reason = "each bench uses a part")]

/// What is asked of a figure.
#[derive(Clone, Copy)]
enum Asked {
    AtLeast(f64),
    AtMost(f64),
}
use Asked::{AtLeast, AtMost};

/// One bar: in the table of this title, ours, divided by theirs where there is a name, round by round.
struct Bar {
    /// How the title begins.
    title: &'static str,
    /// How the names begin.
    ours: &'static str,
    theirs: &'static str,
    asked: Asked,
}

const fn bar(title: &'static str, ours: &'static str, theirs: &'static str, asked: Asked) -> Bar {
    Bar { title, ours, theirs, asked }
}

/// All bars of the issues that a bench can measure.
const BARS: &[Bar] = &[
    // Pipes: rates, and bytes of memory.
    bar("TCP ping-pong", "pipe by recv within", "bare tokio", AtLeast(0.9)),
    bar("TCP ping-pong", "pipe by callback", "bare tokio", AtLeast(0.85)),
    bar("UDP ping-pong", "pipe by recv within", "bare tokio", AtLeast(0.9)),
    bar("UDP ping-pong", "pipe by callback", "bare tokio", AtLeast(0.85)),
    bar("One TCP stream", "pipe by recv within", "bare tokio", AtLeast(0.95)),
    bar("A linked TCP relay", "natpipe", "tokio-256k", AtLeast(1.0)),
    bar("A linked TCP relay", "natpipe", "socat", AtLeast(1.0)),
    bar("A linked TCP relay", "natpipe", "haproxy", AtLeast(1.0)),
    bar("CPU of a linked TCP relay", "natpipe", "splice-crate", AtMost(1.0)),
    bar("memory of an idle TCP pipe", "natpipe", "", AtMost(8192.0)),
    // The STUN and the rendezvous server: rates, KiB, rates.
    bar("STUN requests", "natpipe", "coturn", AtLeast(1.0)),
    bar("memory of an idle peer", "natpipe", "", AtMost(20.0)),
    bar("a relayed stream", "natpipe", "bare", AtLeast(0.7)),
    // Peers: rates.
    bar("a stream over UDP", "natpipe, straight", "bare quinn", AtLeast(0.9)),
    bar("a stream over UDP", "natpipe listen", "dumbpipe", AtLeast(1.0)),
    bar("a stream over TCP", "natpipe", "bare tokio-rustls", AtLeast(0.9)),
    bar("a stream over TCP", "natpipe listen", "dumbpipe", AtLeast(4.0)),
    // Pools: times, and bytes.
    bar("a request and an answer of 64 bytes", "a pool", "the bare crate", AtMost(1.2)),
    bar("a request and an answer of 64 bytes", "a pool", "Node's ws", AtMost(1.0)),
    bar("a request and an answer of 64 bytes", "a pool", "Python's websockets", AtMost(1.0)),
    bar("requests and answers of 64 bytes", "a pool", "the bare crate", AtMost(1.0 / 0.9)),
    bar("requests and answers of 64 bytes", "a pool", "Python's websockets", AtMost(1.0 / 3.0)),
    bar("1 KiB to 1,000 members", "a pool's publish", "a bare loop", AtMost(1.0 / 0.9)),
    bar("1 KiB to 1,000 members", "a pool's publish", "Node's ws", AtMost(1.0)),
    bar("memory of an idle member", "natpipe", "", AtMost(16384.0)),
    // Smart sockets: rates, and times of the round trip.
    bar("one way, 64 B (thousands of messages a second)", "natpipe", "libzmq", AtLeast(1.0)),
    bar("one way, 64 B (thousands of messages a second); Python", "natpipe", "python", AtLeast(50.0)),
    bar("one way, 1024 B (thousands", "natpipe", "libzmq", AtLeast(1.0)),
    bar("one way, 65536 B (thousands", "natpipe", "libzmq", AtLeast(1.0)),
    bar("one way, 65536 B (thousands", "natpipe", "bare", AtLeast(0.7)),
    bar("round trip of 64 B", "natpipe", "libzmq", AtMost(1.0)),
    // Ducts: times a message.
    bar("round trip, 64 B", "duct, blocking", "bare socket pair", AtMost(1.1)),
    bar("round trip, 64 B", "duct, blocking", "multiprocessing.Pipe", AtMost(1.0)),
    bar("round trip, 64 B", "duct, blocking", "ipc-channel", AtMost(1.0)),
    bar("round trip, 64 B", "duct, async", "duct, blocking", AtMost(1.3)),
    bar("one way, 64 B", "duct, blocking", "multiprocessing.Pipe", AtMost(1.0 / 10.0)),
    bar("one way, 64 B", "duct, blocking", "ipc-channel", AtMost(1.0 / 2.0)),
    bar("one way, 64 B", "duct, async", "duct, blocking", AtMost(1.3)),
    bar("one way, 64 KiB", "duct, blocking", "multiprocessing.Pipe", AtMost(1.0)),
    bar("one way, 64 KiB", "duct, blocking", "bare socket pair", AtMost(1.0 / 0.9)),
    bar("one way, 64 KiB", "duct, async", "duct, blocking", AtMost(1.3)),
    // Calls: rates.
    bar("pushes, confirmed", "natpipe", "bare lapin", AtLeast(0.9)),
    bar("pushes, confirmed", "natpipe", "pika", AtLeast(1.0)),
    bar("pushes, not confirmed", "natpipe", "bare lapin", AtLeast(0.9)),
    bar("pushes, not confirmed", "natpipe", "pika", AtLeast(1.0)),
    bar("calls,", "natpipe calls bare", "bare lapin", AtLeast(0.9)),
    bar("calls,", "natpipe, both ends", "bare lapin", AtLeast(0.9)),
    bar("calls,", "natpipe, both ends", "pika", AtLeast(1.0)),
];

/// So many rounds, or three where only a quick look is wanted.
pub fn rounds(wanted: usize) -> usize {
    if std::env::var_os("NATPIPE_QUICK").is_some() { wanted.min(3) } else { wanted }
}

/// Prints each bar of this table beside what was measured. `benches/run` reads these lines.
pub fn judge(title: &str, contenders: &[(&str, &[f64])]) {
    let find = |name: &str| contenders.iter().find(|(full, _)| full.starts_with(name)).map(|(_, figures)| *figures);
    for bar in BARS.iter().filter(|bar| is_about(title, bar)) {
        let Some(ours) = find(bar.ours) else { continue };
        let figure = match find(bar.theirs) {
            _ if bar.theirs.is_empty() => median(ours),
            Some(theirs) => median(&ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>()),
            None => continue,
        };
        let (met, asked) = match bar.asked {
            AtLeast(least) => (figure >= least, format!("at least {least:.2}")),
            AtMost(most) => (figure <= most, format!("at most {most:.2}")),
        };
        let of = if bar.theirs.is_empty() { String::new() } else { format!(" / {}", bar.theirs) };
        println!(
            "  bar: {}: {}{of}: {asked}, is {figure:.2}: {}",
            bar.title,
            bar.ours,
            if met { "met" } else { "MISSED" }
        );
    }
}

/// The longest beginning that fits is meant, where one title begins as another does.
fn is_about(title: &str, bar: &Bar) -> bool {
    let longer = |other: &Bar| title.starts_with(other.title) && other.title.len() > bar.title.len();
    title.starts_with(bar.title) && !BARS.iter().any(longer)
}

/// Runs each contender once a round, in turn; prints medians with spread and the ratio to the first.
pub fn compare(title: &str, unit: &str, rounds: usize, contenders: &mut [(&str, &mut dyn FnMut() -> f64)]) {
    let mut results = vec![Vec::new(); contenders.len()];
    for (_, run) in contenders.iter_mut() {
        run();
    }
    let rounds = self::rounds(rounds);
    for _ in 0..rounds {
        for ((_, run), results) in contenders.iter_mut().zip(&mut results) {
            results.push(run());
        }
    }
    println!("\n{title} ({unit}, median of {rounds} interleaved rounds [min – max])");
    for ((name, _), own) in contenders.iter().zip(&results) {
        let ratios: Vec<f64> = own.iter().zip(&results[0]).map(|(a, b)| a / b).collect();
        let (median, min, max) = spread(own);
        println!("  {name:<34} {median:>10.2} [{min:.2} – {max:.2}]   {:.3} of the first", spread(&ratios).0);
    }
    let figures: Vec<(&str, &[f64])> =
        contenders.iter().zip(&results).map(|((name, _), own)| (*name, &own[..])).collect();
    judge(title, &figures);
}

/// Median, smallest and largest.
pub fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[sorted.len() / 2], sorted[0], sorted[sorted.len() - 1])
}

/// The value in the middle.
pub fn median(values: &[f64]) -> f64 {
    spread(values).0
}
