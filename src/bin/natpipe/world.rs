//! Waits: a network on this machine with a rendezvous server and two peers behind routers of given kinds, and what comes of it
//! when they connect.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use natpipe::key::ServerUrl;
use natpipe::lab::{Host, Internet, LabError, Link, Setup};
use natpipe::nat::Proto as Over;
use natpipe::peer::{Event, Node, PathInfo, PathKind};
use natpipe::{Identity, NetConf, Ticket, rendezvous, stun};
use tokio::sync::{broadcast, oneshot};
use tokio::time::timeout;

use crate::pattern;

/// How long two peers may take to find a path, and to move their bytes.
const REACH: Duration = Duration::from_secs(60);
const MOVE: Duration = Duration::from_secs(600);

/// How long a relay is given to be replaced by something better.
const BETTER: Duration = Duration::from_secs(8);

/// A network with a place to meet.
pub struct World {
    internet: Internet,
    delay: Duration,
    url: ServerUrl,
    first: SocketAddr,
    stun: SocketAddr,
    // Dropped in this order.
    _server: rendezvous::Server,
    _second: stun::Server,
    _runtimes: [tokio::runtime::Runtime; 2],
    _hosts: [Host; 2],
}

/// What came of two peers.
pub struct Outcome {
    pub first: PathInfo,
    pub last: PathInfo,
    /// From using the ticket until the other end had the first byte.
    pub first_byte: Duration,
    /// From using the ticket until the last path was found.
    pub found: Duration,
    /// Bits a second, from the caller and to it.
    pub rates: [f64; 2],
}

impl World {
    pub fn new(delay: Duration, loss: f64) -> Result<Self> {
        let internet = Internet::with_link(Link { loss, ..Link::steady(delay) }, 1)?;
        let hosts = [internet.host("rendezvous")?, internet.host("stun")?];
        let runtimes = [hosts[0].runtime()?, hosts[1].runtime()?];
        let at = |host: &Host, port: u16| {
            host.v4().map(|ip| SocketAddr::from((ip, port))).context("a host of the lab has no address")
        };
        let (first, second) = (at(&hosts[0], 3478)?, at(&hosts[1], 3478)?);
        let server = hosts[0].run(|| {
            let identity = Identity::generate()?;
            anyhow::Ok(runtimes[0].block_on(rendezvous::Server::listen(first, identity).start())?)
        })?;
        // A second address shows whether a NAT takes another port for each.
        let second = hosts[1].run(|| {
            let _inside = runtimes[1].enter();
            stun::Server::listen(second).tcp(true).start()
        })?;
        Ok(Self {
            internet,
            delay,
            url: server.url(),
            first,
            stun: second.addr(),
            _server: server,
            _second: second,
            _runtimes: runtimes,
            _hosts: hosts,
        })
    }

    /// One way through the middle.
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// Where STUN is answered.
    pub fn stun_servers(&self) -> [SocketAddr; 2] {
        [self.first, self.stun]
    }

    /// Whether networks can be built here at all.
    pub fn probe() -> Result<(), LabError> {
        Internet::new().and_then(|internet| internet.host("probe")).map(drop)
    }

    /// A host behind a router of this kind.
    pub fn behind(&self, setup: Setup) -> Result<Host> {
        Ok(self.internet.behind(setup)?)
    }

    /// Connects two hosts, waits for the best path, and moves so many bytes each way.
    pub fn meet(
        &self,
        [caller, answerer]: [&Host; 2],
        total: usize,
        told: impl Fn(Event) + Send + Sync,
    ) -> Result<Outcome> {
        let (give, ticket) = mpsc::channel();
        let (arrived, first_byte) = mpsc::channel();
        let (over, all_over) = oneshot::channel();
        std::thread::scope(|scope| {
            let told = &told;
            let answering = scope.spawn(move || {
                answerer.block_on(async { answer(self.node().start().await?, give, arrived, total, all_over).await })?
            });
            let calling = scope.spawn(move || {
                let ticket: Ticket = ticket.recv().context("the other peer did not start")?;
                caller.block_on(async { call(self.node().start().await?, ticket, total, over, told).await })?
            });
            let called = calling.join().map_err(|_| anyhow!("the calling peer fell over"))?;
            let answered = answering.join().map_err(|_| anyhow!("the answering peer fell over"))?;
            let called = match (called, answered) {
                (Ok(called), Ok(())) => called,
                (Err(caller), Err(answerer)) => bail!("the caller: {caller:#}; the answerer: {answerer:#}"),
                (Err(error), Ok(())) => return Err(error.context("the caller")),
                (Ok(_), Err(error)) => return Err(error.context("the answerer")),
            };
            Ok(called.outcome(first_byte.recv().context("no byte came")?))
        })
    }

