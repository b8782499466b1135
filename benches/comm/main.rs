//! Producers, calls and consumers beside a bare lapin loop and pika, on one RabbitMQ: `cargo bench --bench comm`.
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
use tokio::runtime::Runtime;

use broker::Broker;

const ROUNDS: usize = 7;
const CONFIRMED: usize = 20_000;
const UNCONFIRMED: usize = 50_000;
const ALONE: usize = 1500;
const TOGETHER: usize = 15_000;
/// Messages or calls on their way at a time.
const FLYING: usize = 64;

fn main() {
    let broker = Broker::start();
    let runtime = Runtime::new().unwrap();
    let only: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |what: &str| only.is_empty() || only.iter().any(|name| what.contains(name.as_str()));
    if wanted("confirmed") {
        table::compare(
            "pushes, confirmed, 64 at a time",
            "a second",
            ROUNDS,
            &mut [
                ("bare lapin", &mut || runtime.block_on(bare::pushes(&broker, true, CONFIRMED, FLYING))),
                ("natpipe", &mut || runtime.block_on(pushes(&broker, true, CONFIRMED))),
                ("pika (one at a time, as it can)", &mut || pika(&broker, "confirmed", 2000)),
            ],
        );
    }
    if wanted("unconfirmed") {
        table::compare(
            "pushes, not confirmed",
            "a second",
            ROUNDS,
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
        table::compare(
            title,
            "a second",
            ROUNDS,
            &mut [
                ("bare lapin, both ends", &mut || runtime.block_on(bare::calls(&broker, calls, flying))),
                ("natpipe calls bare lapin", &mut || runtime.block_on(ours_to_bare(&broker, calls, flying))),
                ("natpipe, both ends", &mut || runtime.block_on(ours(&broker, calls, flying))),
                ("pika, both ends (one by one)", &mut || pika(&broker, "calls", 1000)),
            ],
        );
    }
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

async fn ours_to_bare(broker: &Broker, count: usize, flying: usize) -> f64 {
    let queue = bare::fresh(broker, "calls").await;
    let consumer = tokio::spawn(bare::consume(broker.url(), queue.clone()));
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
