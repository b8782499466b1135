//! Straight between two processes: over any pipe, and over TCP by host and port.

use std::time::Duration;

use natpipe::comm::{
    AsynchronProducer, CallError, CommunicationError, Config, Direct, EventDrivenConsumer, OverPipe, Request,
    RpcProducer,
};
use natpipe::{NetConf, Pipe, Proto, pipe_open};
use tokio::sync::mpsc;

use crate::{Consuming, LONG, several};

fn conf(queue: &str) -> Config {
    Config::new("pipe").queue(queue).prefetch(several(10)).timeout(LONG)
}

async fn ends(pipes: (Pipe, Pipe)) -> (OverPipe, OverPipe) {
    tokio::join!(OverPipe::new(pipes.0), OverPipe::new(pipes.1))
}

async fn tcp() -> (Pipe, Pipe) {
    let server = pipe_open(Proto::Tcp).bind("127.0.0.1:0").await.unwrap();
    let client = pipe_open(Proto::Tcp).dest(server.local_addr()).await.unwrap();
    (server.accept().await.unwrap(), client)
}

#[tokio::test]
async fn both_ends_of_one_pipe_push_call_and_consume() {
    for pipes in [tcp().await, Pipe::pair(1000, NetConf::default()).unwrap()] {
        let (left, right) = ends(pipes).await;
        let conf = conf("q");
        let mut consumers = Vec::new();
        for (end, name) in [(&left, "left"), (&right, "right")] {
            let processor = move |request: Request| async move { format!("{name} got {}", request.body) };
            let consumer = EventDrivenConsumer::over(end, processor, &conf).await.unwrap();
            consumers.push(Consuming::of(consumer));
        }
        for (end, other) in [(&left, "right"), (&right, "left")] {
            let calls = RpcProducer::over(end, &conf).await.unwrap();
            assert_eq!(calls.push_message("x").await.unwrap(), format!("{other} got x").into());
            let producer = AsynchronProducer::over(end, &conf).await.unwrap();
            for n in 0..100 {
                producer.push_message(n).await.unwrap();
            }
            assert_eq!(calls.push_message("z").await.unwrap(), format!("{other} got z").into());
        }
        for consumer in consumers {
            assert_eq!(consumer.stop().await.processed, 102);
        }
    }
}

#[tokio::test]
async fn a_consumer_listens_and_a_producer_comes_back_after_its_connection_is_lost() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    // Each end as in a process of its own.
    let (here, there) = (Direct::new(), Direct::new());
    let conf = conf("q").host("127.0.0.1").port(port).reconnect_wait(Duration::from_millis(10));
    let error = AsynchronProducer::over(&there, &conf).await.unwrap_err();
    assert!(matches!(error, CommunicationError::Connect { .. }), "{error}");

    let echo = |request: Request| async move { request.body };
    let consuming = Consuming::of(EventDrivenConsumer::over(&here, echo, &conf).await.unwrap());
    let calls = RpcProducer::over(&there, &conf).await.unwrap();
    assert_eq!(calls.push_message(1).await.unwrap(), 1.into());
    consuming.stop().await;
    let consuming = Consuming::of(EventDrivenConsumer::over(&here, echo, &conf).await.unwrap());
    // The lost connection may be noticed only with this call; then it has failed, and the next one goes.
    let answer = match calls.push_message(2).await {
        Err(CallError::Communication(CommunicationError::Lost { .. })) => calls.push_message(2).await,
        answer => answer,
    };
    assert_eq!(answer.unwrap(), 2.into());
    consuming.stop().await;
}

#[tokio::test]
async fn when_the_pipe_ends_what_is_on_its_way_fails_at_once() {
    let (near, far) = tcp().await;
    let end = OverPipe::new(near).await;
    let calls = RpcProducer::over(&end, &conf("q")).await.unwrap();
    let call = tokio::spawn(async move { calls.push_message("no one will say").await });
    // The other end reads the question, and goes.
    far.recv().await.unwrap();
    far.close().await;
    let error = call.await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Communication(CommunicationError::Lost { .. })), "{error}");
}

#[tokio::test]
async fn a_caller_that_gives_up_frees_its_place_at_the_other_end() {
    let (left, right) = ends(tcp().await).await;
    let (begun, mut started) = mpsc::channel(8);
    let processor = move |request: Request| {
        let begun = begun.clone();
        async move {
            begun.send(request.body.clone()).await.unwrap();
            request.body
        }
    };
    let hasty = RpcProducer::over(&left, &conf("q").timeout(Duration::from_millis(20))).await.unwrap();
    for _ in 0..3 {
        assert!(hasty.push_message("too late").await.is_err());
    }
    // Their calls are not carried out once their callers have gone: of that the other end has heard
    // before it confirms this.
    AsynchronProducer::over(&left, &conf("other")).await.unwrap().push_message(1).await.unwrap();
    let patient = RpcProducer::over(&left, &conf("q")).await.unwrap();
    let consumer = EventDrivenConsumer::over(&right, processor, &conf("q")).await.unwrap();
    let consuming = Consuming::of(consumer);
    assert_eq!(patient.push_message("in time").await.unwrap(), "in time".into());
    assert_eq!(started.recv().await, Some("in time".into()));
    consuming.stop().await;
}

