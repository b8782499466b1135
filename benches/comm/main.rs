//! Producers, calls and consumers beside a bare lapin loop and pika, on one RabbitMQ: `cargo bench --bench comm [-- ROUNDS PART-OF-A-TITLE =BEGINNING-OF-A-NAME]`.
//!
//! Rounds are interleaved. Each contender pushes the same YAML bodies to the same kind of queue: with confirmations (so many at a
//! time), without, and calls one after the other and many at a time, against the same bare lapin consumer, so that only the caller
//! differs; and once against its own kind.

mod bare;
#[path = "../../tests/comm/broker.rs"]
mod broker;
#[path = "../table.rs"]
mod table;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use natpipe::comm::{AsynchronProducer, Config, EventDrivenConsumer, Request, RpcProducer};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use tokio::runtime::Runtime;

use bare::Dress::{self, AsOurs, Plain};
use broker::Broker;

const ROUNDS: usize = 7;
const CONFIRMED: usize = 20_000;
const UNCONFIRMED: usize = 50_000;
const ALONE: usize = 1500;
const TOGETHER: usize = 15_000;
const SURE: &str = "pushes, confirmed, 64 at a time";
const UNSURE: &str = "pushes, not confirmed";
/// Messages or calls on their way at a time.
const FLYING: usize = 64;

fn main() {
    let broker = Broker::start();
    let runtime = Runtime::new().unwrap();
    let only: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let rounds = table::rounds(only.iter().find_map(|arg| arg.parse().ok()).unwrap_or(ROUNDS));
    let plays: Vec<&String> =
        only.iter().filter(|arg| !arg.starts_with('=') && arg.parse::<usize>().is_err()).collect();
    let wanted = |title: &str| plays.is_empty() || plays.iter().any(|part| title.contains(part.as_str()));
    if wanted(SURE) {
        table::compare(
            SURE,
            "a second",
            rounds,
            &mut [
                ("bare lapin", &mut || runtime.block_on(bare::pushes(&broker, true, CONFIRMED, FLYING))),
                ("natpipe", &mut || runtime.block_on(pushes(&broker, true, CONFIRMED))),
                ("pika (one at a time, as it can)", &mut || pika(&broker, "confirmed", 2000)),
            ],
        );
    }
    if wanted(UNSURE) {
        table::compare(
            UNSURE,
            "a second",
            rounds,
            &mut [
                ("bare lapin", &mut || runtime.block_on(bare::pushes(&broker, false, UNCONFIRMED, 1))),
                ("natpipe", &mut || runtime.block_on(pushes(&broker, false, UNCONFIRMED))),
                ("pika", &mut || pika(&broker, "unconfirmed", 20_000)),
            ],
        );
    }
    for (title, calls, flying) in [("calls, one after the other", ALONE, 1), ("calls, 64 at a time", TOGETHER, FLYING)]
    {
        if !wanted(title) {
            continue;
        }
        let [plain, dressed] = [Plain, AsOurs];
        let mut costs = Costs::new(calls);
        let mut contenders: Vec<Contender> = vec![
            (BARE, Box::new(|| runtime.block_on(bare::calls(&broker, calls, flying, plain)))),
            (BARE_AS_OURS, Box::new(|| runtime.block_on(bare::calls(&broker, calls, flying, dressed)))),
            (CALLER, Box::new(|| runtime.block_on(ours_to_bare(&broker, calls, flying, plain)))),
            (CALLER_AS_OURS, Box::new(|| runtime.block_on(ours_to_bare(&broker, calls, flying, dressed)))),
            (BOTH, Box::new(|| runtime.block_on(ours(&broker, calls, flying)))),
            ("pika, both ends (one by one)", Box::new(|| pika(&broker, "calls", 1000))),
        ];
        // `=NAME` leaves only those whose name begins so.
        let chosen: Vec<&str> = only.iter().filter_map(|name| name.strip_prefix('=')).collect();
        contenders.retain(|(name, _)| chosen.is_empty() || chosen.iter().any(|chosen| name.starts_with(chosen)));
        for round in 0..=rounds {
            for (name, run) in &contenders {
                costs.measure(name, round > 0, run);
            }
        }
        costs.print(title, rounds);
    }
}

/// A name, and a run that gives calls a second.
type Contender<'a> = (&'static str, Box<dyn Fn() -> f64 + 'a>);

const BARE: &str = "bare lapin, both ends";
const BARE_AS_OURS: &str = "bare lapin, with our properties";
const CALLER: &str = "natpipe calls bare lapin";
const CALLER_AS_OURS: &str = "natpipe calls it, our properties";
const BOTH: &str = "natpipe, both ends";

