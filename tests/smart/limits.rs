//! High-water marks, on the way out and on the way in.

use natpipe::smart::protocol::Envelope;
use natpipe::smart::{Builder, Limits, SendError, SmartSocket, WhenFull};

use crate::{Raw, connected, peers, socket, soon, text};

fn small() -> Builder {
    SmartSocket::builder().send_limits(Limits { messages: 100, bytes: 1 << 20 })
}

#[tokio::test]
async fn who_sends_faster_than_the_peer_takes_waits_and_nothing_is_lost() {
    let inbox = Limits { messages: 50, bytes: 1 << 20 };
    let receiver = SmartSocket::builder().recv_limits(inbox).build().unwrap();
    let (receiver, sender) = connected(receiver, small().build().unwrap()).await;
    let message = vec![5; 20_000];
    let copy = message.clone();
    let sending = tokio::spawn(async move {
        for _ in 0..5000 {
            sender.send(&copy).await.unwrap();
        }
        sender
    });
    // 100 MB do not fit into the queues and the kernel's buffers: it can not be done before we receive.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(!sending.is_finished());
    for _ in 0..5000 {
        assert_eq!(soon("the next", receiver.recv()).await.unwrap(), message);
    }
    let sender = soon("sending", sending).await.unwrap();
    assert_eq!((sender.counters().dropped, sender.counters().sent), (0, 5000));
}

#[tokio::test]
async fn what_is_dropped_is_counted_and_failing_is_said() {
    for (when_full, first) in [(WhenFull::DropOldest, "30"), (WhenFull::DropNewest, "0"), (WhenFull::Fail, "0")] {
        let sender = small().when_full(when_full).build().unwrap();
        let mut refused = 0;
        for n in 0..130 {
            match sender.send(n.to_string()).await {
                Err(SendError::Full) => refused += 1,
                sent => sent.unwrap(),
            }
        }
        let (dropped, expected) =
            (sender.counters().dropped, if when_full == WhenFull::Fail { (30, 0) } else { (0, 30) });
        assert_eq!((refused, dropped), expected, "{when_full:?}");
        let receiver = socket();
        let addr = receiver.bind("127.0.0.1:0").await.unwrap();
        sender.connect(addr).unwrap();
        assert_eq!(text(&receiver).await, first, "{when_full:?}");
    }
}

#[tokio::test]
async fn try_send_never_waits() {
    let sender = small().build().unwrap();
    while sender.try_send("m", None).is_ok() {}
    assert_eq!(sender.try_send("m", None), Err(SendError::Full));
    assert_eq!(sender.counters().waiting, 100);
}

#[tokio::test]
async fn a_peer_that_reads_nothing_costs_a_bounded_queue_and_harms_nobody() {
    let sender = SmartSocket::builder()
        .mode(natpipe::smart::SendMode::Publish)
        .send_limits(Limits { messages: 1000, bytes: 1 << 20 })
        .when_full(WhenFull::DropOldest)
        .build()
        .unwrap();
    let addr = sender.bind("127.0.0.1:0").await.unwrap();
    let _stuck = Raw::greeted(addr.ip().unwrap(), 1).await;
    let reader = socket();
    reader.connect(addr).unwrap();
    peers(&sender, 2).await;
    let message = vec![1; 10_000];
    for _ in 0..3000 {
        sender.send(&message).await.unwrap();
        assert_eq!(soon("the reader's copy", reader.recv()).await.unwrap(), message);
    }
    let stuck = sender.peers().into_iter().find(|peer| peer.identity != reader.identity()).unwrap();
    assert!(stuck.counters.dropped > 0 && stuck.counters.sent >= 3000 - stuck.counters.dropped);
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_here_and_disconnects_there() {
    let (server, _client) = connected(SmartSocket::builder().max_message(1000).build().unwrap(), socket()).await;
    let too_long = server.send(vec![0; 1001]).await;
    assert_eq!(too_long, Err(SendError::TooLong { len: 1001, limit: 1000 }));
    server.send(vec![0; 1000]).await.unwrap();
    let addr = server.bind("127.0.0.1:0").await.unwrap().ip().unwrap();
    let mut raw = Raw::greeted(addr, 9).await;
    raw.say(&Envelope::Data(vec![1; 1000].into())).await;
    assert_eq!(soon("what is allowed", server.recv()).await.unwrap().len(), 1000);
    raw.say(&Envelope::Data(vec![1; 5000].into())).await;
    raw.closed().await;
}
