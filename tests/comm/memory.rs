//! The backend with no broker, and everything that is the same for all backends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use natpipe::comm::{
    ApplicationError, AsynchronProducer, BodyError, CallError, CommunicationError, Config, ConfigError,
    EventDrivenConsumer, Format, Memory, Request, Response, RpcProducer, Value, register,
};
use tokio::sync::{Semaphore, mpsc};

use crate::{Consuming, LONG, several};

/// A configuration that shares nothing with other tests.
fn conf(name: &str) -> Config {
    Config::new("memory").vhost(name).queue("q")
}

#[tokio::test]
async fn a_message_is_pushed_before_there_is_a_consumer_and_waits_for_it() {
    let conf = conf("waits");
    let producer = AsynchronProducer::new(&conf).await.unwrap();
    for n in 0..3 {
        producer.push_message(n).await.unwrap();
    }
    let (sender, mut got) = mpsc::channel(8);
    let consuming = Consuming::begin(
        move |request: Request| {
            let sender = sender.clone();
            async move { sender.send(request.body).await.unwrap() }
        },
        &conf,
    )
    .await;
    for n in 0..3 {
        assert_eq!(got.recv().await, Some(Value::from(n)));
    }
    assert_eq!(consuming.stop().await.processed, 3);
}

#[tokio::test]
async fn a_call_returns_the_result_or_what_the_processor_says_about_the_error() {
    let conf = conf("calls").prefetch(several(10));
    let consuming = Consuming::begin(
        |request: Request| async move {
            assert!(request.is_call);
            match request.body.as_str() {
                Some("critical") => Err(ApplicationError::Critical { code: 422, data: vec![1.into()].into() }),
                Some("transient") => Err(ApplicationError::transient("later")),
                Some("panic") => panic!("as asked"),
                Some("odd") => Ok(Response::new(302, "elsewhere")),
                _ => Ok(Response::ok(request.body)),
            }
        },
        &conf,
    )
    .await;
    let calls = RpcProducer::new(&conf).await.unwrap();
    let data = Value::from([("a", vec![1.into(), 2.5.into(), Value::Null].into())]);
    assert_eq!(calls.push_message(data.clone()).await.unwrap(), data);
    let failed = |error: CallError| match error {
        CallError::Application(error) => error,
        other => panic!("{other}"),
    };
    let critical = failed(calls.push_message("critical").await.unwrap_err());
    assert_eq!(critical, ApplicationError::Critical { code: 422, data: vec![1.into()].into() });
    let transient = failed(calls.push_message("transient").await.unwrap_err());
    assert_eq!(transient, ApplicationError::transient("later"));
    let panicked = failed(calls.push_message("panic").await.unwrap_err());
    assert_eq!(panicked, ApplicationError::transient("Internal Server Error"));
    let odd = calls.push_message("odd").await.unwrap_err();
    assert!(matches!(odd, CallError::Communication(CommunicationError::Protocol { .. })), "{odd}");
    // The consumer lives.
    assert_eq!(calls.push_message("still there").await.unwrap(), "still there".into());
    let tally = consuming.stop().await;
    assert_eq!((tally.processed, tally.answered, tally.panicked, tally.retried), (6, 6, 1, 0));
}

#[tokio::test]
async fn many_calls_are_in_flight_on_one_producer_and_answers_find_theirs() {
    let conf = conf("flight").prefetch(several(100));
    // Nobody is answered before everybody has called.
    let gate = Arc::new(tokio::sync::Barrier::new(100));
    let consuming = Consuming::begin(
        move |request: Request| {
            let gate = gate.clone();
            async move {
                gate.wait().await;
                request.body
            }
        },
        &conf,
    )
    .await;
    let calls = Arc::new(RpcProducer::new(&conf).await.unwrap());
    let each: Vec<_> = (0..100)
        .map(|n| {
            let calls = calls.clone();
            tokio::spawn(async move { assert_eq!(calls.push_message(n).await.unwrap(), n.into()) })
        })
        .collect();
    for call in each {
        tokio::time::timeout(LONG, call).await.unwrap().unwrap();
    }
    assert_eq!(consuming.stop().await.answered, 100);
}

