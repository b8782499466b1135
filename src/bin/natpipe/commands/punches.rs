//! `natpipe lab --punch`: holes through pairs of NATs, how often, how soon and with how many packets.

use std::time::Duration;

use anyhow::Result;
use natpipe::lab::Host;
use natpipe::nat::Proto as Over;
use natpipe::punch::{Plan, PunchError};
use serde_json::json;

use super::lab::KINDS;
use crate::args::LabArgs;
use crate::holes::Story;
use crate::output;
use crate::progress;
use crate::world::World;

/// What became of one pair.
#[derive(Default)]
struct Cell {
    runs: u32,
    /// From the start, and from the agreed instant, at the end that was later. Sorted.
    total: Vec<Duration>,
    took: Vec<Duration>,
    /// Of both ends together. Sorted.
    attempts: Vec<u32>,
    /// What was done beside ordinary punching.
    plan: Option<Plan>,
    /// Both ends said that it would cost too much.
    hopeless: u32,
    errors: Vec<String>,
}

impl Cell {
    /// A hole through which nothing comes is none.
    fn count(&mut self, ends: Result<[Result<Story, PunchError>; 2]>) {
        self.runs += 1;
        match ends {
            Err(error) => self.errors.push(format!("{error:#}")),
            Ok([Ok(one), Ok(other)]) => {
                self.total.push(one.total.max(other.total));
                self.took.push(one.took.max(other.took));
                self.attempts.push(one.attempts + other.attempts);
                self.plan = Some(one.plan);
            }
            Ok(ends) => {
                let is_hopeless = |end: &Result<Story, PunchError>| matches!(end, Err(PunchError::Closed { plan, .. }) if plan.is_hopeless());
                self.hopeless += u32::from(ends.iter().all(is_hopeless));
                self.errors.extend(ends.into_iter().filter_map(Result::err).map(|error| error.to_string()));
            }
        }
        self.total.sort();
        self.took.sort();
        self.attempts.sort();
    }

    fn opened(&self) -> u32 {
        self.took.len() as u32
    }

    /// What works is worked by: nothing more, one end that guesses, or both.
    fn letter(&self) -> &'static str {
        match &self.plan {
            None if self.hopeless == self.runs => "-",
            None => "!",
            Some(Plan::Meet) => "",
            Some(Plan::Cross { .. }) => "c",
            Some(Plan::Hopeless { .. }) => "?",
            Some(Plan::Either { .. }) => "e",
            Some(_) => "b",
        }
    }

    fn text(&self) -> String {
        let lost = if self.opened() < self.runs && self.hopeless < self.runs {
            format!("{}/{} ", self.opened(), self.runs)
        } else {
            String::new()
        };
        match of(&self.took, 50) {
            Some(took) => format!("{lost}{}{}", took.as_millis(), self.letter()),
            None => format!("{lost}{}", self.letter()),
        }
    }

    fn json(&self, over: Over, a: &str, b: &str) -> serde_json::Value {
        let ms = |times: &[Duration], part| of(times, part).map(|time| (time.as_secs_f64() * 1e4).round() / 10.0);
        json!({
            "proto": over.to_string().to_lowercase(), "a": a, "b": b, "runs": self.runs, "opened": self.opened(),
            "hopeless": self.hopeless,
            "median_ms": ms(&self.took, 50), "p99_ms": ms(&self.took, 99),
            "start_median_ms": ms(&self.total, 50), "start_p99_ms": ms(&self.total, 99),
            "attempts_median": of(&self.attempts, 50), "attempts_most": self.attempts.last(),
            "plan": self.plan.as_ref().map(ToString::to_string), "errors": self.errors.first(),
        })
    }
}

fn of<T: Copy>(sorted: &[T], part: usize) -> Option<T> {
    sorted.get((sorted.len() * part / 100).min(sorted.len().checked_sub(1)?)).copied()
}

