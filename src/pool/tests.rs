use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{Instant, advance, timeout};

use super::ask::Whom;
use super::core::Core;
use super::member::{Birth, Member};
use super::*;
use crate::frame::msgpack::Scanner;
use crate::frame::ws::Role;
use crate::{NetConf, Pipe};

fn echo(name: &str) -> Pool {
    Pool::create(name, |_ctx: Context, msg: Packed| async move { msg })
}

/// Two pools with one connection over memory.
async fn pair(one: &Pool, other: &Pool) -> (Con, Con) {
    let (near, far) = Pipe::pair(1 << 16, NetConf::default()).unwrap();
    let (joined, accepted) = tokio::join!(one.join(near), other.accept(far));
    (joined.unwrap(), accepted.unwrap())
}

#[tokio::test]
async fn both_sides_ask_alike() {
    let (one, other) = (echo("one"), echo("other"));
    pair(&one, &other).await;
    assert_eq!(one.rand("hi").await.unwrap().get::<String>().unwrap(), "hi");
    assert_eq!(other.rand(vec![1, 2]).await.unwrap().get::<Vec<u8>>().unwrap(), [1, 2]);
}

#[tokio::test]
async fn a_router_answers_none_one_a_stream_or_a_failure() {
    let router = |_: Context, msg: String| async move {
        match &*msg {
            "none" => Answer::none(),
            "one" => Answer::one(1),
            "many" => Answer::stream(futures_util::stream::iter(1..=200)),
            "panic" => panic!("no such luck"),
            "never" => std::future::pending().await,
            _ => Answer::failed("what?"),
        }
    };
    let conf = PoolConf::default().router_limit(Duration::from_millis(50));
    let (asker, asked) = (echo("asker"), Pool::with("asked", conf, Router::new(router)));
    pair(&asker, &asked).await;
    let all = |msg: &'static str| {
        let asker = asker.clone();
        async move {
            let answers = asker.rand(msg).answers().await.unwrap();
            answers.map(|reply| reply.map(|reply| reply.msg.get::<u32>().unwrap())).collect::<Vec<_>>().await
        }
    };
    assert!(all("none").await.is_empty());
    assert!(matches!(asker.rand("none").await, Err(AskError::NoAnswer { .. })));
    assert_eq!(all("one").await.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [1]);
    assert_eq!(all("many").await.into_iter().map(Result::unwrap).collect::<Vec<_>>(), (1..=200).collect::<Vec<_>>());
    for (msg, said) in [("panic", "no such luck"), ("never", "no answer within"), ("else", "what?")] {
        let mut answers = all(msg).await;
        let error = answers.pop().unwrap().unwrap_err();
        assert!(matches!(&error, AskError::Router { reason, .. } if reason.contains(said)), "{msg}: {error}");
        assert!(answers.is_empty());
    }
    let error = asker.rand(7).await.unwrap_err();
    assert!(matches!(error, AskError::Router { .. }), "a message of another type: {error}");
    assert_eq!(asked.len(), 1, "the connection has survived all that");
}

#[tokio::test]
async fn a_router_sends_back_on_the_connection_that_it_is_called_for() {
    let asked = Pool::create("asked", |ctx: Context, msg: u32| async move {
        Answer::from(ctx.con().ask(msg + 1).await.map(Answer::one))
    });
    let asker = Pool::create("asker", |_: Context, msg: u32| async move { msg * 10 });
    pair(&asker, &asked).await;
    assert_eq!(asker.rand(4).await.unwrap().get::<u32>().unwrap(), 50);
}

#[tokio::test]
async fn an_ask_that_is_dropped_ends_the_router_at_the_other_end() {
    let (told, mut dropped) = tokio::sync::mpsc::channel(1);
    struct Tell(tokio::sync::mpsc::Sender<()>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.try_send(()).unwrap();
        }
    }
    let asked = Pool::create("asked", move |_: Context, _: Value| {
        let tell = Tell(told.clone());
        async move {
            let _tell = tell;
            std::future::pending::<()>().await;
        }
    });
    let asker = echo("asker");
    pair(&asker, &asked).await;
    let asking = asker.rand("x").answers().await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), dropped.recv()).await.is_err(), "it runs");
    drop(asking);
    dropped.recv().await.unwrap();
}

