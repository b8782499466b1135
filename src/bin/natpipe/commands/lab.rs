//! `natpipe lab`: two peers behind routers of given kinds, on this machine.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use indicatif::ProgressBar;
use natpipe::lab::{Host, Kind, LabError, Setup};
use natpipe::nat::Proto as Over;
use natpipe::peer::{Event, PathKind, StrategyState};
use serde_json::json;

use super::demo::in_own_thread;
use super::{punches, simulation};
use crate::args::{LabArgs, OverArg};
use crate::output;
use crate::peering::path_event;
use crate::progress;
use crate::world::{Outcome, World};

/// The kinds of a matrix, unless others are named.
pub const KINDS: [Kind; 14] = [
    Kind::Open,
    Kind::Firewall,
    Kind::FullCone,
    Kind::Restricted,
    Kind::Home,
    Kind::NonPreserving,
    Kind::Linux,
    Kind::Rejecting,
    Kind::Double,
    Kind::SymmetricSequential,
    Kind::AddressDependent,
    Kind::PortBlockSymmetric,
    Kind::SymmetricAdf,
    Kind::SymmetricRandom,
];

pub async fn run(args: LabArgs, lab: Result<(), LabError>, json: bool) -> Result<()> {
    if args.list {
        let mut kinds = Kind::ALL.into_iter().chain(Kind::models());
        let print =
            |kind: Kind| if json { output::json(&json!({"kind": kind.to_string()})) } else { output::line(kind) };
        return kinds.try_for_each(print);
    }
    if args.simulate {
        return in_own_thread(move || simulation::run(args.runs, json)).await;
    }
    lab.context("a lab needs network namespaces, which this system does not allow this user")?;
    anyhow::ensure!((0.0..100.0).contains(&args.loss), "--loss is a percentage below 100");
    in_own_thread(move || match (args.punch.map(over), args.matrix) {
        (Some(over), true) => punches::matrix(&args, over, json),
        (Some(over), false) => punches::pair(&args, over, json),
        (None, true) => matrix(&args, json),
        (None, false) => pair(&args, json),
    })
    .await
}

fn over(arg: OverArg) -> Over {
    match arg {
        OverArg::Udp => Over::Udp,
        OverArg::Tcp => Over::Tcp,
    }
}

fn world(args: &LabArgs) -> Result<World> {
    World::new(Duration::from_millis(args.delay), args.loss / 100.0)
}

fn pair(args: &LabArgs, json: bool) -> Result<()> {
    let world = world(args)?;
    let hosts = [world.behind(args.a)?, world.behind(args.b)?];
    let total = args.mib.unwrap_or(8) as usize * (1 << 20);
    for _ in 0..args.runs {
        let spinner = progress::spinner(json);
        spinner.set_message(format!("{} and {}", args.a, args.b));
        let outcome = world.meet([&hosts[0], &hosts[1]], total, |event| story(&event, json));
        spinner.finish_and_clear();
        tell(&args.a, &args.b, &outcome.with_context(|| format!("{} and {} did not meet", args.a, args.b))?, json)?;
    }
    Ok(())
}

/// What each strategy came to.
fn story(event: &Event, json: bool) {
    let Event::Strategy { kind, state } = event else { return };
    let (name, why) = match state {
        StrategyState::Started => return,
        StrategyState::Failed { why } => ("failed", Some(why)),
        StrategyState::Won => ("won", None),
        _ => return,
    };
    let sentence = why.map_or_else(|| format!("  {kind:<9} {name}"), |why| format!("  {kind:<9} {name}: {why}"));
    output::say(json, sentence, &json!({"event": "strategy", "name": kind.to_string(), "state": name, "why": why}));
}

fn ms(took: Duration) -> f64 {
    (took.as_secs_f64() * 1e4).round() / 10.0
}

fn tell(a: &Setup, b: &Setup, outcome: &Outcome, json: bool) -> Result<()> {
    let [there, back] = outcome.rates.map(|rate| (rate / 1e6).round() / 1e3);
    if json {
        return output::json(&json!({
            "a": a.to_string(),
            "b": b.to_string(),
            "first": path_event(&outcome.first),
            "last": path_event(&outcome.last),
            "first_byte_ms": ms(outcome.first_byte),
            "best_path_ms": ms(outcome.found),
            "gbit_there": there,
            "gbit_back": back,
            "checked": true,
        }));
    }
    output::line(format_args!(
        "{a} and {b}: first byte after {} ms over {}, after {} ms {}; {there} Gbit/s there, {back} back, every byte right",
        ms(outcome.first_byte),
        outcome.first.kind,
        ms(outcome.found),
        outcome.last
    ))
}

/// What became of one pair in all its runs.
#[derive(Default)]
struct Cell {
    connected: u32,
    direct: u32,
    kinds: Vec<PathKind>,
    found: Vec<Duration>,
}