#[tokio::test]
async fn many_callers_that_give_up_together_leave_the_pipe_whole() {
    let (left, _right) = ends(tcp().await).await;
    let hasty = RpcProducer::over(&left, &conf("q").timeout(Duration::from_millis(50))).await.unwrap();
    let hasty = std::sync::Arc::new(hasty);
    // More in all than may be unanswered at a time.
    for _ in 0..4 {
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..600 {
            let hasty = hasty.clone();
            calls.spawn(async move { hasty.push_message(n).await });
        }
        for outcome in calls.join_all().await {
            let error = outcome.unwrap_err();
            assert!(!matches!(error, CallError::Communication(CommunicationError::Lost { .. })), "{error}");
        }
    }
    AsynchronProducer::over(&left, &conf("other")).await.unwrap().push_message(1).await.unwrap();
}

#[tokio::test]
async fn who_connects_and_says_nothing_does_not_keep_its_place() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let conf = conf("q").host("127.0.0.1").port(port).connect_timeout(Duration::from_millis(500));
    let here = Direct::new();
    let consumer = EventDrivenConsumer::over(&here, |request: Request| async move { request.body }, &conf);
    let consuming = Consuming::of(consumer.await.unwrap());
    // One that connects again would not tell that its connection was ended.
    let calls = RpcProducer::over(&Direct::new(), &conf.reconnect(false)).await.unwrap();
    let silent = pipe_open(Proto::Tcp).dest(("127.0.0.1", port)).await.unwrap();
    tokio::time::timeout(LONG, silent.ended()).await.expect("its place is kept");
    // Who has greeted may be silent for as long.
    assert_eq!(calls.push_message(1).await.unwrap(), 1.into());
    consuming.stop().await;
}

#[tokio::test]
async fn signs_of_life_may_be_as_rare_as_can_be_said() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    // More than the system waits before it asks for the first.
    let conf = conf("q").host("127.0.0.1").port(port).heartbeat(u16::MAX);
    let here = Direct::new();
    let consumer = EventDrivenConsumer::over(&here, |request: Request| async move { request.body }, &conf);
    let consuming = Consuming::of(consumer.await.unwrap());
    let calls = RpcProducer::over(&Direct::new(), &conf).await.unwrap();
    assert_eq!(calls.push_message(1).await.unwrap(), 1.into());
    consuming.stop().await;
}

#[tokio::test]
async fn what_would_protect_nobody_is_refused() {
    let conf = || conf("q").host("127.0.0.1").port(1);
    for (key, conf) in [
        ("user", conf().user("ann")),
        ("password", conf().password("hush")),
        ("vhost", conf().vhost("/")),
        ("ca_file", conf().ca_file("ca.pem")),
        ("tls", conf().tls(true)),
    ] {
        let error = AsynchronProducer::over(&Direct::new(), &conf).await.unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
    }
}

#[tokio::test]
async fn strangers_and_hostile_bytes_end_the_pipe_and_nothing_else() {
    let hello: &[u8] = b"\0\0\0\x09\0natpipe\x01";
    let hostile: [&[u8]; 8] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff",
        b"\0\0\0\0",
        b"\0\0\0\x09\0natpipe\x02",
        b"\0\0\0\x09\x03\0\0\0\0\0\0\0\0",
        // A long frame before the greeting: it is not waited for.
        b"\0\x10\0\0",
        &[hello, b"\0\0\0\x09\x63\0\0\0\0\0\0\0\0"].concat(),
        &[hello, hello].concat(),
    ];
    for bytes in hostile {
        let (near, far) = tcp().await;
        let _end = OverPipe::new(near).await;
        assert_eq!(far.recv().await.unwrap(), hello, "our greeting comes first");
        far.send(bytes).await.unwrap();
        tokio::time::timeout(LONG, far.ended()).await.expect("the pipe stays open");
    }
}

#[tokio::test]
async fn what_the_other_end_refuses_says_why() {
    let (left, right) = ends(tcp().await).await;
    let kept = conf("q").auto_delete(true);
    let _there = EventDrivenConsumer::over(&right, |_: Request| async {}, &kept).await.unwrap();
    let producer = AsynchronProducer::over(&left, &conf("q")).await.unwrap();
    let error = producer.push_message(1).await.unwrap_err();
    assert!(matches!(&error, CommunicationError::QueueDiffers { queue, .. } if queue == "q"), "{error}");
    let undeclared = AsynchronProducer::over(&left, &conf("none").declare(false)).await.unwrap();
    let error = undeclared.push_message(1).await.unwrap_err();
    assert!(matches!(error, CommunicationError::Unroutable { .. }), "{error}");
    let long = producer.push_message_to(&"k".repeat(256), 1).await.unwrap_err();
    assert!(long.to_string().contains("255"), "{long}");
}