#[tokio::test]
async fn a_deadline_ends_the_answers_with_an_error() {
    let asked = Pool::create("asked", |_: Context, _: Value| std::future::pending::<()>());
    let asker = echo("asker");
    pair(&asker, &asked).await;
    let mut answers = asker.rand("x").deadline(Duration::from_millis(20)).answers().await.unwrap();
    assert!(matches!(answers.next().await, Some(Err(AskError::TimedOut { .. }))));
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn a_publish_ends_with_an_error_for_the_member_that_goes_away() {
    let asker = echo("asker");
    let (good, bad) = (echo("good"), Pool::create("bad", |_: Context, _: Value| std::future::pending::<()>()));
    pair(&asker, &good).await;
    let (to_bad, _) = pair(&asker, &bad).await;
    let mut answers = asker.publish("x").answers().await.unwrap();
    assert_eq!(answers.asked(), 2);
    assert_eq!(answers.next().await.unwrap().unwrap().msg.get::<String>().unwrap(), "x");
    bad.close().await;
    let error = answers.next().await.unwrap().unwrap_err();
    assert!(matches!(&error, AskError::Gone { con, why } if *con == to_bad.id() && why.contains("1001")), "{error}");
    assert!(answers.next().await.is_none());
    assert_eq!(asker.len(), 1);
}

#[tokio::test]
async fn metadata_are_told_at_first_and_when_they_change_and_choose() {
    let meta = |role: &str| Meta::from([("role".to_owned(), Value::from(role))]);
    let hub = echo("hub");
    let named = |role: &'static str| {
        Pool::with(
            role,
            PoolConf::default().meta(meta(role)),
            Router::new(move |_: Context, _: Value| async move { role }),
        )
    };
    let (db, web) = (named("db"), named("web"));
    let mut events = hub.events();
    pair(&db, &hub).await;
    pair(&web, &hub).await;
    let mut known = 0;
    while known < 2 {
        known += usize::from(matches!(events.next().await.unwrap(), Event::Changed(_)));
    }
    let who = hub.target(Target::exact("role", "db"), "?").await.unwrap();
    assert_eq!(who.get::<String>().unwrap(), "db");
    assert!(matches!(hub.target(Target::exact("role", "x"), "?").await, Err(AskError::NoMember { .. })));
    db.set_meta(&meta("x"));
    while !matches!(events.next().await.unwrap(), Event::Changed(_)) {}
    assert_eq!(hub.target(Target::glob("role", "?").unwrap(), "?").await.unwrap().get::<String>().unwrap(), "db");
}

#[tokio::test]
async fn the_least_busy_member_is_asked() {
    let asker = echo("asker");
    let never = Pool::create("never", |_: Context, _: Value| std::future::pending::<()>());
    let idle = echo("idle");
    pair(&asker, &never).await;
    let busy = asker.rand("x").answers().await.unwrap();
    pair(&asker, &idle).await;
    for _ in 0..20 {
        asker.avail("y").await.unwrap();
    }
    drop(busy);
}

#[tokio::test]
async fn a_message_that_wants_no_answer_arrives() {
    let (told, mut heard) = tokio::sync::mpsc::channel(1);
    let asked = Pool::create("asked", move |_: Context, msg: u32| {
        let told = told.clone();
        async move { told.send(msg).await.unwrap() }
    });
    let asker = echo("asker");
    pair(&asker, &asked).await;
    assert_eq!(asker.publish(5).send().await.unwrap(), 1);
    assert_eq!(heard.recv().await, Some(5));
}

#[tokio::test]
async fn nobody_to_ask_and_too_long_a_message_are_errors_at_once() {
    let small = PoolConf::default().max_message(100);
    let asker = Pool::with("asker", small, Router::new(|_: Context, msg: Packed| async move { msg }));
    assert!(matches!(asker.rand(1).await, Err(AskError::NoMember { pool }) if pool == "asker"));
    let asked = Pool::create("asked", |_: Context, n: usize| async move { vec![1u8; n] });
    pair(&asker, &asked).await;
    assert!(matches!(asker.rand("x".repeat(100)).await, Err(AskError::TooLong { length: 102, limit: 100 })));
    assert_eq!(asker.rand(10).await.unwrap().get::<Vec<u8>>().unwrap().len(), 10);
}

#[tokio::test]
async fn the_last_handle_closes_the_pool() {
    let (one, other) = (echo("one"), echo("other"));
    let (_, far) = pair(&one, &other).await;
    let mut events = other.events();
    drop(one);
    let Some(Event::Left(con, left)) = events.next().await else { panic!("no end") };
    assert_eq!(con, far);
    assert!(matches!(left, Left::Closed(close) if close.code == 1001));
    assert!(matches!(other.rand(1).await, Err(AskError::NoMember { .. })));
}

