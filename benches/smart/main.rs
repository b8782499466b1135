//! Smart sockets beside libzmq, the Python package of the same protocol and bare TCP, in interleaved rounds:
//! `cargo bench --bench smart`. Words on the command line choose parts: `64`, `1024`, `65536`, `trip`, `many`, `python`.
//!
//! One way: one sender, one receiver, TCP over loopback, both in this process; the clock runs from the first message
//! that is received to the last. The bare loop packs the same frames into one buffer and writes that, and only counts
//! bytes at the other end: it is the limit, not a competitor.

mod bare;
mod ours;
mod python;
#[path = "../table.rs"]
mod table;
mod theirs;

use std::time::Duration;

const ROUNDS: usize = 7;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |part: &str| words.is_empty() || words.iter().any(|word| word == part);
    println!("medians of {ROUNDS} interleaved rounds [min - max]; the ratio is the median of the rounds' ratios");
    for (size, messages) in [(64, 2_000_000), (1024, 500_000), (64 << 10, 20_000)] {
        if wanted(&size.to_string()) {
            one_way(size, messages);
        }
    }
    if wanted("trip") {
        round_trip();
    }
    if wanted("many") {
        many();
    }
    if wanted("python") {
        python::beside();
    }
}

fn one_way(size: usize, messages: usize) {
    let mut rates = Rounds::new(&["natpipe", "libzmq", "bare"]);
    let mut costs = Rounds::new(&["natpipe", "libzmq", "bare"]);
    for _ in 0..table::rounds(ROUNDS) {
        let took = [ours::one_way, theirs::one_way, bare::one_way].map(|way| {
            let cpu = cpu();
            (way(size, messages), self::cpu() - cpu)
        });
        rates.note(&took.map(|(took, _)| messages as f64 / took.as_secs_f64() / 1000.0));
        costs.note(&took.map(|(_, cpu)| messages as f64 / cpu / 1000.0));
    }
    rates.print(&format!("one way, {size} B (thousands of messages a second)"));
    costs.print("  the same per second of CPU time, which other programs on the machine disturb less");
}

fn round_trip() {
    const TRIPS: usize = 20_000;
    let each = |took: Duration| took.as_secs_f64() / TRIPS as f64 * 1e6;
    let mut rounds = Rounds::new(&["natpipe", "libzmq", "bare"]);
    for _ in 0..table::rounds(ROUNDS) {
        rounds.note(&[each(ours::round_trip(TRIPS)), each(theirs::round_trip(TRIPS)), each(bare::round_trip(TRIPS))]);
    }
    rounds.print("round trip of 64 B (microseconds; less is better)");
}

fn many() {
    const MESSAGES: usize = 300;
    const SUBSCRIBERS: usize = 1000;
    let rate = |took: Duration| (MESSAGES * SUBSCRIBERS) as f64 / took.as_secs_f64() / 1000.0;
    let mut rounds = Rounds::new(&["natpipe", "libzmq"]);
    for _ in 0..3 {
        rounds.note(&[rate(ours::publish(SUBSCRIBERS, MESSAGES)), rate(theirs::publish(SUBSCRIBERS, MESSAGES))]);
    }
    rounds.print(&format!("published to {SUBSCRIBERS}, 1 KiB (thousands of copies a second)"));
}

/// Seconds of CPU time of this process so far.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    // In clock ticks, of which Linux counts a hundred a second.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// What each contestant reached in each round.
struct Rounds {
    names: Vec<&'static str>,
    figures: Vec<Vec<f64>>,
}

impl Rounds {
    fn new(names: &[&'static str]) -> Self {
        Self { names: names.to_vec(), figures: vec![Vec::new(); names.len()] }
    }

    fn note(&mut self, figures: &[f64]) {
        self.figures.iter_mut().zip(figures).for_each(|(all, figure)| all.push(*figure));
    }

    fn print(&self, title: &str) {
        println!("{title}");
        for (name, figures) in self.names.iter().zip(&self.figures) {
            let ratios: Vec<f64> = self.figures[0].iter().zip(figures).map(|(ours, theirs)| ours / theirs).collect();
            let ((middle, low, high), ratio) = (table::spread(figures), table::median(&ratios));
            println!("  {name:<8} {middle:>9.1} [{low:.1} - {high:.1}]   natpipe/{name} {ratio:.2}");
        }
        let figures: Vec<(&str, &[f64])> =
            self.names.iter().zip(&self.figures).map(|(name, figures)| (*name, &figures[..])).collect();
        table::judge(title, &figures);
    }
}