pub fn pair(args: &LabArgs, over: Over, json: bool) -> Result<()> {
    let world = World::new(Duration::from_millis(args.delay), args.loss / 100.0)?;
    let (a, b) = (world.behind(args.a)?, world.behind(args.b)?);
    let mut cell = Cell::default();
    let spinner = progress::spinner(json);
    for run in 0..args.runs {
        spinner.set_message(format!("{} of {}", run + 1, args.runs));
        cell.count(world.punch(over, [&a, &b], args.all_out));
    }
    spinner.finish_and_clear();
    if json {
        output::json(&cell.json(over, &args.a.to_string(), &args.b.to_string()))?;
    } else {
        tell(&cell, args, over)?;
    }
    anyhow::ensure!(cell.opened() > 0, "no hole: {}", cell.errors.first().map_or("", String::as_str));
    Ok(())
}

fn tell(cell: &Cell, args: &LabArgs, over: Over) -> Result<()> {
    for error in &cell.errors {
        output::line(error)?;
    }
    let ms = |time: Option<Duration>| time.unwrap_or_default().as_millis();
    // Of the straight way; the channel's is twice as long.
    let trips = match (of(&cell.total, 50), args.delay) {
        (Some(total), delay @ 1..) => format!(", {:.1} round trips", total.as_secs_f64() * 500.0 / delay as f64),
        _ => String::new(),
    };
    output::line(format_args!(
        "{} and {} over {over}: {} of {} opened; from the start {} ms (median{trips}), {} ms (99 of 100); from the \
         agreed instant {} ms and {} ms; {} packets or attempts of both ends (median), at most {}",
        args.a,
        args.b,
        cell.opened(),
        cell.runs,
        ms(of(&cell.total, 50)),
        ms(of(&cell.total, 99)),
        ms(of(&cell.took, 50)),
        ms(of(&cell.took, 99)),
        of(&cell.attempts, 50).unwrap_or_default(),
        cell.attempts.last().copied().unwrap_or_default(),
    ))?;
    cell.plan.as_ref().map_or(Ok(()), output::line)
}

/// Every pair once, each of its runs with the ends the other way round.
pub fn matrix(args: &LabArgs, over: Over, json: bool) -> Result<()> {
    let world = World::new(Duration::from_millis(args.delay), args.loss / 100.0)?;
    let kinds = if args.kinds.is_empty() { KINDS.to_vec() } else { args.kinds.clone() };
    let behind = || kinds.iter().map(|kind| world.behind((*kind).into())).collect::<Result<Vec<Host>>>();
    let (left, right) = (behind()?, behind()?);
    let spinner = progress::spinner(json);
    let width = kinds.iter().map(|kind| kind.to_string().len()).max().unwrap_or_default();
    if !json {
        let numbers: String = (1..=kinds.len()).map(|number| format!("{number:>12}")).collect();
        output::line(format_args!("{over:<width$}    {numbers}"))?;
    }
    for (row, a) in kinds.iter().enumerate() {
        let mut line = format!("{:<width$} {:>2} ", a.to_string(), row + 1) + &" ".repeat(12 * row);
        for (column, b) in kinds.iter().enumerate().skip(row) {
            let mut cell = Cell::default();
            for run in 0..args.runs {
                spinner.set_message(format!("{a} and {b}, {} of {}", run + 1, args.runs));
                let hosts = if run % 2 == 0 { [&left[row], &right[column]] } else { [&right[column], &left[row]] };
                cell.count(world.punch(over, hosts, args.all_out));
            }
            if json {
                output::json(&cell.json(over, &a.to_string(), &b.to_string()))?;
            }
            line += &format!("{:>12}", cell.text());
        }
        if !json {
            spinner.suspend(|| output::line(&line))?;
        }
    }
    spinner.finish_and_clear();
    if json {
        return Ok(());
    }
    output::line(LEGEND)
}

const LEGEND: &str = "milliseconds from the agreed instant (median); b: one end guesses ports, c: both do, e: it was not known \
                      which has to; -: both ends say at \
                      once that guessing would cost too much; n/m: only n of m were opened";