/// Every pair, who calls in the row. Rows are shown as soon as those above them are.
fn matrix(args: &LabArgs, json: bool) -> Result<()> {
    let kinds = if args.kinds.is_empty() { KINDS.to_vec() } else { args.kinds.clone() };
    let (spinner, next) = (progress::spinner(json), AtomicUsize::new(0));
    let (tell, made) = mpsc::channel();
    let mut failed = 0;
    if !json {
        heading(&kinds)?;
    }
    std::thread::scope(|scope| {
        for _ in 0..args.jobs {
            let (tell, kinds, next, spinner) = (tell.clone(), &kinds, &next, &spinner);
            scope.spawn(move || work(args, kinds, next, &tell, spinner, json));
        }
        drop(tell);
        let mut rows = BTreeMap::new();
        let mut shown = 0;
        for made in made {
            let (row, cells): (usize, Vec<Cell>) = made?;
            failed += cells.iter().map(|cell| args.runs - cell.connected).sum::<u32>();
            rows.insert(row, cells);
            while let (false, Some(cells)) = (json, rows.remove(&shown)) {
                spinner.suspend(|| line(&kinds, shown, &cells, args.runs))?;
                shown += 1;
            }
        }
        anyhow::Ok(())
    })?;
    spinner.finish_and_clear();
    if !json {
        output::line(LEGEND)?;
    }
    anyhow::ensure!(failed == 0, "{failed} connections of the matrix failed");
    Ok(())
}

/// Makes rows in a world of its own, until there are none left.
fn work(
    args: &LabArgs,
    kinds: &[Kind],
    next: &AtomicUsize,
    tell: &mpsc::Sender<Result<(usize, Vec<Cell>)>>,
    spinner: &ProgressBar,
    json: bool,
) {
    let work = || {
        let world = world(args)?;
        let behind = || kinds.iter().map(|kind| world.behind((*kind).into())).collect::<Result<Vec<Host>>>();
        let (left, right) = (behind()?, behind()?);
        loop {
            let row = next.fetch_add(1, Ordering::Relaxed);
            let Some(a) = kinds.get(row) else { return Ok(()) };
            let mut cells = Vec::new();
            for (b, right) in kinds.iter().zip(&right) {
                let cell = Cell::of(args, &world, [&left[row], right], |run| {
                    spinner.set_message(format!("{a} and {b}, {} of {}", run + 1, args.runs));
                });
                if json {
                    output::json(&cell.json(a, b, args.runs))?;
                }
                cells.push(cell);
            }
            // Nobody hears it when another has failed.
            if tell.send(Ok((row, cells))).is_err() {
                return Ok(());
            }
        }
    };
    if let Err(error) = work() {
        let _ = tell.send(Err(error));
    }
}

impl Cell {
    /// All runs of one pair.
    fn of(args: &LabArgs, world: &World, hosts: [&Host; 2], begins: impl Fn(u32)) -> Self {
        let total = args.mib.unwrap_or(1) as usize * (1 << 20);
        let mut cell = Self::default();
        for run in 0..args.runs {
            begins(run);
            match world.meet(hosts, total, |_| {}) {
                Ok(outcome) => cell.count(&outcome),
                Err(error) => {
                    output::remark(format_args!("{} and {}: {error:#}", hosts[0].name(), hosts[1].name()));
                }
            }
        }
        cell
    }

    fn count(&mut self, outcome: &Outcome) {
        self.connected += 1;
        self.direct += u32::from(outcome.last.kind != PathKind::Relay);
        self.kinds.push(outcome.last.kind);
        self.found.push(outcome.found);
        self.found.sort();
    }

    fn median(&self) -> Option<Duration> {
        self.found.get(self.found.len() / 2).copied()
    }

    fn json(&self, a: &Kind, b: &Kind, runs: u32) -> serde_json::Value {
        let paths: Vec<String> = self.kinds.iter().map(ToString::to_string).collect();
        json!({
            "a": a.to_string(), "b": b.to_string(), "runs": runs, "connected": self.connected, "direct": self.direct,
            "paths": paths, "median_best_path_ms": self.median().map(ms),
        })
    }

    /// The way taken most often, by its letter, and how often it was without a server, where not always.
    fn text(&self, runs: u32) -> String {
        let count = |kind: PathKind| self.kinds.iter().filter(|known| **known == kind).count();
        let most = self.kinds.iter().max_by_key(|kind| count(**kind));
        let letter = match most {
            None => return "-".to_owned(),
            Some(PathKind::Direct) => "D",
            Some(PathKind::Reverse) => "V",
            Some(PathKind::TcpPunch) => "T",
            Some(PathKind::UdpPunch) => "U",
            Some(_) => "R",
        };
        let lost = if self.connected < runs { "!" } else { "" };
        if self.direct == 0 || self.direct == runs {
            format!("{letter}{lost}")
        } else {
            format!("{letter}{lost}{}/{runs}", self.direct)
        }
    }
}

fn width(kinds: &[Kind]) -> usize {
    kinds.iter().map(|kind| kind.to_string().len()).max().unwrap_or_default()
}

fn heading(kinds: &[Kind]) -> Result<()> {
    let numbers: String = (1..=kinds.len()).map(|number| format!("{number:>8}")).collect();
    output::line(format_args!("{:<width$}    {numbers}", "", width = width(kinds)))
}

fn line(kinds: &[Kind], row: usize, cells: &[Cell], runs: u32) -> Result<()> {
    let cells: String = cells.iter().map(|cell| format!("{:>8}", cell.text(runs))).collect();
    output::line(format_args!("{:<width$} {:>2} {cells}", kinds[row].to_string(), row + 1, width = width(kinds)))
}

const LEGEND: &str = "D direct, V reverse, T TCP punch, U UDP punch, R relay; n/m where only n of m were without a server; ! some failed";
