//! `natpipe lab --simulate`: every pair of the 35 NATs of seed 002's system, and the theory beside what came of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use natpipe::Family;
use natpipe::nat::model::Access;
use natpipe::nat::model::kinds::{self, Named};
use natpipe::nat::pairs::{Method, Works, ways};
use natpipe::nat::{Entry, Filtering, Finding, Ports, Proto, Report};
use serde_json::json;

use crate::output;
use crate::progress;
use crate::simulate::attempt;

/// What became of one pair.
struct Cell {
    open: u32,
    /// Sorted.
    took: Vec<Duration>,
    packets: u64,
    theory: Theory,
}

/// What `nat::pairs` says of it.
#[derive(Clone, Copy)]
struct Theory {
    /// The cheapest way over UDP that is affordable, if there is one.
    method: Option<Method>,
}

impl Theory {
    fn of(a: &Named, b: &Named) -> Self {
        let [a, b] = [(a, 1), (b, 2)].map(|(named, at)| Report { entries: vec![entry(named, at)] });
        let all = ways(&a, &b);
        let udp = all.iter().filter(|way| {
            way.works == Works::Yes
                && matches!(
                    way.method,
                    Method::Direct
                        | Method::UdpPunch
                        | Method::UdpPrediction
                        | Method::UdpBirthday
                        | Method::UdpBirthdayBlock
                )
        });
        Self { method: udp.map(|way| way.method).min() }
    }

    fn letter(self) -> char {
        match self.method {
            Some(Method::Direct | Method::UdpPunch) => '.',
            Some(Method::UdpPrediction) => 'P',
            Some(Method::UdpBirthday) => 'B',
            Some(_) => '2',
            None => '-',
        }
    }
}

/// A NAT as a report that knows everything would describe it.
fn entry(named: &Named, at: u8) -> Entry {
    let rules = &named.rules;
    let filtering = if rules.access == Access::Open { Filtering::EndpointIndependent } else { rules.filtering };
    Entry {
        asked: 2,
        answered: if rules.blocks_udp { 0 } else { 2 },
        external: Some([203, 0, 113, at].into()),
        translated: Finding::Known(rules.access == Access::Nat),
        mapping: Finding::Known(rules.mapping),
        filtering: Finding::Known(filtering),
        delta: Finding::Known(rules.delta),
        ports: Some(Ports::UNPRIVILEGED),
        samples: 24,
        ..Entry::untested("eth0", Family::V4, Proto::Udp)
    }
}

pub fn run(seeds: u32, json: bool) -> Result<()> {
    let all = kinds::all();
    let pairs: Vec<(usize, usize)> =
        (0..all.len()).flat_map(|row| (0..all.len()).map(move |column| (row, column))).collect();
    let spinner = progress::spinner(json);
    let cells = simulated(&all, &pairs, seeds, |done| spinner.set_message(format!("{done} of {} pairs", pairs.len())));
    spinner.finish_and_clear();
    for ((row, column), cell) in pairs.iter().zip(&cells).filter(|_| json) {
        output::json(&cell.json(&all[*row], &all[*column], seeds))?;
    }
    if json {
        return Ok(());
    }
    tables(&all, &cells, seeds)
}

/// All pairs, by as many threads as there are processors.
fn simulated(all: &[Named], pairs: &[(usize, usize)], seeds: u32, told: impl Fn(usize) + Sync) -> Vec<Cell> {
    let (next, epoch) = (AtomicUsize::new(0), Instant::now());
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some((row, column)) = pairs.get(at) else { return done };
            told(at);
            done.push((at, cell(&all[*row], &all[*column], at, seeds, epoch)));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut cells: Vec<(usize, Cell)> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().filter_map(|thread| thread.join().ok()).flatten().collect()
    });
    cells.sort_by_key(|(at, _)| *at);
    cells.into_iter().map(|(_, cell)| cell).collect()
}

fn cell(a: &Named, b: &Named, at: usize, seeds: u32, epoch: Instant) -> Cell {
    let mut cell = Cell { open: 0, took: Vec::new(), packets: 0, theory: Theory::of(a, b) };
    for seed in 0..seeds {
        let attempt = attempt([&a.rules, &b.rules], (at as u64) << 32 | u64::from(seed), epoch);
        cell.packets += u64::from(attempt.packets);
        if attempt.open {
            cell.open += 1;
            cell.took.push(attempt.took);
        }
    }
    cell.took.sort();
    cell
}

impl Cell {
    fn percent(&self, seeds: u32) -> u32 {
        (self.open * 100 + seeds / 2) / seeds.max(1)
    }

    fn json(&self, a: &Named, b: &Named, seeds: u32) -> serde_json::Value {
        json!({
            "a": a.name, "b": b.name, "seeds": seeds, "open": self.open,
            "median_ms": self.took.get(self.took.len() / 2).map(|took| took.as_secs_f64() * 1000.0),
            "packets": self.packets / u64::from(seeds.max(1)),
            "theory": self.theory.method.map(|method| method.to_string()),
        })
    }
}

/// Rows and columns that are alike throughout are shown once.
fn tables(all: &[Named], cells: &[Cell], seeds: u32) -> Result<()> {
    let width = all.iter().map(|named| named.name.len()).max().unwrap_or_default();
    let count = all.len();
    for (title, text) in [
        (
            "of 100, as simulated:",
            (|cell: &Cell, seeds| format!("{:>4}", cell.percent(seeds))) as fn(&Cell, u32) -> String,
        ),
        ("in theory:", |cell, _| format!("{:>4}", cell.theory.letter())),
    ] {
        output::line(title)?;
        let numbers: String = (1..=count).map(|number| format!("{number:>4}")).collect();
        output::line(format_args!("{:<width$}    {numbers}", ""))?;
        for (row, named) in all.iter().enumerate() {
            let cells: String = cells[row * count..][..count].iter().map(|cell| text(cell, seeds)).collect();
            output::line(format_args!("{:<width$} {:>2} {cells}", named.name, row + 1))?;
        }
    }
    output::line(". punching, P prediction, B one end guesses, 2 both guess, - would cost too much, or nothing works")?;
    summary(cells, seeds)
}

fn summary(cells: &[Cell], seeds: u32) -> Result<()> {
    for (letter, what) in [
        ('.', "punching"),
        ('P', "prediction"),
        ('B', "one end guesses"),
        ('2', "both guess"),
        ('-', "nothing, in theory"),
    ] {
        let of: Vec<&Cell> = cells.iter().filter(|cell| cell.theory.letter() == letter).collect();
        let (open, tried) = (of.iter().map(|cell| cell.open).sum::<u32>(), of.len() as u32 * seeds);
        let worst = of.iter().map(|cell| cell.percent(seeds)).min();
        let mut took: Vec<Duration> = of.iter().flat_map(|cell| cell.took.iter().copied()).collect();
        took.sort();
        let packets = of.iter().map(|cell| cell.packets).sum::<u64>() / u64::from(tried.max(1));
        output::line(format_args!(
            "{what}: {} pairs, {open} of {tried} attempts open, the worst pair {} of 100, median {} ms, {packets} packets on average",
            of.len(),
            worst.unwrap_or_default(),
            took.get(took.len() / 2).map_or(0, Duration::as_millis),
        ))?;
    }
    Ok(())
}
