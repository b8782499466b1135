//! 64 bytes there and back, one at a time and 64 in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use natpipe::pool::{Context, Packed, Pool};

use crate::bare::{self, Echo};
use crate::{beside, peers, runtime, table};

const SIZE: usize = 64;

pub fn one_at_a_time() {
    const COUNT: usize = 20_000;
    table::compare(
        "a request and an answer of 64 bytes, one at a time",
        "us",
        7,
        &mut [
            ("the bare crate", &mut || bare_echo(Echo::Each, COUNT, 1)),
            ("a pool", &mut || pool_echo(COUNT, 1)),
            ("Node's ws", &mut || peers::node("echo", [SIZE, COUNT, 1])),
            ("Python's websockets", &mut || peers::python(SIZE, COUNT / 4, 1)),
        ],
    );
}

pub fn in_flight() {
    const COUNT: usize = 200_000;
    table::compare(
        "requests and answers of 64 bytes, 64 in flight",
        "us each",
        7,
        &mut [
            ("the bare crate", &mut || bare_echo(Echo::Each, COUNT, 64)),
            ("a pool", &mut || pool_echo(COUNT, 64)),
            ("the bare crate, coalesced by hand", &mut || bare_echo(Echo::Coalesced, COUNT, 64)),
            ("Node's ws", &mut || peers::node("echo", [SIZE, COUNT, 64])),
            ("Python's websockets", &mut || peers::python(SIZE, COUNT / 10, 64)),
        ],
    );
}

fn each(begun: Instant, count: usize) -> f64 {
    begun.elapsed().as_secs_f64() * 1e6 / count as f64
}

fn bare_echo(echo: Echo, count: usize, window: usize) -> f64 {
    let port = bare::serve(echo);
    let begun = Instant::now();
    runtime().block_on(bare::ask(port, echo, SIZE, count, window));
    each(begun, count)
}

fn pool_echo(count: usize, window: usize) -> f64 {
    let (tell, url) = mpsc::channel();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    beside(move || async move {
        let pool = Pool::create("worker", |_: Context, msg: Packed| async move { msg });
        let bound = pool.bind("127.0.0.1:0").await.unwrap();
        tell.send(bound.url().to_owned()).unwrap();
        let _ = ended.await;
    });
    let url = url.recv().unwrap();
    let time = runtime().block_on(async {
        let pool = Pool::create("req", |_: Context, msg: Packed| async move { msg });
        pool.client(url).await.unwrap();
        let message = Packed::of(&"x".repeat(SIZE - 2)).unwrap();
        assert_eq!(message.as_bytes().len(), SIZE);
        let left = Arc::new(AtomicUsize::new(count));
        let begun = Instant::now();
        let asking: Vec<_> = (0..window)
            .map(|_| {
                let (pool, message, left) = (pool.clone(), message.clone(), left.clone());
                tokio::spawn(async move {
                    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                        pool.rand(message.clone()).await.unwrap();
                    }
                })
            })
            .collect();
        for task in asking {
            task.await.unwrap();
        }
        each(begun, count)
    });
    drop(end);
    time
}
