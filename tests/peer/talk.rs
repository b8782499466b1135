//! A pool, a smart socket, a duct and calls, each over a pipe of its own between two peers: what the caller says and how
//! the answerer answers, with nothing lost, doubled or reordered.

use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use natpipe::Pipe;
use natpipe::comm::{Config, EventDrivenConsumer, OverPipe, Request, RpcProducer};
use natpipe::duct::{Duct, DuctOptions, Json};
use natpipe::nat::Proto;
use natpipe::peer::{Node, Peer};
use natpipe::pool::{Context, Pool};
use natpipe::smart::SmartSocket;
use tokio::time::timeout;

/// Longer than anything here takes.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Of one message of the smart sockets, so that many bytes are under way at any time.
const LENGTH: usize = 1024;
/// What ends them.
const END: &[u8] = b"end";

/// A pipe for each who talks.
pub type Pipes = [Pipe; 4];

/// Opens them, at the caller.
pub fn open(peer: &Peer) -> Pipes {
    [(); 4].map(|()| peer.open(Proto::Tcp, Default::default()).unwrap())
}

/// Takes them, at the answerer, in the order in which they were opened.
pub async fn take(node: &Node) -> Pipes {
    let mut pipes = Vec::new();
    while pipes.len() < 4 {
        pipes.push(timeout(LIMIT, node.accept()).await.expect("a pipe").unwrap().1);
    }
    pipes.try_into().unwrap()
}

fn conf() -> Config {
    Config::new("pipe").queue("questions").prefetch(NonZeroU16::new(10).unwrap()).timeout(LIMIT)
}

/// Goes on until the test says that it is enough, and a number of rounds more.
struct Rounds<'a> {
    enough: &'a AtomicBool,
    done: u64,
    more: u64,
}

impl Rounds<'_> {
    fn next(&mut self) -> Option<u64> {
        if self.enough.load(Ordering::Relaxed) {
            self.more = self.more.checked_sub(1)?;
        }
        self.done += 1;
        Some(self.done - 1)
    }
}

/// Talks over all four until it is enough and then `more` rounds; how many each had: pool, smart, duct, comm.
pub async fn say(pipes: Pipes, enough: &AtomicBool, more: u64) -> [u64; 4] {
    let [pool, smart, duct, comm] = pipes;
    let rounds = || Rounds { enough, done: 0, more };
    let all =
        async { tokio::join!(ask(pool, rounds()), tell(smart, rounds()), pass(duct, rounds()), call(comm, rounds())) };
    let (pool, smart, duct, comm) = timeout(2 * LIMIT, all).await.expect("all is said within two minutes");
    [pool, smart, duct, comm]
}

async fn ask(pipe: Pipe, mut rounds: Rounds<'_>) -> u64 {
    let pool = Pool::create("asks", |_: Context, n: u64| async move { n + 2 });
    pool.join(pipe).await.unwrap();
    while let Some(n) = rounds.next() {
        assert_eq!(pool.rand(n).deadline(LIMIT).await.unwrap().get::<u64>().unwrap(), n + 1, "the pool's answer");
    }
    rounds.done
}

/// Messages one way without waiting for anything; at the end the other end says how many came in order.
async fn tell(pipe: Pipe, mut rounds: Rounds<'_>) -> u64 {
    let socket = SmartSocket::new().unwrap();
    socket.attach(pipe).unwrap();
    while let Some(n) = rounds.next() {
        let mut message = vec![n as u8; LENGTH];
        message[..8].copy_from_slice(&n.to_be_bytes());
        socket.send(message).await.unwrap();
        // As fast as a program that does something else as well.
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    socket.send(END).await.unwrap();
    let came = socket.recv().await.unwrap();
    assert_eq!(came, &rounds.done.to_be_bytes()[..], "what the smart socket got");
    rounds.done
}

async fn pass(pipe: Pipe, mut rounds: Rounds<'_>) -> u64 {
    let options = DuctOptions::new().timeout(LIMIT);
    let duct = Duct::<(u64, String)>::over(pipe, options, Json).await.unwrap();
    while let Some(n) = rounds.next() {
        duct.send(&(n, "object".to_owned())).await.unwrap();
        assert_eq!(duct.recv().await.unwrap(), (n + 1, "object".to_owned()), "the duct's answer");
    }
    rounds.done
}

async fn call(pipe: Pipe, mut rounds: Rounds<'_>) -> u64 {
    let end = OverPipe::new(pipe).await;
    let calls = RpcProducer::over(&end, &conf()).await.unwrap();
    while let Some(n) = rounds.next() {
        assert_eq!(calls.push_message(n as i64).await.unwrap(), (n as i64).into(), "the call's result");
    }
    rounds.done
}

/// Answers over all four until `over`.
pub async fn answer(pipes: Pipes, over: impl Future) {
    let [pool_pipe, smart_pipe, duct_pipe, comm_pipe] = pipes;
    let pool = Pool::create("answers", |_: Context, n: u64| async move { n + 1 });
    let all = async {
        tokio::join!(
            async { pool.accept(pool_pipe).await.unwrap() },
            count(smart_pipe),
            give_back(duct_pipe),
            consume(comm_pipe)
        )
    };
    tokio::select! {
        _ = all => {}
        _ = over => return,
    }
    panic!("all have stopped answering");
}

async fn count(pipe: Pipe) {
    let socket = SmartSocket::new().unwrap();
    socket.attach(pipe).unwrap();
    let mut came = 0u64;
    loop {
        let message = socket.recv().await.unwrap();
        if message == END {
            break;
        }
        assert_eq!(message.len(), LENGTH);
        assert_eq!(message[..8], came.to_be_bytes(), "every message once and in order");
        assert!(message[8..].iter().all(|byte| *byte == came as u8));
        came += 1;
    }
    socket.send(came.to_be_bytes().to_vec()).await.unwrap();
    std::future::pending::<()>().await;
}

async fn give_back(pipe: Pipe) {
    let duct = Duct::<(u64, String)>::over(pipe, DuctOptions::new().timeout(None), Json).await.unwrap();
    while let Ok((n, text)) = duct.recv().await {
        duct.send(&(n + 1, text)).await.unwrap();
    }
}

async fn consume(pipe: Pipe) {
    let end = OverPipe::new(pipe).await;
    let echo = |request: Request| async move { request.body };
    EventDrivenConsumer::over(&end, echo, &conf()).await.unwrap().start_consuming().await.unwrap();
}