/// What each contender took, round by round: calls a second, and what this process spent on a call: microseconds of CPU
/// time, and how often a thread of it went to sleep.
struct Costs {
    calls: usize,
    taken: Vec<(String, [Vec<f64>; 3])>,
}

impl Costs {
    fn new(calls: usize) -> Self {
        Self { calls, taken: Vec::new() }
    }

    fn measure(&mut self, name: &str, counts: bool, run: impl Fn() -> f64) {
        let before = spent();
        let rate = run();
        let after = spent();
        if !counts {
            return;
        }
        let of = |what: usize| (after[what] - before[what]) / self.calls as f64;
        let at = self.taken.iter().position(|(taken, _)| taken == name).unwrap_or_else(|| {
            self.taken.push((name.to_owned(), Default::default()));
            self.taken.len() - 1
        });
        for (column, value) in self.taken[at].1.iter_mut().zip([rate, of(0), of(1)]) {
            column.push(value);
        }
    }

    fn print(&self, title: &str, rounds: usize) {
        println!("\n{title} (a second, median of {rounds} interleaved rounds [min – max], of the first)");
        let Some((_, [first, ..])) = self.taken.first() else { return };
        for (name, [rates, cpu, sleeps]) in &self.taken {
            let ratios: Vec<f64> = rates.iter().zip(first).map(|(a, b)| a / b).collect();
            let (median, min, max) = table::spread(rates);
            let [ratio, cpu, sleeps] = [&ratios, cpu, sleeps].map(|values| table::median(values));
            println!(
                "  {name:<34} {median:>8.0} [{min:.0} – {max:.0}]  {ratio:.3}   a call: {cpu:.1} us CPU, {sleeps:.2} sleeps"
            );
        }
        let rates: Vec<(&str, &[f64])> = self.taken.iter().map(|(name, [rates, ..])| (&name[..], &rates[..])).collect();
        table::judge(title, &rates);
    }
}

/// Microseconds of CPU time, and how often a thread went to sleep, so far.
fn spent() -> [f64; 2] {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let cpu = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    [cpu as f64, usage.voluntary_context_switches() as f64]
}

fn conf(broker: &Broker, queue: &str) -> Config {
    Config::from_url(&broker.url()).unwrap().queue(queue).prefetch((FLYING as u16).try_into().unwrap())
}

async fn pushes(broker: &Broker, confirms: bool, count: usize) -> f64 {
    let queue = bare::fresh(broker, "pushes").await;
    let producer = Arc::new(AsynchronProducer::new(&conf(broker, &queue).confirms(confirms)).await.unwrap());
    let begun = Instant::now();
    let flying = if confirms { FLYING } else { 1 };
    let tasks: Vec<_> = (0..flying)
        .map(|_| {
            let producer = producer.clone();
            tokio::spawn(async move {
                for _ in 0..count / flying {
                    producer.push_message(bare::TEXT).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    bare::arrived(broker, &queue, count / flying * flying).await;
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    producer.close().await;
    rate
}

async fn call(broker: &Broker, queue: &str, count: usize, flying: usize) -> f64 {
    let producer = Arc::new(RpcProducer::new(&conf(broker, queue)).await.unwrap());
    let begun = Instant::now();
    let tasks: Vec<_> = (0..flying)
        .map(|_| {
            let producer = producer.clone();
            tokio::spawn(async move {
                for _ in 0..count / flying {
                    assert_eq!(producer.push_message(bare::TEXT).await.unwrap().as_str(), Some(bare::TEXT));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    producer.close().await;
    rate
}

async fn ours_to_bare(broker: &Broker, count: usize, flying: usize, dress: Dress) -> f64 {
    let queue = bare::fresh(broker, "calls").await;
    let consumer = tokio::spawn(bare::consume(broker.url(), queue.clone(), dress));
    let rate = call(broker, &queue, count, flying).await;
    consumer.abort();
    rate
}

async fn ours(broker: &Broker, count: usize, flying: usize) -> f64 {
    let queue = bare::fresh(broker, "calls").await;
    let echo = |request: Request| async move { request.body };
    let consumer = EventDrivenConsumer::new(echo, &conf(broker, &queue)).await.unwrap();
    let (cancel, consuming) = (consumer.cancel(), tokio::spawn(consumer.start_consuming()));
    let rate = call(broker, &queue, count, flying).await;
    cancel.cancel();
    consuming.await.unwrap().unwrap();
    rate
}

/// Runs interop/comm/pika_bench.py, which prints a rate.
fn pika(broker: &Broker, what: &str, count: usize) -> f64 {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/python/bin/python");
    assert!(python.exists(), "no {}: `.ci/test` makes it", python.display());
    let script = root.join("interop/comm/pika_bench.py");
    let args = [broker.port.to_string(), what.to_owned(), count.to_string()];
    let output = Command::new(python).arg(script).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}
