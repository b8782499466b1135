//! Handlers: of messages, of the beginning and of the end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use natpipe::{End, Filter, NetConf, Pipe, Proto, pipe_open};

use crate::{Count, connected, datagrams, soon, until};

#[tokio::test]
async fn a_handler_given_before_opening_sees_the_first_byte() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    let server = pipe_open(Proto::Tcp)
        .bind("127.0.0.1:0")
        .msg_cb(move |data, from, pipe: Pipe| {
            noted.lock().unwrap().push((data.clone(), from));
            async move { pipe.send(data).await.unwrap() }
        })
        .await
        .unwrap();
    let client = pipe_open(Proto::Tcp).dest(server.local_addr()).await.unwrap();
    client.send("first").await.unwrap();
    assert_eq!(client.recv().await.unwrap(), "first");
    assert_eq!(seen.lock().unwrap()[..], [("first".into(), client.local_addr().clone())]);
}

#[tokio::test]
async fn a_handler_of_datagrams_answers_whoever_sent_them() {
    let server = pipe_open(Proto::Udp)
        .bind("127.0.0.1:0")
        .msg_cb(|data, from, pipe: Pipe| async move {
            assert_eq!(pipe.peer_addr(), Some(&from));
            pipe.send(data).await.unwrap();
        })
        .await
        .unwrap();
    for n in 0..3 {
        let client = pipe_open(Proto::Udp).dest(server.local_addr()).await.unwrap();
        client.send(format!("{n}")).await.unwrap();
        assert_eq!(client.recv().await.unwrap(), format!("{n}"));
    }
}

#[tokio::test]
async fn a_message_goes_to_every_handler_and_into_every_queue() {
    let (server, client) = datagrams(NetConf::default()).await;
    let (plain, waiting) = (Count::default(), Count::default());
    let (p, w) = (plain.clone(), waiting.clone());
    server.add_msg_cb(move |_, _, _| p.up());
    server.add_msg_cb(move |_, _, _| {
        let w = w.clone();
        async move {
            tokio::task::yield_now().await;
            w.up();
        }
    });
    let sub = server.subscribe(Filter::all());
    assert!(server.recv_within(Duration::ZERO).await.is_err(), "from now on recv gets messages too");
    client.send("all").await.unwrap();
    assert_eq!(sub.recv().await.unwrap().data, "all");
    assert_eq!(server.recv().await.unwrap(), "all");
    assert_eq!((plain.get(), waiting.get()), (1, 1));
}

#[tokio::test]
async fn what_came_before_the_first_handler_is_handed_to_it() {
    let ends = connected(NetConf::default()).await;
    ends.client.send("early").await.unwrap();
    until("it has arrived", || ends.accepted.counters().bytes_in == 5).await;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let noted = heard.clone();
    ends.accepted.add_msg_cb(move |data, _, _| noted.lock().unwrap().extend_from_slice(&data));
    ends.client.send(" late").await.unwrap();
    until("both are heard", || *heard.lock().unwrap() == b"early late").await;
}

#[tokio::test]
async fn a_handler_that_is_taken_away_hears_nothing_more() {
    let (server, client) = datagrams(NetConf::default()).await;
    let (kept, removed) = (Count::default(), Count::default());
    let (k, r) = (kept.clone(), removed.clone());
    let id = server.add_msg_cb(move |_, _, _| r.up());
    server.add_msg_cb(move |_, _, _| k.up());
    client.send("1").await.unwrap();
    until("both hear", || kept.get() == 1 && removed.get() == 1).await;
    assert!(server.del_msg_cb(id));
    assert!(!server.del_msg_cb(id));
    client.send("2").await.unwrap();
    until("one hears", || kept.get() == 2).await;
    assert_eq!(removed.get(), 1);
}

#[tokio::test]
async fn a_panicking_handler_is_counted_and_harms_neither_its_pipe_nor_another() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let heard = Count::default();
    let after = heard.clone();
    let server = pipe_open(Proto::Tcp)
        .bind("127.0.0.1:0")
        .msg_cb(|data: bytes::Bytes, _, _| assert_ne!(data, "boom"))
        .msg_cb(|data: bytes::Bytes, _, _| async move { assert_ne!(data, "later boom") })
        .msg_cb(move |_, _, _| after.up())
        .await
        .unwrap();
    let bad = pipe_open(Proto::Tcp).dest(server.local_addr()).await.unwrap();
    let good = pipe_open(Proto::Tcp).dest(server.local_addr()).await.unwrap();
    bad.send("boom").await.unwrap();
    until("the next handler still hears it", || heard.get() == 1).await;
    bad.send("later boom").await.unwrap();
    until("and again", || heard.get() == 2).await;
    good.send("fine").await.unwrap();
    until("the other pipe is served", || heard.get() == 3).await;
    std::panic::set_hook(hook);
}

#[tokio::test]
async fn a_handler_that_waits_for_ever_holds_up_no_other_client() {
    let heard = Count::default();
    let noted = heard.clone();
    let server = pipe_open(Proto::Tcp)
        .bind("127.0.0.1:0")
        .msg_cb(move |data: bytes::Bytes, _, _| {
            let noted = noted.clone();
            async move {
                if data == "stuck" {
                    std::future::pending::<()>().await;
                }
                noted.up();
            }
        })
        .await
        .unwrap();
    let stuck = pipe_open(Proto::Tcp).dest(server.local_addr()).await.unwrap();
    let other = pipe_open(Proto::Tcp).dest(server.local_addr()).await.unwrap();
    stuck.send("stuck").await.unwrap();
    other.send("free").await.unwrap();
    until("the other is served", || heard.get() == 1).await;
    soon("closing does not wait for the stuck handler", server.close()).await;
}

