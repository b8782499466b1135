//! Receiving: the inbox, timeouts, subscriptions, bounds and back-pressure.

use std::time::Duration;

use futures_core::Stream;
use natpipe::pipe::RecvError;
use natpipe::{End, Filter, NetConf, Proto, pipe_open};

use crate::{Count, connected, datagrams, soon, until};

#[tokio::test]
async fn recv_waits_for_its_limit_and_zero_takes_only_what_is_there() {
    let (server, client) = datagrams(NetConf::default().recv_timeout(Duration::from_millis(20))).await;
    assert_eq!(server.recv().await, Err(RecvError::TimedOut(Duration::from_millis(20))));
    assert!(matches!(server.recv_within(Duration::ZERO).await, Err(RecvError::TimedOut(_))));
    client.send("there").await.unwrap();
    until("the datagram arrives", || server.counters().messages_in == 1 || client.counters().messages_out == 1).await;
    let got = soon("a message", async {
        loop {
            if let Ok(message) = server.recv_within(Duration::ZERO).await {
                return message;
            }
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(got.await.data, "there");
}

#[tokio::test(start_paused = true)]
async fn the_default_limit_is_two_seconds_and_none_waits_for_ever() {
    let (a, b) = natpipe::Pipe::pair(64, NetConf::default()).unwrap();
    let begun = tokio::time::Instant::now();
    assert_eq!(a.recv().await, Err(RecvError::TimedOut(Duration::from_secs(2))));
    assert!(begun.elapsed() >= Duration::from_secs(2) && begun.elapsed() < Duration::from_secs(3));
    let waiting = tokio::spawn(async move { a.recv_within(None).await });
    tokio::time::sleep(Duration::from_secs(3600)).await;
    b.send("late").await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().data, "late");
}

#[tokio::test(start_paused = true)]
async fn each_wait_has_its_own_full_limit() {
    let (a, b) = natpipe::Pipe::pair(64, NetConf::default()).unwrap();
    let sender = tokio::spawn(async move {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            b.send("tick").await.unwrap();
        }
        b
    });
    for _ in 0..5 {
        assert_eq!(a.recv().await.unwrap(), "tick");
    }
    let begun = tokio::time::Instant::now();
    assert!(a.recv().await.is_err());
    assert!(begun.elapsed() >= Duration::from_secs(2));
    drop(sender);
}

#[tokio::test]
async fn recv_n_gives_exactly_so_many_bytes_and_keeps_the_rest() {
    let ends = connected(NetConf::default()).await;
    ends.client.send("abcdef").await.unwrap();
    assert_eq!(ends.accepted.recv_n(2).await.unwrap(), "ab");
    ends.client.send("ghi").await.unwrap();
    assert_eq!(ends.accepted.recv_n(5).await.unwrap(), "cdefg");
    assert_eq!(ends.accepted.recv().await.unwrap(), "hi");
}

#[tokio::test]
async fn recv_n_that_gives_up_loses_nothing() {
    let ends = connected(NetConf::default().recv_timeout(Duration::from_millis(50))).await;
    ends.client.send("abc").await.unwrap();
    assert!(matches!(ends.accepted.recv_n(10).await, Err(RecvError::TimedOut(_))));
    assert_eq!(ends.accepted.recv_n(3).await.unwrap(), "abc");
}

#[tokio::test]
async fn every_subscription_that_matches_gets_the_message() {
    let (server, client) = datagrams(NetConf::default()).await;
    let other = pipe_open(Proto::Udp).dest(server.local_addr()).await.unwrap();
    let all = server.subscribe(Filter::all());
    let numbers = server.subscribe(Filter::all().matching(r"^\d+$").unwrap());
    let from_client = server.subscribe(Filter::all().from(client.local_addr().ip().unwrap()));
    let any_port = server.subscribe(Filter::all().from("127.0.0.1:0".parse().unwrap()));
    client.send("12").await.unwrap();
    assert_eq!(all.recv().await.unwrap().data, "12");
    other.send("word").await.unwrap();
    assert_eq!(all.recv().await.unwrap().data, "word");
    assert_eq!(numbers.recv().await.unwrap().data, "12");
    assert_eq!(from_client.recv().await.unwrap().data, "12");
    assert_eq!(any_port.recv().await.unwrap().data, "12");
    assert_eq!(any_port.recv().await.unwrap().data, "word");
    for quiet in [&numbers, &from_client] {
        assert!(quiet.recv_within(Duration::ZERO).await.is_err());
    }
}

#[tokio::test]
async fn unsubscribing_ends_that_queue_alone() {
    let (server, client) = datagrams(NetConf::default()).await;
    let (first, second) = (server.subscribe(Filter::all()), server.subscribe(Filter::all()));
    first.unsubscribe();
    client.send("on").await.unwrap();
    assert_eq!(second.recv().await.unwrap().data, "on");
}

#[tokio::test]
async fn a_subscription_is_a_stream_that_ends_with_the_pipe() {
    let ends = connected(NetConf::default()).await;
    let mut sub = Box::pin(ends.accepted.subscribe(Filter::all()));
    ends.client.send("one").await.unwrap();
    let next = soon("an item", std::future::poll_fn(|cx| sub.as_mut().poll_next(cx))).await;
    assert_eq!(next.unwrap().data, "one");
    ends.client.close().await;
    assert!(soon("the end", std::future::poll_fn(|cx| sub.as_mut().poll_next(cx))).await.is_none());
}

#[tokio::test]
async fn a_full_queue_of_datagrams_drops_the_oldest_and_counts_it() {
    let (server, client) = datagrams(NetConf::default().max_qsize(3)).await;
    let sub = server.subscribe(Filter::all());
    for n in 0..6 {
        client.send(format!("m{n}")).await.unwrap();
    }
    until("all have arrived", || server.counters().messages_in == 6).await;
    until("the oldest are dropped", || server.counters().dropped == 3).await;
    for n in 3..6 {
        assert_eq!(sub.recv().await.unwrap().data, format!("m{n}"));
    }
}

#[tokio::test]
async fn max_qbytes_bounds_a_queue_in_bytes() {
    let (server, client) = datagrams(NetConf::default().max_qbytes(1000)).await;
    let _sub = server.subscribe(Filter::all());
    for _ in 0..5 {
        client.send([7; 400]).await.unwrap();
    }
    until("those over 1000 bytes are dropped", || server.counters().dropped == 3).await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_stops_the_sender_of_a_stream() {
    let conf = NetConf::default().max_qbytes(100_000).send_buffer(50_000).recv_buffer(50_000);
    let ends = connected(conf).await;
    let _sub = ends.accepted.subscribe(Filter::all());
    let client = ends.client.clone();
    let sent = Count::default();
    let counted = sent.clone();
    let sender = tokio::spawn(async move {
        for _ in 0..10_000 {
            client.send([7; 10_000]).await.unwrap();
            counted.up();
        }
    });
    sent.settles().await;
    assert!(sent.get() < 100, "{} sends of 10 kB went into queues of 100 kB", sent.get());
    assert_eq!(ends.accepted.counters().dropped, 0);
    sender.abort();
}

#[tokio::test]
async fn order_is_kept_through_a_full_queue() {
    let ends = connected(NetConf::default().max_qsize(2).recv_timeout(None)).await;
    let client = ends.client.clone();
    let sender = tokio::spawn(async move {
        for n in 0..20_000u32 {
            client.send(n.to_be_bytes()).await.unwrap();
        }
    });
    for n in 0..20_000u32 {
        assert_eq!(ends.accepted.recv_n(4).await.unwrap(), n.to_be_bytes()[..]);
    }
    sender.await.unwrap();
}

#[tokio::test]
async fn what_came_before_the_end_is_received_before_the_end() {
    let ends = connected(NetConf::default()).await;
    ends.client.send("last words").await.unwrap();
    ends.client.close().await;
    assert_eq!(ends.accepted.recv().await.unwrap(), "last words");
    assert_eq!(ends.accepted.recv().await, Err(RecvError::Ended(End::Finished)));
    assert_eq!(ends.accepted.recv().await, Err(RecvError::Ended(End::Finished)));
}

#[tokio::test]
async fn half_close_leaves_the_other_direction_open() {
    let ends = connected(NetConf::default()).await;
    ends.client.send("question").await.unwrap();
    ends.client.finish().await.unwrap();
    assert_eq!(ends.accepted.recv().await.unwrap(), "question");
    assert_eq!(ends.accepted.recv().await, Err(RecvError::Ended(End::Finished)));
    ends.accepted.send("answer").await.unwrap();
    assert_eq!(ends.client.recv().await.unwrap(), "answer");
    let error = ends.client.send("more").await.unwrap_err();
    assert_eq!(error.to_string(), "not sent: this end has finished sending");
}

#[tokio::test]
async fn several_receivers_share_the_messages_and_none_waits_for_ever() {
    let (server, client) = datagrams(NetConf::default()).await;
    let got = Count::default();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (server, got) = (server.clone(), got.clone());
        tasks.spawn(async move {
            while server.recv_within(None).await.is_ok() {
                got.up();
            }
        });
    }
    for n in 0..400 {
        client.send([1; 10]).await.unwrap();
        until("it is received", || got.get() == n + 1).await;
    }
    server.close().await;
    while let Some(done) = soon("receivers end with the pipe", tasks.join_next()).await {
        done.unwrap();
    }
}

#[tokio::test]
async fn listeners_may_come_and_go_while_somebody_receives() {
    let (server, client) = datagrams(NetConf::default()).await;
    for n in 0..200 {
        let receiving = tokio::spawn({
            let server = server.clone();
            async move { server.recv_within(None).await }
        });
        tokio::task::yield_now().await;
        let heard = Count::default();
        let id = (n % 2 == 0).then(|| {
            let heard = heard.clone();
            server.add_msg_cb(move |_, _, _| heard.up())
        });
        client.send(format!("{n}")).await.unwrap();
        let message = soon("the message", receiving).await.unwrap().unwrap();
        assert_eq!(message.data, format!("{n}"));
        if let Some(id) = id {
            until("the handler hears it too", || heard.get() == 1).await;
            assert!(server.del_msg_cb(id));
        }
    }
}

#[tokio::test]
async fn a_server_receives_for_all_its_clients_and_answers_each_by_address() {
    let server = pipe_open(Proto::Tcp).bind("127.0.0.1:0").await.unwrap();
    server.recv_within(Duration::ZERO).await.unwrap_err();
    let clients = [
        pipe_open(Proto::Tcp).dest(server.local_addr()).await.unwrap(),
        pipe_open(Proto::Tcp).dest(server.local_addr()).await.unwrap(),
    ];
    for (n, client) in clients.iter().enumerate() {
        client.send(format!("from {n}")).await.unwrap();
        let message = server.recv_from().await.unwrap();
        assert_eq!(message.data, format!("from {n}"));
        server.send_to(format!("to {n}"), message.from).await.unwrap();
        assert_eq!(client.recv().await.unwrap(), format!("to {n}"));
    }
}

#[tokio::test]
async fn limits_that_never_come_are_limits() {
    let conf = NetConf::default().recv_timeout(Duration::MAX).con_timeout(Duration::MAX).send_retry(u32::MAX);
    let ends = connected(conf.clone()).await;
    let (got, sent) = tokio::join!(ends.client.recv(), ends.accepted.send("late"));
    sent.unwrap();
    assert_eq!(got.unwrap(), "late");
    let (server, client) = datagrams(conf).await;
    server.add_msg_cb(|msg, _, pipe: natpipe::Pipe| async move { pipe.send(msg).await.unwrap() });
    assert_eq!(client.request("again").await.unwrap().data, "again");
}