#[tokio::test]
async fn a_processor_that_has_been_quick_and_then_waits_or_panics_harms_no_other_message() {
    let conf = conf("quick, then not").prefetch(several(8));
    let gate = Arc::new(Semaphore::new(0));
    let closed = gate.clone();
    let processor = move |request: Request| {
        let gate = closed.clone();
        async move {
            match request.body.as_str() {
                Some("wait") => drop(gate.acquire().await.unwrap()),
                Some("panic") => panic!("as the message says"),
                _ => {}
            }
            request.body
        }
    };
    let consuming = Consuming::begin(processor, &conf).await;
    let producer = RpcProducer::new(&conf).await.unwrap();
    // From some point on they are processed in the consumer's own task.
    for n in 0..100 {
        assert_eq!(producer.push_message(n).await.unwrap(), Value::from(n));
    }
    let waiting = producer.push_message("wait");
    let others = async {
        for n in 0..100 {
            assert_eq!(producer.push_message(n).await.unwrap(), Value::from(n));
        }
        let error = producer.push_message("panic").await.unwrap_err();
        assert!(matches!(error, CallError::Application(error) if error.code() == 500));
        assert_eq!(producer.push_message("still there").await.unwrap(), Value::from("still there"));
        gate.add_permits(1);
    };
    let (waited, ()) = tokio::join!(waiting, others);
    assert_eq!(waited.unwrap(), Value::from("wait"));
    assert_eq!(consuming.stop().await.processed, 203);
}