#[tokio::test]
async fn up_handlers_run_at_once_on_a_connected_pipe_and_for_each_client_of_a_server() {
    let ups = Count::default();
    let (at_server, at_client, later) = (ups.clone(), ups.clone(), ups.clone());
    let opening = pipe_open(Proto::Tcp).bind("127.0.0.1:0").msg_cb(|_, _, _| ());
    let server = opening.up_cb(move |_| at_server.up()).await.unwrap();
    let client = pipe_open(Proto::Tcp).dest(server.local_addr()).up_cb(move |_| at_client.up()).await.unwrap();
    until("both ends are up", || ups.get() == 2).await;
    client.add_up_cb(move |pipe: Pipe| {
        let later = later.clone();
        async move {
            assert!(pipe.is_open());
            later.up();
        }
    });
    until("one that is added later runs too", || ups.get() == 3).await;
    let extra = ups.clone();
    let id = server.add_up_cb(move |_| extra.up());
    assert!(server.del_up_cb(id) && !server.del_up_cb(id));
}

#[tokio::test]
async fn an_up_handler_may_serve_a_whole_connection() {
    let server = pipe_open(Proto::Tcp)
        .bind("127.0.0.1:0")
        .up_cb(|client: Pipe| async move {
            while let Ok(line) = client.recv().await {
                client.send(line.to_ascii_uppercase()).await.unwrap();
            }
        })
        .await
        .unwrap();
    let client = pipe_open(Proto::Tcp).dest(server.local_addr()).await.unwrap();
    client.send("loud").await.unwrap();
    assert_eq!(client.recv().await.unwrap(), "LOUD");
}

#[tokio::test]
async fn end_handlers_run_once_whether_the_peer_finishes_resets_or_this_end_closes() {
    for how in ["finish", "reset", "close"] {
        let linger = (how == "reset").then_some(Duration::ZERO);
        let ends = connected(NetConf::default().linger(linger)).await;
        let told = Arc::new(Mutex::new(Vec::new()));
        let noted = told.clone();
        ends.accepted.add_end_cb(move |end| noted.lock().unwrap().push(end));
        match how {
            "close" => ends.accepted.close().await,
            "reset" => {
                // An unread byte and no lingering make the kernel send a reset.
                ends.accepted.send("unread").await.unwrap();
                ends.client.close().await;
            }
            _ => ends.client.finish().await.unwrap(),
        }
        until("the end is told", || !told.lock().unwrap().is_empty()).await;
        ends.accepted.close().await;
        let expected = match how {
            "finish" => End::Finished,
            "reset" => End::Broken(std::io::ErrorKind::ConnectionReset),
            _ => End::Closed,
        };
        assert_eq!(*told.lock().unwrap(), [expected], "{how}");
    }
}

#[tokio::test]
async fn an_end_handler_added_after_the_end_runs_at_once_and_one_taken_away_never() {
    let ends = connected(NetConf::default()).await;
    let (never, late) = (Count::default(), Count::default());
    let (n, l) = (never.clone(), late.clone());
    let id = ends.client.add_end_cb(move |_| n.up());
    assert!(ends.client.del_end_cb(id));
    ends.client.close().await;
    ends.client.add_end_cb(move |end| {
        assert_eq!(end, End::Closed);
        l.up();
    });
    until("the late one runs", || late.get() == 1).await;
    assert_eq!(never.get(), 0);
}

#[tokio::test]
async fn a_server_tells_the_end_of_each_client() {
    let ended = Count::default();
    let noted = ended.clone();
    let server =
        pipe_open(Proto::Tcp).bind("127.0.0.1:0").msg_cb(|_, _, _| ()).end_cb(move |_| noted.up()).await.unwrap();
    for n in 1..=3 {
        let client = pipe_open(Proto::Tcp).dest(server.local_addr()).await.unwrap();
        client.close().await;
        until("it is told", || ended.get() == n).await;
    }
    server.close().await;
    assert_eq!(ended.get(), 4, "and its own");
}

#[tokio::test]
async fn a_handler_may_close_its_own_pipe_and_goes_on_to_its_end() {
    let finished = Count::default();
    let noted = finished.clone();
    let server = pipe_open(Proto::Tcp)
        .bind("127.0.0.1:0")
        .msg_cb(move |_, _, pipe: Pipe| {
            let noted = noted.clone();
            async move {
                pipe.send("goodbye").await.unwrap();
                pipe.close().await;
                tokio::task::yield_now().await;
                noted.up();
            }
        })
        .await
        .unwrap();
    let client = pipe_open(Proto::Tcp).dest(server.local_addr()).await.unwrap();
    client.send("bye").await.unwrap();
    assert_eq!(client.recv().await.unwrap(), "goodbye");
    assert_eq!(soon("the end", client.ended()).await, End::Finished);
    until("the handler ran to its end", || finished.get() == 1).await;
}