#[tokio::test(start_paused = true)]
async fn who_was_not_let_run_for_a_minute_blames_nobody() {
    let (one, other) = (echo("one"), echo("other"));
    pair(&one, &other).await;
    advance(Duration::from_secs(60)).await;
    assert_eq!(one.rand("still there?").await.unwrap().get::<String>().unwrap(), "still there?");
    assert_eq!((one.len(), other.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_was_queued_before_the_goodbye_arrives_before_it() {
    let (gate, heard) = (tokio::sync::watch::Sender::new(false), Arc::new(AtomicU32::new(0)));
    let (open, count) = (gate.subscribe(), heard.clone());
    let router = move |_: Context, _: Packed| {
        count.fetch_add(1, Ordering::Relaxed);
        let mut open = open.clone();
        async move { open.wait_for(|open| *open).await.map(drop).unwrap() }
    };
    let slow = Pool::with("slow", PoolConf::default().max_calls(1), Router::new(router));
    let small = PoolConf::default().max_qbytes(1 << 16);
    let one = Pool::with("one", small, Router::new(|_: Context, msg: Packed| async move { msg }));
    pair(&one, &slow).await;
    let (message, mut sent) = ("x".repeat(8 << 10), 0);
    // Until neither the other end, nor the wire, nor the queue takes more.
    while timeout(Duration::from_millis(50), one.rand(message.as_str()).send()).await.is_ok() {
        sent += 1;
    }
    assert!(sent >= 16 && heard.load(Ordering::Relaxed) == 1, "{sent} sent");
    gate.send_replace(true);
    one.close().await;
    assert_eq!(heard.load(Ordering::Relaxed), sent);
}

#[tokio::test]
async fn who_is_leaving_is_asked_no_more() {
    let (asker, stays, leaves) = (echo("asker"), echo("stays"), echo("leaves"));
    pair(&asker, &stays).await;
    let (leaving, _) = pair(&asker, &leaves).await;
    leaving.close(1000, "");
    for _ in 0..50 {
        asker.rand(1).send().await.unwrap();
        asker.avail(1).send().await.unwrap();
    }
    assert_eq!(asker.len(), 2, "nothing else has run meanwhile");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_counts_from_the_sending() {
    let asked = Pool::create("asked", |_: Context, _: Value| std::future::pending::<()>());
    let asker = echo("asker");
    pair(&asker, &asked).await;
    let mut answers = asker.rand("x").deadline(Duration::from_secs(2)).answers().await.unwrap();
    advance(Duration::from_secs(3)).await;
    let begun = Instant::now();
    assert!(matches!(answers.next().await, Some(Err(AskError::TimedOut { .. }))));
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn metadata_that_a_full_queue_did_not_take_are_told_later() {
    let conf = PoolConf::default().meta(Meta::from([("role".to_owned(), "db".into())])).max_qsize(1);
    let core = Core::new("full", Router::new(|_: Context, msg: Packed| async move { msg }), conf);
    let stranger = Member::new(Birth { role: Role::Client, peer: None, path: "".into(), kin: false }, &core);
    core.add(&stranger);
    let publish = || Ask::new(core.clone(), Whom::All, "x".pack()).send();
    assert_eq!(publish().await.unwrap(), 1);
    assert!(stranger.take_due_meta().is_none(), "it was told");
    stranger.meta_is_due();
    assert_eq!(publish().await.unwrap(), 0, "its queue is full");
    assert!(stranger.take_due_meta().is_some());
}

#[tokio::test]
async fn a_closed_pool_takes_nobody_and_says_that_it_is_closed() {
    let (one, other) = (echo("one"), echo("other"));
    one.close().await;
    let (near, far) = Pipe::pair(1 << 16, NetConf::default()).unwrap();
    let (accepted, _) = tokio::join!(one.accept(near), other.join(far));
    assert!(matches!(accepted, Err(BindError::Closed)), "{accepted:?}");
}

#[test]
fn no_bytes_panic_what_reads_them() {
    use bytes::{Bytes, BytesMut};
    use rand::RngExt;
    use rand::SeedableRng;

    let mut rng = rand::rngs::StdRng::seed_from_u64(7);
    let good = envelope::reply(&envelope::Part::Failed("why"), b"\xc4\x100123456789abcdef", 300);
    for round in 0..200_000 {
        let mut bytes = if round % 2 == 0 { good.to_vec() } else { vec![0; rng.random_range(0..40)] };
        if round % 2 == 0 {
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
            bytes.truncate(rng.random_range(0..=bytes.len()));
        } else {
            bytes.iter_mut().for_each(|byte| *byte = rng.random());
        }
        let _read = envelope::parse(&Bytes::from(bytes.clone()));
        let _read = delimited::poll_value(&mut BytesMut::from(&bytes[..]), &mut Scanner::default(), 30);
        if let Ok(packed) = Packed::from_bytes(bytes) {
            let _read = packed.value();
        }
    }
}
