//! 1 KiB to 1,000 members.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures_util::{SinkExt, StreamExt};
use natpipe::pool::{Context, Packed, Pool};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::{bare, beside, peers, runtime, table};

const MEMBERS: usize = 1000;
const ROUNDS: usize = 20;
/// How many rounds there are when one contender runs by itself.
static ROUNDS_ALONE: AtomicUsize = AtomicUsize::new(ROUNDS);

pub fn run() {
    table::compare(
        "1 KiB to 1,000 members, until the last has it",
        "us for each member",
        7,
        &mut [
            ("a bare loop over prepared frames", &mut bare_loop),
            ("a pool's publish", &mut publish),
            ("Node's ws", &mut || peers::node("publish", [1024, MEMBERS, ROUNDS])),
        ],
    );
}

/// One contender by itself, for who counts its instructions, system calls or misses: `-- only-bare|only-pool [TURNS [ROUNDS]]`.
/// The difference of two numbers of rounds leaves out the connecting.
pub fn only(run: fn() -> f64, turns: usize, rounds: usize) {
    ROUNDS_ALONE.store(rounds, Ordering::Relaxed);
    let each = (0..turns).map(|_| run()).sum::<f64>() / turns as f64;
    let [sender, process] = *CPU.lock().unwrap();
    let of = (turns * rounds * MEMBERS) as f64;
    let listeners = (process - sender) / of;
    println!(
        "for each member {each:.2} us by the clock; CPU {:.2} us of the sender, {listeners:.2} of the listeners",
        sender / of
    );
}

/// Microseconds that sending has taken so far: of the sender's thread, and of the process.
static CPU: Mutex<[f64; 2]> = Mutex::new([0.0; 2]);

/// When sending began.
struct Begun(Instant, [f64; 2]);

impl Begun {
    fn now() -> Self {
        Self(Instant::now(), USERS.map(cpu))
    }

    /// Microseconds for each member.
    fn each(&self) -> f64 {
        let took = self.0.elapsed();
        for ((sum, before), who) in CPU.lock().unwrap().iter_mut().zip(self.1).zip(USERS) {
            *sum += cpu(who) - before;
        }
        took.as_secs_f64() * 1e6 / (ROUNDS_ALONE.load(Ordering::Relaxed) * MEMBERS) as f64
    }
}

const USERS: [UsageWho; 2] = [UsageWho::RUSAGE_THREAD, UsageWho::RUSAGE_SELF];

/// Microseconds of CPU time.
fn cpu(who: UsageWho) -> f64 {
    let usage = getrusage(who).unwrap();
    (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64
}

/// Members on a thread of their own, which count what comes.
struct Listeners {
    heard: Arc<AtomicUsize>,
    all: Arc<Notify>,
}

impl Listeners {
    fn new(port: u16, upgrade: bool) -> Self {
        let listeners = Self { heard: Arc::default(), all: Arc::default() };
        let (heard, all) = (listeners.heard.clone(), listeners.all.clone());
        beside(move || async move {
            let mut tasks = Vec::new();
            for _ in 0..MEMBERS {
                let (heard, all) = (heard.clone(), all.clone());
                let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let mut socket = if upgrade {
                    tokio_tungstenite::client_async(format!("ws://127.0.0.1:{port}/ws"), stream).await.unwrap().0
                } else {
                    bare::client(stream).await
                };
                tasks.push(tokio::spawn(async move {
                    while let Some(Ok(message)) = socket.next().await {
                        if message.is_binary() && (heard.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(MEMBERS) {
                            all.notify_one();
                        }
                    }
                }));
            }
            for task in tasks {
                let _ = task.await;
            }
        });
        listeners
    }
}

pub fn bare_loop() -> f64 {
    runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listeners = Listeners::new(listener.local_addr().unwrap().port(), false);
        let mut members = Vec::new();
        for _ in 0..MEMBERS {
            members.push(bare::server(listener.accept().await.unwrap().0).await);
        }
        let message = Message::Binary(Bytes::from(vec![7u8; 1024]));
        let begun = Begun::now();
        for _ in 0..ROUNDS_ALONE.load(Ordering::Relaxed) {
            for member in &mut members {
                member.send(message.clone()).await.unwrap();
            }
            listeners.all.notified().await;
        }
        begun.each()
    })
}

pub fn publish() -> f64 {
    runtime().block_on(async {
        let pool = Pool::create("worker", |_: Context, msg: Packed| async move { msg });
        let bound = pool.bind("127.0.0.1:0").await.unwrap();
        let listeners = Listeners::new(bound.local_addr().port().unwrap(), true);
        pool.joined(MEMBERS).await;
        let message = Packed::of(&"x".repeat(1021)).unwrap();
        let begun = Begun::now();
        for _ in 0..ROUNDS_ALONE.load(Ordering::Relaxed) {
            assert_eq!(pool.publish(message.clone()).send().await.unwrap(), MEMBERS);
            listeners.all.notified().await;
        }
        begun.each()
    })
}