#[tokio::test]
async fn no_more_run_at_a_time_than_is_allowed() {
    let conf = conf("limit").prefetch(several(50)).concurrency(several(3));
    let (running, most) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    let (now, peak) = (running.clone(), most.clone());
    let go = Arc::new(Semaphore::new(0));
    let gate = go.clone();
    let consuming = Consuming::begin(
        move |_: Request| {
            let (now, peak, gate) = (now.clone(), peak.clone(), gate.clone());
            async move {
                peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                now.fetch_sub(1, Ordering::SeqCst);
            }
        },
        &conf,
    )
    .await;
    let calls = Arc::new(RpcProducer::new(&conf).await.unwrap());
    let each: Vec<_> = (0..12)
        .map(|n| {
            tokio::spawn({
                let calls = calls.clone();
                async move { calls.push_message(n).await }
            })
        })
        .collect();
    while running.load(Ordering::SeqCst) < 3 {
        tokio::task::yield_now().await;
    }
    go.add_permits(12);
    for call in each {
        call.await.unwrap().unwrap();
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
    consuming.stop().await;
}

#[tokio::test]
async fn what_fails_is_tried_again_and_then_buried_with_nothing_lost() {
    let conf = conf("dead").max_tries(3).dead_letter("graves");
    let consuming = Consuming::begin(
        |request: Request| async move {
            match request.body.as_str() {
                Some("heals") if request.tries == 2 => Ok(()),
                Some("bad") => Err(ApplicationError::critical("never")),
                _ => Err(ApplicationError::transient("not now")),
            }
        },
        &conf,
    )
    .await;
    let producer = AsynchronProducer::new(&conf).await.unwrap();
    for body in ["heals", "ill", "bad"] {
        producer.push_message(body).await.unwrap();
    }
    let graves = conf.clone().queue("graves");
    let (sender, mut got) = mpsc::channel(8);
    let digging = Consuming::begin(
        move |request: Request| {
            let sender = sender.clone();
            async move { sender.send(request).await.unwrap() }
        },
        &graves,
    )
    .await;
    let mut dead = [got.recv().await.unwrap(), got.recv().await.unwrap()];
    dead.sort_by_key(|request| request.body.to_string());
    assert_eq!([&dead[0].body, &dead[1].body], [&"bad".into(), &"ill".into()]);
    assert!(!dead[0].is_call && dead[0].tries == 0);
    let tally = consuming.stop().await;
    assert_eq!((tally.processed, tally.retried, tally.dead), (3 + 3 + 1, 4, 2));
    digging.stop().await;
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_buried_and_a_call_with_one_is_told() {
    let conf = conf("unreadable").dead_letter("graves");
    let consuming = Consuming::begin(|_: Request| std::future::ready(()), &conf).await;
    let raw = conf.clone().format(Format::Raw);
    // The memory broker carries the format beside the body, so raw bytes are marked as raw; what claims
    // to be YAML and is none comes from the other backends' peers. Too long it can be here as well.
    let small = conf.clone().max_body(4).vhost("unreadable");
    let error = AsynchronProducer::new(&small).await.unwrap().push_message("too long").await.unwrap_err();
    assert!(matches!(error, CommunicationError::Body(BodyError::TooLong { .. })), "{error}");
    let error = AsynchronProducer::new(&raw).await.unwrap().push_message(1).await.unwrap_err();
    assert!(matches!(error, CommunicationError::Body(BodyError::Unfit(_))), "{error}");
    assert_eq!(consuming.stop().await.processed, 0);

    let picky = self::conf("picky").max_body(4);
    let consuming = Consuming::begin(|_: Request| async {}, &picky).await;
    let calls = RpcProducer::new(&self::conf("picky")).await.unwrap();
    let error = calls.push_message("longer than four").await.unwrap_err();
    // Not even the error fits four bytes, so what comes is an answer that cannot be read.
    assert!(matches!(error, CallError::Communication(CommunicationError::Body(_))), "{error}");
    assert_eq!(consuming.stop().await.unreadable, 1);
}

#[tokio::test]
async fn a_call_that_takes_too_long_fails_and_is_not_carried_out_later() {
    let conf = conf("late").timeout(Duration::from_millis(30));
    let calls = RpcProducer::new(&conf).await.unwrap();
    let error = calls.push_message("nobody is there").await.unwrap_err();
    assert!(matches!(error, CallError::Communication(CommunicationError::TimedOut { .. })), "{error}");
    let patient = conf.clone().timeout(LONG);
    let consuming = Consuming::begin(|request: Request| async move { request.body }, &conf).await;
    let calls = RpcProducer::new(&patient).await.unwrap();
    assert_eq!(calls.push_message("now").await.unwrap(), "now".into());
    assert_eq!(consuming.stop().await.processed, 1);
}

#[tokio::test]
async fn stopping_finishes_what_is_in_hand_and_leaves_the_rest() {
    let conf = conf("stop").prefetch(several(2));
    let producer = AsynchronProducer::new(&conf).await.unwrap();
    for n in 0..5 {
        producer.push_message(n).await.unwrap();
    }
    let (begun, mut started) = mpsc::channel(8);
    let go = Arc::new(Semaphore::new(0));
    let gate = go.clone();
    let consumer = EventDrivenConsumer::new(
        move |_: Request| {
            let (begun, gate) = (begun.clone(), gate.clone());
            async move {
                begun.send(()).await.unwrap();
                gate.acquire().await.unwrap().forget();
            }
        },
        &conf,
    )
    .await
    .unwrap();
    let (counters, consuming) = (consumer.counters(), Consuming::of(consumer));
    started.recv().await.unwrap();
    started.recv().await.unwrap();
    consuming.cancel.cancel();
    assert!(!consuming.task.is_finished());
    go.add_permits(5);
    let tally = consuming.end().await.unwrap();
    assert_eq!((tally.processed, counters.tally()), (2, tally));
    // The other three are still there.
    let (sender, mut got) = mpsc::channel(8);
    let rest = Consuming::begin(
        move |request: Request| {
            let sender = sender.clone();
            async move { sender.send((request.body, request.redelivered)).await.unwrap() }
        },
        &conf,
    )
    .await;
    for n in 2..5 {
        assert_eq!(got.recv().await.unwrap(), (n.into(), false));
    }
    rest.stop().await;
}

#[tokio::test]
async fn a_consumer_that_dies_leaves_its_messages_to_the_next() {
    let conf = conf("dies").prefetch(several(4));
    let producer = AsynchronProducer::new(&conf).await.unwrap();
    for n in 0..4 {
        producer.push_message(n).await.unwrap();
    }
    let (begun, mut started) = mpsc::channel(8);
    let stuck = Consuming::begin(
        move |_: Request| {
            let begun = begun.clone();
            async move {
                begun.send(()).await.unwrap();
                std::future::pending::<()>().await;
            }
        },
        &conf,
    )
    .await;
    for _ in 0..4 {
        started.recv().await.unwrap();
    }
    stuck.task.abort();
    let (sender, mut got) = mpsc::channel(8);
    let next = Consuming::begin(
        move |request: Request| {
            let sender = sender.clone();
            async move { sender.send((request.body.as_i64().unwrap(), request.redelivered)).await.unwrap() }
        },
        &conf,
    )
    .await;
    let mut again = Vec::new();
    for _ in 0..4 {
        again.push(got.recv().await.unwrap());
    }
    again.sort_unstable();
    assert_eq!(again, [(0, true), (1, true), (2, true), (3, true)]);
    next.stop().await;
}

#[tokio::test]
async fn an_answer_that_is_not_final_leaves_the_message_until_the_consumer_ends() {
    let conf = conf("leave").prefetch(several(2));
    let producer = AsynchronProducer::new(&conf).await.unwrap();
    producer.push_message("stays").await.unwrap();
    producer.push_message("goes").await.unwrap();
    let (sender, mut got) = mpsc::channel(8);
    let processor = move |request: Request| {
        let sender = sender.clone();
        async move {
            sender.send((request.body.clone(), request.redelivered)).await.unwrap();
            let answer = Response::ok(());
            if request.body == "stays".into() && !request.redelivered { answer.not_final() } else { answer }
        }
    };
    let consuming = Consuming::begin(processor.clone(), &conf).await;
    assert_eq!(got.recv().await.unwrap(), ("stays".into(), false));
    assert_eq!(got.recv().await.unwrap(), ("goes".into(), false));
    consuming.stop().await;
    let consuming = Consuming::begin(processor, &conf).await;
    assert_eq!(got.recv().await.unwrap(), ("stays".into(), true));
    consuming.stop().await;
}

#[tokio::test]
async fn queues_and_exchanges_are_kept_to_as_a_broker_does() {
    let conf = conf("rules");
    let _declared = AsynchronProducer::new(&conf).await.unwrap().push_message(1).await;
    let other = EventDrivenConsumer::new(|_: Request| async {}, &conf.clone().auto_delete(true)).await.unwrap_err();
    assert!(matches!(&other, CommunicationError::QueueDiffers { queue, .. } if queue == "q"), "{other}");
    let nowhere = AsynchronProducer::new(&conf.clone().exchange("none")).await.unwrap();
    let error = nowhere.push_message(1).await.unwrap_err();
    assert!(matches!(error, CommunicationError::NotFound { .. }), "{error}");

    let bound = conf.clone().queue("bound").exchange("ex").routing_key("red");
    let consuming = Consuming::begin(|request: Request| async move { request.body }, &bound).await;
    assert_eq!(RpcProducer::new(&bound).await.unwrap().push_message("x").await.unwrap(), "x".into());
    let producer = AsynchronProducer::new(&bound).await.unwrap();
    let error = producer.push_message_to("blue", 1).await.unwrap_err();
    assert!(matches!(&error, CommunicationError::Unroutable { routing_key, .. } if routing_key == "blue"), "{error}");
    consuming.stop().await;

    let short_lived = conf.clone().queue("gone").auto_delete(true);
    let consuming = Consuming::begin(|_: Request| async {}, &short_lived).await;
    let undeclared = AsynchronProducer::new(&short_lived.clone().declare(false)).await.unwrap();
    undeclared.push_message(1).await.unwrap();
    consuming.stop().await;
    let error = undeclared.push_message(1).await.unwrap_err();
    assert!(matches!(error, CommunicationError::Unroutable { .. }), "{error}");
}

#[tokio::test]
async fn a_full_queue_holds_up_its_producer_until_the_timeout() {
    let conf = conf("full").timeout(Duration::from_millis(50)).format(Format::Raw);
    let producer = AsynchronProducer::new(&conf).await.unwrap();
    let body = Value::Bytes(vec![0; 16 << 20]);
    for _ in 0..4 {
        producer.push_message(body.clone()).await.unwrap();
    }
    let error = producer.push_message(body.clone()).await.unwrap_err();
    assert!(matches!(error, CommunicationError::TimedOut { .. }), "{error}");
    let patient = AsynchronProducer::new(&conf.clone().timeout(LONG)).await.unwrap();
    let waits = tokio::spawn(async move { patient.push_message(body).await });
    let consuming = Consuming::begin(|_: Request| async {}, &conf).await;
    waits.await.unwrap().unwrap();
    consuming.stop().await;
}

#[tokio::test]
async fn a_configuration_says_what_it_lacks() {
    let error = EventDrivenConsumer::new(|_: Request| async {}, &Config::new("memory")).await.unwrap_err();
    assert!(matches!(&error, CommunicationError::Config(ConfigError::Missing { key: "queue", .. })), "{error}");
    let producer = AsynchronProducer::new(&Config::new("memory")).await.unwrap();
    let error = producer.push_message(1).await.unwrap_err();
    assert!(matches!(&error, CommunicationError::Config(ConfigError::Missing { key: "routing_key", .. })), "{error}");
    let error = AsynchronProducer::new(&Config::new("carrier-pigeon")).await.unwrap_err().to_string();
    assert!(error.contains("carrier-pigeon") && error.contains("memory"), "{error}");
}

#[tokio::test]
async fn a_backend_of_ones_own_is_found_by_its_name() {
    assert!(register("mine", Arc::new(Memory::new())).is_none());
    let conf = Config::new("mine").queue("q");
    let consuming = Consuming::begin(|request: Request| async move { request.body }, &conf).await;
    assert_eq!(RpcProducer::new(&conf).await.unwrap().push_message(7).await.unwrap(), 7.into());
    consuming.stop().await;
}

#[tokio::test]
async fn a_closed_producer_says_so() {
    let conf = conf("closed");
    let producer = AsynchronProducer::new(&conf).await.unwrap();
    producer.close().await;
    assert!(matches!(producer.push_message(1).await, Err(CommunicationError::Closed)));
}
