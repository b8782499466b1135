//! Brokers and consumers that die under load: what was promised is kept, and the counts add up.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use natpipe::comm::{AsynchronProducer, CallError, Config, EventDrivenConsumer, Request, RpcProducer, Value};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::amqp::{conf, of};
use crate::broker::Broker;
use crate::{Consuming, LONG, several};

const RESTARTS: usize = 20;
const MESSAGES: u64 = 50_000;

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    next: AtomicU64,
    /// Messages that the broker has confirmed.
    confirmed: Mutex<HashSet<i64>>,
    unconfirmed: AtomicU64,
    called: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    fn confirmed(&self) -> usize {
        self.confirmed.lock().unwrap().len()
    }
}

/// Waits until `enough`, and fails when nothing comes any more.
async fn until(what: &str, enough: impl Fn() -> bool) {
    let waiting = async {
        while !enough() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(2 * LONG, waiting).await.unwrap_or_else(|_| panic!("never came: {what}"));
}

async fn push_all_the_time(conf: Config, counts: Arc<Counts>) {
    let producer = AsynchronProducer::new(&conf).await.unwrap();
    while !counts.stop.load(Ordering::Relaxed) {
        let id = i64::try_from(counts.next.fetch_add(1, Ordering::Relaxed)).unwrap();
        match producer.push_message(id).await {
            Ok(()) => drop(counts.confirmed.lock().unwrap().insert(id)),
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                counts.unconfirmed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

async fn call_all_the_time(conf: Config, counts: Arc<Counts>) {
    let calls = RpcProducer::new(&conf).await.unwrap();
    while !counts.stop.load(Ordering::Relaxed) {
        let id = i64::try_from(counts.called.fetch_add(1, Ordering::Relaxed)).unwrap();
        match calls.push_message(Value::from(-1 - id)).await {
            Ok(answer) => {
                assert_eq!(answer, (-1 - id).into(), "the answer to another call");
                counts.answered.fetch_add(1, Ordering::Relaxed);
            }
            Err(CallError::Communication(error)) => {
                assert!(error.is_transient(), "{error}");
                counts.failed.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_and_restarted_twenty_times_loses_nothing_that_it_confirmed() {
    let mut broker = spawn_blocking(Broker::start).await.unwrap();
    let conf = of(&broker).queue("storm").durable(true).prefetch(several(50)).timeout(Duration::from_secs(20));
    let (seen, counts) = <(Arc<Mutex<HashSet<i64>>>, Arc<Counts>)>::default();
    let into = seen.clone();
    let consumer = EventDrivenConsumer::new(
        move |request: Request| {
            into.lock().unwrap().insert(request.body.as_i64().unwrap());
            async move { request.body }
        },
        &conf,
    )
    .await
    .unwrap();
    let (counters, consuming) = (consumer.counters(), Consuming::of(consumer));
    let mut load: Vec<JoinHandle<()>> = Vec::new();
    for _ in 0..4 {
        load.push(tokio::spawn(push_all_the_time(conf.clone(), counts.clone())));
        load.push(tokio::spawn(call_all_the_time(conf.clone(), counts.clone())));
    }
    for n in 0..RESTARTS {
        let (confirmed, answered) = (counts.confirmed() + 500, counts.answered.load(Ordering::Relaxed) + 100);
        until("load, with consumers back", || {
            counts.confirmed() >= confirmed
                && counts.answered.load(Ordering::Relaxed) >= answered
                && counters.tally().reconnected as usize >= n
        })
        .await;
        broker = spawn_blocking(move || {
            broker.kill();
            broker.run();
            broker
        })
        .await
        .unwrap();
    }
    until("the consumer after the last restart", || counters.tally().reconnected as usize >= RESTARTS).await;
    counts.stop.store(true, Ordering::Relaxed);
    for task in load {
        tokio::time::timeout(LONG, task).await.expect("a push or call outlasts its timeout").unwrap();
    }
    let confirmed = counts.confirmed.lock().unwrap().clone();
    until("everything confirmed", || seen.lock().unwrap().is_superset(&confirmed)).await;
    let tally = consuming.stop().await;

    let number = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
    let (pushed, unconfirmed) = (number(&counts.next), number(&counts.unconfirmed));
    let (called, answered, failed) = (number(&counts.called), number(&counts.answered), number(&counts.failed));
    println!(
        "{RESTARTS} restarts: {pushed} pushed = {} confirmed + {unconfirmed} not; {called} called = {answered} answered + \
         {failed} failed; {tally:?}",
        confirmed.len()
    );
    assert_eq!(pushed, confirmed.len() as u64 + unconfirmed);
    assert_eq!(called, answered + failed);
    assert!(tally.answered >= answered && tally.processed >= confirmed.len() as u64 + answered);
    let strays = seen.lock().unwrap().iter().filter(|id| **id >= pushed as i64).count();
    assert_eq!(strays, 0, "messages that nobody sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_thousand_messages_pass_a_consumer_that_is_killed_at_random() {
    let conf = conf("fifty thousand").prefetch(several(100));
    let producer = Arc::new(AsynchronProducer::new(&conf).await.unwrap());
    let next = Arc::new(AtomicU64::new(0));
    let pushing: Vec<_> = (0..32)
        .map(|_| {
            let (producer, next) = (producer.clone(), next.clone());
            tokio::spawn(async move {
                loop {
                    let id = next.fetch_add(1, Ordering::Relaxed);
                    if id >= MESSAGES {
                        return;
                    }
                    producer.push_message(id).await.unwrap();
                }
            })
        })
        .collect();

    let (seen, times) = <(Arc<Mutex<HashSet<i64>>>, Arc<AtomicU64>)>::default();
    let (mut chance, mut kills) = (7_u64, 0);
    while seen.lock().unwrap().len() < MESSAGES as usize {
        let (into, count) = (seen.clone(), times.clone());
        let processor = move |request: Request| {
            let (into, count) = (into.clone(), count.clone());
            async move {
                // Between taking and settling there is time to die.
                tokio::task::yield_now().await;
                into.lock().unwrap().insert(request.body.as_i64().unwrap());
                count.fetch_add(1, Ordering::Relaxed);
            }
        };
        let consuming = Consuming::begin(processor, &conf).await;
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let enough = times.load(Ordering::Relaxed) + chance % 4000;
        until("messages", || times.load(Ordering::Relaxed) >= enough || seen.lock().unwrap().len() as u64 == MESSAGES)
            .await;
        // No word to the broker about what is in hand: its task just ends.
        consuming.task.abort();
        kills += 1;
    }
    for task in pushing {
        task.await.unwrap();
    }
    let times = times.load(Ordering::Relaxed);
    println!("{MESSAGES} messages, {kills} consumers killed, {times} times processed");
    assert!(kills >= 10 && times >= MESSAGES);
    let all: HashSet<i64> = (0..i64::try_from(MESSAGES).unwrap()).collect();
    assert_eq!(*seen.lock().unwrap(), all);
}
