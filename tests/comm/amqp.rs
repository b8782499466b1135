//! Over a real broker.

use std::sync::Arc;
use std::time::Duration;

use natpipe::comm::{
    ApplicationError, AsynchronProducer, CallError, CommunicationError, Config, EventDrivenConsumer, Format, Request,
    RpcProducer, Value,
};
use tokio::sync::{Semaphore, mpsc};

use crate::broker::Broker;
use crate::{Consuming, LONG, several};

/// A configuration for the shared broker, with a queue that no other test has.
pub fn conf(queue: &str) -> Config {
    of(Broker::shared()).queue(queue)
}

pub fn of(broker: &Broker) -> Config {
    Config::new("amqp")
        .host("127.0.0.1")
        .port(broker.port)
        .vhost("test")
        .user("test")
        .password("test")
        .timeout(LONG)
        .reconnect_wait(Duration::from_millis(50))
        .reconnect_max(Duration::from_millis(500))
}

/// A processor that hands on what comes.
pub fn collect() -> (impl natpipe::comm::Processor + Clone, mpsc::Receiver<Request>) {
    let (sender, got) = mpsc::channel(100);
    let processor = move |request: Request| {
        let sender = sender.clone();
        async move { sender.send(request).await.unwrap() }
    };
    (processor, got)
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_pushed_and_calls_are_answered() {
    let conf = conf("push and call").prefetch(several(20));
    let consuming = Consuming::begin(
        |request: Request| async move {
            match request.body.as_str() {
                Some("no") => Err(ApplicationError::Critical { code: 404, data: "not here".into() }),
                Some("later") => Err(ApplicationError::transient("busy")),
                Some("panic") => panic!("as asked"),
                _ => Ok(request.body),
            }
        },
        &conf,
    )
    .await;
    let producer = AsynchronProducer::new(&conf).await.unwrap();
    producer.push_message("one way").await.unwrap();
    let calls = Arc::new(RpcProducer::new(&conf).await.unwrap());
    let data = Value::from([("ő", vec![Value::Bytes(vec![0, 255]), 1e20.into(), Value::Null].into())]);
    assert_eq!(calls.push_message(data.clone()).await.unwrap(), data);
    for (body, code) in [("no", 404), ("later", 500), ("panic", 500)] {
        match calls.push_message(body).await {
            Err(CallError::Application(error)) => assert_eq!(error.code(), code),
            other => panic!("{other:?}"),
        }
    }
    let each: Vec<_> = (0..200)
        .map(|n| {
            let calls = calls.clone();
            tokio::spawn(async move { assert_eq!(calls.push_message(n).await.unwrap(), n.into()) })
        })
        .collect();
    for call in each {
        call.await.unwrap();
    }
    let tally = consuming.stop().await;
    assert_eq!((tally.processed, tally.answered, tally.panicked, tally.undelivered), (205, 204, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_goes_through_and_says_what_it_is() {
    for (format, data) in [
        (Format::Json, Value::from([("a", 1.into())])),
        (Format::MessagePack, Value::Bytes(vec![0, 1, 255])),
        (Format::Raw, Value::Bytes(vec![0, 1, 255])),
    ] {
        let conf = conf("formats").format(format);
        // The consumer takes YAML for granted, and reads what the message says that it is.
        let processor = |request: Request| async move {
            if request.body == "no".into() || request.body == Value::Bytes(b"no".to_vec()) {
                return Err(ApplicationError::Critical { code: 409, data: request.body });
            }
            Ok(request.body)
        };
        let consuming = Consuming::begin(processor, &conf.clone().format(Format::Yaml)).await;
        let calls = RpcProducer::new(&conf).await.unwrap();
        assert_eq!(calls.push_message(data.clone()).await.unwrap(), data);
        match calls.push_message("no").await {
            Err(CallError::Application(error)) => assert_eq!(error.code(), 409),
            other => panic!("{other:?}"),
        }
        consuming.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_tried_again_and_buried_in_the_broker() {
    let conf = conf("to bury").dead_letter("to bury: graves").max_tries(3).durable(true);
    let (tries, mut tried) = mpsc::channel(100);
    let consuming = Consuming::begin(
        move |request: Request| {
            let tries = tries.clone();
            async move {
                tries.send((request.body.to_string(), request.tries)).await.unwrap();
                match request.body.as_str() {
                    Some("bad") => Err::<(), _>(ApplicationError::critical("never")),
                    _ => Err(ApplicationError::transient("not now")),
                }
            }
        },
        &conf,
    )
    .await;
    let producer = AsynchronProducer::new(&conf).await.unwrap();
    producer.push_message("ill").await.unwrap();
    producer.push_message("bad").await.unwrap();
    let (processor, mut graves) = collect();
    let digging = Consuming::begin(processor, &conf.clone().queue("to bury: graves")).await;
    let mut dead = [graves.recv().await.unwrap(), graves.recv().await.unwrap()].map(|r| r.body.to_string());
    dead.sort_unstable();
    assert_eq!(dead, ["bad", "ill"]);
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(tried.recv().await.unwrap());
    }
    all.sort_unstable();
    assert_eq!(all, [("bad".into(), 0), ("ill".into(), 0), ("ill".into(), 1), ("ill".into(), 2)]);
    let tally = consuming.stop().await;
    assert_eq!((tally.processed, tally.retried, tally.dead), (4, 2, 2));
    digging.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_routes_by_key_and_what_no_queue_takes_comes_back() {
    let conf = conf("red ones").exchange("amq.direct").routing_key("red");
    let (processor, mut got) = collect();
    let consuming = Consuming::begin(processor, &conf).await;
    let producer = AsynchronProducer::new(&conf).await.unwrap();
    producer.push_message(1).await.unwrap();
    assert_eq!(got.recv().await.unwrap().body, 1.into());
    let error = producer.push_message_to("blue", 2).await.unwrap_err();
    assert!(matches!(&error, CommunicationError::Unroutable { routing_key, .. } if routing_key == "blue"), "{error}");
    let calls = RpcProducer::new(&conf).await.unwrap();
    let error = calls.push_message_to("blue", 2).await.unwrap_err();
    assert!(matches!(error, CallError::Communication(CommunicationError::Unroutable { .. })), "{error}");
    // Asked not to mind, and on a channel without confirmations, it is dropped.
    AsynchronProducer::new(&conf.clone().mandatory(false)).await.unwrap().push_message_to("blue", 3).await.unwrap();
    AsynchronProducer::new(&conf.clone().confirms(false)).await.unwrap().push_message_to("blue", 3).await.unwrap();
    consuming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_is_absent_is_named_and_the_producer_lives() {
    let conf = conf("lives").exchange("absent");
    let producer = AsynchronProducer::new(&conf).await.unwrap();
    let error = producer.push_message(1).await.unwrap_err();
    assert!(matches!(&error, CommunicationError::NotFound { what, .. } if what.contains("absent")), "{error}");
    let error = producer.push_message(1).await.unwrap_err();
    assert!(matches!(error, CommunicationError::NotFound { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_went_is_declared_again_by_the_next_message() {
    let conf = conf("comes and goes").auto_delete(true);
    let consuming = Consuming::begin(|_: Request| async {}, &conf).await;
    let producer = AsynchronProducer::new(&conf).await.unwrap();
    producer.push_message(1).await.unwrap();
    consuming.stop().await;
    producer.push_message("waits").await.unwrap();
    let (processor, mut got) = collect();
    let consuming = Consuming::begin(processor, &conf).await;
    assert_eq!(got.recv().await.unwrap().body, "waits".into());
    consuming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_fails_at_its_timeout_and_is_not_carried_out_later() {
    let conf = conf("late").timeout(Duration::from_millis(100));
    let calls = RpcProducer::new(&conf).await.unwrap();
    let error = calls.push_message("nobody is there").await.unwrap_err();
    assert!(matches!(error, CallError::Communication(CommunicationError::TimedOut { .. })), "{error}");
    // A message that expires is dropped by the broker when it comes to the front, and this one follows it.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let patient = conf.clone().timeout(LONG);
    let calls = RpcProducer::new(&patient).await.unwrap();
    let consuming = Consuming::begin(|request: Request| async move { request.body }, &conf).await;
    assert_eq!(calls.push_message("now").await.unwrap(), "now".into());
    assert_eq!(consuming.stop().await.processed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_finishes_and_answers_what_is_in_hand_and_gives_back_the_rest() {
    let conf = conf("graceful").prefetch(several(10)).concurrency(several(2));
    let (begun, mut started) = mpsc::channel(8);
    let go = Arc::new(Semaphore::new(0));
    let gate = go.clone();
    let consuming = Consuming::begin(
        move |request: Request| {
            let (begun, gate) = (begun.clone(), gate.clone());
            async move {
                begun.send(()).await.unwrap();
                gate.acquire().await.unwrap().forget();
                request.body
            }
        },
        &conf,
    )
    .await;
    let calls = Arc::new(RpcProducer::new(&conf).await.unwrap());
    let each: Vec<_> = (0..5)
        .map(|n| {
            let calls = calls.clone();
            tokio::spawn(async move { calls.push_message(n).await.unwrap() })
        })
        .collect();
    started.recv().await.unwrap();
    started.recv().await.unwrap();
    consuming.cancel.cancel();
    go.add_permits(2);
    let tally = consuming.end().await.unwrap();
    assert_eq!((tally.processed, tally.answered), (2, 2));
    let next = Consuming::begin(|request: Request| async move { request.body }, &conf).await;
    let mut answers = Vec::new();
    for call in each {
        answers.push(call.await.unwrap().as_i64().unwrap());
    }
    assert_eq!(answers, [0, 1, 2, 3, 4]);
    assert_eq!(next.stop().await.processed, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_caller_has_gone_is_counted_and_harms_nobody() {
    let conf = conf("gone").prefetch(several(2));
    let (begun, mut started) = mpsc::channel(8);
    let go = Arc::new(Semaphore::new(0));
    let gate = go.clone();
    let consuming = Consuming::begin(
        move |request: Request| {
            let (begun, gate) = (begun.clone(), gate.clone());
            async move {
                begun.send(()).await.unwrap();
                gate.acquire().await.unwrap().forget();
                request.body
            }
        },
        &conf,
    )
    .await;
    let calls = Arc::new(RpcProducer::new(&conf).await.unwrap());
    let goes = tokio::spawn({
        let calls = calls.clone();
        async move { calls.push_message(1).await }
    });
    started.recv().await.unwrap();
    // Closing the connection deletes the exclusive queue that the answer would go to.
    calls.close().await;
    let error = goes.await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Communication(CommunicationError::Lost { .. })), "{error}");
    go.add_permits(2);
    let calls = RpcProducer::new(&conf).await.unwrap();
    assert_eq!(calls.push_message(2).await.unwrap(), 2.into());
    let tally = consuming.stop().await;
    assert_eq!((tally.answered, tally.undelivered), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_is_reached_over_tls_when_its_certificate_is_trusted() {
    let broker = Broker::shared();
    let conf = conf("tls").port(broker.tls_port).tls(true).ca_file(broker.certificate());
    let consuming = Consuming::begin(|request: Request| async move { request.body }, &conf).await;
    assert_eq!(RpcProducer::new(&conf).await.unwrap().push_message("x").await.unwrap(), "x".into());
    consuming.stop().await;
    let strange = of(broker).port(broker.tls_port).tls(true).queue("tls");
    let error = AsynchronProducer::new(&strange).await.unwrap_err();
    assert!(matches!(error, CommunicationError::Connect { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_the_broker_ends_comes_back() {
    let conf = conf("deleted under it");
    let (processor, mut got) = collect();
    let consumer = EventDrivenConsumer::new(processor, &conf).await.unwrap();
    let (counters, consuming) = (consumer.counters(), Consuming::of(consumer));
    let connection = lapin::Connection::connect(&Broker::shared().url(), Default::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.queue_delete("deleted under it".into(), Default::default()).await.unwrap();
    while counters.tally().reconnected == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    AsynchronProducer::new(&conf).await.unwrap().push_message("again").await.unwrap();
    assert_eq!(got.recv().await.unwrap().body, "again".into());
    consuming.stop().await;
}
