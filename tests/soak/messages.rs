//! Pools, smart sockets, ducts and calls.

use natpipe::comm::{ApplicationError, AsynchronProducer, Config, EventDrivenConsumer, Request, RpcProducer};
use natpipe::duct;
use natpipe::pool::{self, Answer, Context, Pool, Value};
use natpipe::smart::{Delivery, Event, SmartSocket};

use crate::{Cutter, soon};

const TIMES: usize = 50;

/// Asks one and all; then the connections are cut, and the client comes back by itself.
pub async fn pools(_: u64) {
    let worker = Pool::create("worker", |_: Context, msg: Value| async move {
        match msg.as_u64() {
            Some(upto) => Answer::stream(futures_util::stream::iter(1..=upto)),
            None => Answer::one(msg),
        }
    });
    let bound = worker.bind("127.0.0.1:0").await.unwrap();
    let url = |port: u16| format!("ws://127.0.0.1:{port}/ws");
    let port = bound.local_addr().port().unwrap();
    let cutter = Cutter::before(std::net::SocketAddr::from(([127, 0, 0, 1], port))).await;
    let req = Pool::create("req", |_: Context, msg: Value| async move { msg });
    req.client(url(cutter.addr.port())).await.unwrap();
    req.client(bound.url()).await.unwrap();
    let ask = async || {
        for _ in 0..TIMES {
            assert_eq!(req.rand("hello").await.unwrap().get::<String>().unwrap(), "hello");
        }
        let (mut answers, mut came) = (req.publish(5).answers().await.unwrap(), 0);
        while let Some(answer) = answers.next().await {
            came += usize::from(answer.is_ok());
        }
        assert_eq!(came, 10);
    };
    ask().await;
    let mut events = req.events();
    cutter.cut(true);
    worker.publish("this cuts it").send().await.unwrap();
    while !matches!(soon("the cut", events.next()).await, Some(pool::Event::Left(..))) {}
    cutter.cut(false);
    soon("the way back", req.joined(2)).await;
    ask().await;
    drop(req.rand("nobody waits for the answer").await);
    req.close().await;
    worker.close().await;
}

/// At least once over a connection that is cut all the time: everything arrives.
pub async fn smart(round: u64) {
    let socket = || SmartSocket::builder().delivery(Delivery::AtLeastOnce).build().unwrap();
    let (sink, source) = (socket(), socket());
    let addr = sink.bind("127.0.0.1:0").await.unwrap();
    let cutter = Cutter::before(std::net::SocketAddr::from(([127, 0, 0, 1], addr.port().unwrap()))).await;
    let mut events = source.events();
    source.connect(cutter.addr.to_string().as_str()).unwrap();
    for cut in 0..2 {
        while !matches!(events.next().await, Some(Event::Connected { .. })) {}
        for n in 0..TIMES {
            source.send(format!("{cut} {n}")).await.unwrap();
            if n == TIMES / 2 && cut == 0 {
                cutter.cut(true);
            }
        }
        if cut == 0 {
            while !matches!(events.next().await, Some(Event::Disconnected { .. })) {}
            cutter.cut(false);
        }
    }
    let mut come = std::collections::BTreeSet::new();
    while come.len() < 2 * TIMES {
        come.insert(sink.recv().await.unwrap());
    }
    if round.is_multiple_of(2) {
        // Acknowledgements may be on their way still.
        let _ = source.close().await;
    }
}

/// Objects both ways; an end is dropped with an object on its way.
pub async fn ducts(_: u64) {
    let (parent, child) = duct::pair::<Vec<u32>>().unwrap();
    for _ in 0..TIMES {
        parent.send(&vec![1, 2, 3]).await.unwrap();
        assert_eq!(child.recv().await.unwrap(), [1, 2, 3]);
        child.send(&vec![4; 1000]).await.unwrap();
        assert_eq!(parent.recv().await.unwrap().len(), 1000);
    }
    parent.send(&vec![5; 10_000]).await.unwrap();
    drop(child);
    assert!(parent.recv().await.is_err());
}

/// Pushes and calls in one process, with a consumer that comes and goes.
pub async fn calls(_: u64) {
    let conf = Config::new("memory").vhost("soak").queue("q");
    let consumer =
        EventDrivenConsumer::new(|request: Request| async move { Ok::<_, ApplicationError>(request.body) }, &conf)
            .await
            .unwrap();
    let (cancel, consuming) = (consumer.cancel(), tokio::spawn(consumer.start_consuming()));
    let (pushes, calls) = (AsynchronProducer::new(&conf).await.unwrap(), RpcProducer::new(&conf).await.unwrap());
    for _ in 0..TIMES {
        pushes.push_message("a push").await.unwrap();
        assert_eq!(calls.push_message("a call").await.unwrap().as_str(), Some("a call"));
    }
    cancel.cancel();
    assert_eq!(consuming.await.unwrap().unwrap().processed, 2 * TIMES as u64);
}
