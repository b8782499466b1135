//! Long use: every part works at once, connections are cut and servers restarted, and in the end memory, descriptors and tasks
//! are back where they were after a warm-up.
//!
//! `NATPIPE_SOAK=900 cargo test --test soak -- --nocapture` is the long one, of 15 minutes; without the variable it takes a few
//! seconds.

#![cfg(target_os = "linux")]

mod heap;
mod messages;
mod pipes;
mod reach;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// Longer than one round of anything takes, on a machine that has much else to do.
const LONG: Duration = Duration::from_secs(60);
/// For how long without the variable.
const SHORT: u64 = 12;
/// What is allowed to be kept: tables that hold capacity, caches of names, slabs of the runtime.
const SLACK: i64 = 64 * 1024;
/// So long a session whose other end has gone without a word is kept, in case it comes back; then everything is over.
const PARTED: Duration = Duration::from_secs(33);

type Round = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One part at work: its name, and one round of it, which opens, works, is cut and closes.
type Part = (&'static str, fn(u64) -> Round);

const PARTS: [Part; 10] = [
    ("pipes", |n| Box::pin(pipes::kinds(n))),
    ("links", |n| Box::pin(pipes::links(n))),
    ("stun", |n| Box::pin(reach::stun(n))),
    ("rendezvous", |n| Box::pin(reach::rendezvous(n))),
    ("peers", |n| Box::pin(reach::peers(n))),
    ("relayed peers", |n| Box::pin(reach::relayed(n))),
    ("pools", |n| Box::pin(messages::pools(n))),
    ("smart sockets", |n| Box::pin(messages::smart(n))),
    ("ducts", |n| Box::pin(messages::ducts(n))),
    ("calls", |n| Box::pin(messages::calls(n))),
];

/// What must not grow.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// Bytes that were allocated and not given back.
    heap: i64,
    /// Resident memory, as the kernel counts it; shown, and not judged: the allocator keeps what was freed, in pieces.
    resident: i64,
    descriptors: usize,
    tasks: usize,
}

impl Held {
    fn now() -> Self {
        let pages: i64 =
            std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        Self {
            heap: heap::live(),
            resident: pages * 4096,
            // The listing itself has one open.
            descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count() - 1,
            tasks: Handle::current().metrics().num_alive_tasks(),
        }
    }

    fn is_back_at(&self, before: &Self) -> bool {
        self.descriptors <= before.descriptors && self.tasks <= before.tasks && self.heap <= before.heap + SLACK
    }

    /// What is held when nothing is at work any more.
    async fn settled(before: Option<&Self>) -> Self {
        let begun = Instant::now();
        let mut held = Self::now();
        loop {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let next = Self::now();
            let still = next.descriptors == held.descriptors && next.tasks == held.tasks && next.heap == held.heap;
            let enough = before.map_or(still && begun.elapsed() > PARTED, |before| next.is_back_at(before));
            if enough || begun.elapsed() > LONG {
                return next;
            }
            held = next;
        }
    }
}

/// What happens within a time that is long enough.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG / 2, future).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

/// All parts at once, each round after round until the time is over; how many rounds each has done.
async fn at_work(time: Duration) -> Vec<u64> {
    let until = Instant::now() + time;
    let done: Arc<[AtomicU64]> = PARTS.iter().map(|_| AtomicU64::new(0)).collect();
    let mut working = JoinSet::new();
    for (at, (name, round)) in PARTS.into_iter().enumerate() {
        let done = done.clone();
        working.spawn(async move {
            while Instant::now() < until {
                let number = done[at].load(Ordering::Relaxed);
                tokio::time::timeout(LONG, round(number)).await.unwrap_or_else(|_| panic!("{name} are stuck"));
                done[at].store(number + 1, Ordering::Relaxed);
            }
        });
    }
    while let Some(part) = working.join_next().await {
        part.expect("a part failed");
    }
    done.iter().map(|done| done.load(Ordering::Relaxed)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_descriptors_and_tasks_return_to_where_they_began() {
    let seconds = std::env::var("NATPIPE_SOAK").map_or(SHORT, |text| text.parse().unwrap());
    let time = Duration::from_secs(seconds);
    // What is made once is made here: caches, thread pools, tables at their size.
    at_work(time.min(Duration::from_secs(120)) / 3).await;
    let before = Held::settled(None).await;
    let rounds = at_work(time).await;
    let after = Held::settled(Some(&before)).await;
    for ((name, _), rounds) in PARTS.iter().zip(&rounds) {
        println!("{rounds:>8} rounds of {name}");
        assert!(*rounds > 0, "{name} did nothing");
    }
    println!("before {before:?}\nafter  {after:?}");
    println!("resident memory {} KiB before, {} KiB after", before.resident >> 10, after.resident >> 10);
    assert!(after.is_back_at(&before), "before {before:?}, after {after:?}");
}

/// A proxy on loopback that resets connections after so many bytes, or lets them be. It ends with this value.
struct Cutter {
    addr: std::net::SocketAddr,
    cutting: Arc<AtomicBool>,
    _task: JoinSet<()>,
}

impl Cutter {
    async fn before(to: std::net::SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let cutting = Arc::new(AtomicBool::new(false));
        let (mut tasks, cut) = (JoinSet::new(), cutting.clone());
        tasks.spawn(async move {
            let mut all = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let cut = cut.clone();
                all.spawn(async move { Self::carry(stream, to, &cut).await });
                while all.try_join_next().is_some() {}
            }
        });
        Self { addr, cutting, _task: tasks }
    }

    /// From now on connections that carry something are reset, or no longer.
    fn cut(&self, yes: bool) {
        self.cutting.store(yes, Ordering::Relaxed);
    }

    async fn carry(mut near: TcpStream, to: std::net::SocketAddr, cut: &AtomicBool) {
        let Ok(mut far) = TcpStream::connect(to).await else { return };
        let (mut a, mut b) = (vec![0; 8192], vec![0; 8192]);
        loop {
            let (read, from_near) = tokio::select! {
                read = near.read(&mut a) => (read, true),
                read = far.read(&mut b) => (read, false),
            };
            if cut.load(Ordering::Relaxed) {
                // Reset, not ended: what is on its way is lost.
                return drop((near.set_zero_linger(), far.set_zero_linger()));
            }
            let Ok(read @ 1..) = read else { return };
            let (other, data) = if from_near { (&mut far, &a[..read]) } else { (&mut near, &b[..read]) };
            if other.write_all(data).await.is_err() {
                return;
            }
        }
    }
}