    fn node(&self) -> natpipe::peer::Builder {
        Node::builder().via(self.url.clone()).stun(self.stun)
    }
}

async fn answer(
    node: Node,
    give: mpsc::Sender<Ticket>,
    arrived: mpsc::Sender<Instant>,
    total: usize,
    over: oneshot::Receiver<()>,
) -> Result<()> {
    give.send(node.ticket()?).context("nobody wants the ticket")?;
    let (_peer, pipe) = timeout(REACH, node.accept()).await.context("nobody came")??;
    let hello = pipe.recv_within(REACH).await?;
    arrived.send(Instant::now()).context("nobody waits")?;
    pipe.put_back(hello);
    timeout(MOVE, async {
        pattern::check(&pipe, total).await?;
        pipe.send("all").await?;
        pattern::send(&pipe, total).await
    })
    .await
    .context("the bytes took too long")??;
    // The other end says when it has everything, or is gone.
    let _ = over.await;
    node.close().await;
    Ok(())
}

/// Two nodes on this machine, without routers.
pub async fn meet_here(
    caller: natpipe::peer::Builder,
    answerer: natpipe::peer::Builder,
    total: usize,
) -> Result<Outcome> {
    let (give, ticket) = mpsc::channel();
    let (arrived, first_byte) = mpsc::channel();
    let (over, all_over) = oneshot::channel();
    let answering = tokio::spawn(answer(answerer.start().await?, give, arrived, total, all_over));
    let caller = caller.start().await?;
    let ticket = tokio::task::spawn_blocking(move || ticket.recv()).await?.context("the other peer did not start")?;
    let called = call(caller, ticket, total, over, &|_| {}).await?;
    answering.await??;
    Ok(called.outcome(first_byte.recv().context("no byte came")?))
}

impl Called {
    fn outcome(self, first_byte: Instant) -> Outcome {
        let Self { begun, first, last, found, rates } = self;
        Outcome { first, last, first_byte: first_byte - begun, found, rates }
    }
}

struct Called {
    begun: Instant,
    first: PathInfo,
    last: PathInfo,
    found: Duration,
    rates: [f64; 2],
}

async fn call(
    node: Node,
    ticket: Ticket,
    total: usize,
    over: oneshot::Sender<()>,
    told: &(impl Fn(Event) + Sync),
) -> Result<Called> {
    let begun = Instant::now();
    let (give, mut events) = oneshot::channel::<broadcast::Receiver<Event>>();
    let watch = |heard| drop(give.send(heard));
    let peer = timeout(REACH, node.peer_watched(&ticket, watch)).await.context("no path was found in time")??;
    let first = peer.path().context("the path was lost at once")?;
    let pipe = peer.open(Over::Tcp, NetConf::default().recv_timeout(REACH))?;
    // The first byte goes over the first path; the rest over the best.
    let head = total.min(1);
    let mut found = begun.elapsed();
    let best = async {
        let mut paths = peer.paths();
        let better = |path: &Option<PathInfo>| path.as_ref().is_some_and(|path| path.kind != PathKind::Relay);
        if timeout(BETTER, paths.wait_for(better)).await.is_ok() && first.kind == PathKind::Relay {
            found = begun.elapsed();
        }
    };
    let head_sent = pipe.send(&[0_u8; 1][..head]);
    let (sent, ()) = tokio::join!(head_sent, best);
    sent?;
    let moving = async {
        let begun = Instant::now();
        pattern::send_from(&pipe, head, total).await?;
        let all = pipe.recv_within(REACH).await?;
        anyhow::ensure!(all.data.starts_with(b"all"), "the other end did not get everything");
        let up = begun.elapsed();
        pipe.put_back(natpipe::Message { data: all.data.slice(3..), ..all });
        let begun = Instant::now();
        pattern::check(&pipe, total).await?;
        anyhow::Ok([up, begun.elapsed()])
    };
    let took = timeout(MOVE, moving).await.context("the bytes took too long")??;
    let last = peer.path().context("the path was lost")?;
    if let Ok(events) = events.try_recv().as_mut() {
        while let Ok(event) = events.try_recv() {
            told(event);
        }
    }
    let _ = over.send(());
    peer.close().await;
    node.close().await;
    let rates = took.map(|took| total as f64 * 8.0 / took.as_secs_f64());
    Ok(Called { begun, first, last, found, rates })
}
