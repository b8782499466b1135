//! Waits: reaching a peer: all strategies race, the first path is used, better ones follow.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::answer::{punched_path, relay_path};
use super::doors::{endpoint_towards, knock};
use super::inner::{Inner, tcp_path};
use super::relayed;
use super::secure::{call_quic, call_stream};
use crate::base::task::{self, Nursery};
use crate::key::{PeerId, Ticket};
use crate::nat::Proto;
use crate::peer::greeting::{Greeting, Topic};
use crate::peer::session::{Carrier, Keep, Role, SessionId, Shared};
use crate::peer::{Event, PathInfo, PathKind, StrategyState, quic};
use crate::punch::Hole;
use crate::rendezvous::{Client, Signal};

/// Punching TCP begins this much after UDP, so that both do not take the same ports of a NAT that counts.
const TCP_LATER: Duration = Duration::from_millis(100);

/// After a race that found only a relay, and after one that found nothing.
const UPGRADE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(1);

/// How long the peer has to connect back: it tries for four seconds.
const BACK: Duration = Duration::from_secs(6);

/// After this long without a path that is well, a lost one is looked for anew, and then after twice as long.
const FRUITLESS: Duration = Duration::from_millis(1500);

/// How long a rendezvous server that was lost is waited for.
const RECONNECT: Duration = Duration::from_secs(2);

/// How long one strategy may take.
const STRATEGY: Duration = Duration::from_secs(25);

/// Why a peer can not be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The ticket is this node's own.
    #[error("the ticket is our own")]
    Ourselves,
    /// There is nothing to try: the ticket names no server and no address, or all were ruled out.
    #[error("there is no way to try: the ticket names no place to meet that may be used here")]
    NoWay,
    /// Every strategy came to nothing.
    #[error("no way to the peer was found: {0}")]
    Failed(Failures),
    /// It was reached and is gone again.
    #[error(transparent)]
    Ended(#[from] crate::peer::Ended),
    /// Too many pipes to this peer are open.
    #[error("too many pipes to this peer are open")]
    TooMany,
    /// No pipe can be made.
    #[error(transparent)]
    Pipe(#[from] crate::pipe::OpenError),
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    NoRandomness,
}

/// Each strategy that was tried, and why it came to nothing.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Failures(pub Vec<(PathKind, String)>);

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (kind, why)) in self.0.iter().enumerate() {
            write!(f, "{}{kind}: {why}", if at == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

/// A session that is called, and what is told of it.
#[derive(Clone)]
pub(super) struct Called {
    pub(super) keep: Arc<Keep>,
    pub(super) events: broadcast::Sender<Event>,
}

/// Begins a session and waits for its first path.
pub(super) async fn call(
    node: &Arc<Inner>,
    ticket: &Ticket,
    events: broadcast::Sender<Event>,
) -> Result<Called, ConnectError> {
    let peer = ticket.peer();
    if peer == node.me.peer_id() {
        return Err(ConnectError::Ourselves);
    }
    if let Some(keep) = node.called(peer).filter(|_| ticket.secret().is_none()) {
        return Ok(Called { keep, events });
    }
    let session = SessionId(crate::peer::random().ok_or(ConnectError::NoRandomness)?);
    let keep = Shared::begin(&node.runtime, peer, session, Role::Caller);
    node.remember(&keep);
    let (tell, told) = oneshot::channel();
    let race = Race {
        node: Arc::downgrade(node),
        session: Arc::downgrade(&keep.0),
        ticket: ticket.clone(),
        events: events.clone(),
    };
    task::drive(&node.runtime, race.keep_up(tell));
    let mut paths = keep.0.paths();
    tokio::select! {
        biased;
        reached = async { paths.wait_for(Option::is_some).await.is_ok() } => {
            if reached { Ok(Called { keep, events }) } else { Err(ConnectError::NoWay) }
        }
        Ok(failures) = told => Err(if failures.0.is_empty() { ConnectError::NoWay } else { ConnectError::Failed(failures) }),
    }
}

/// What looks after a session that was called: it finds the first path, better ones, and others when they are lost.
struct Race {
    node: Weak<Inner>,
    session: Weak<Shared>,
    ticket: Ticket,
    events: broadcast::Sender<Event>,
}

/// What a strategy has come to.
type Found = Result<(Carrier, PathInfo), String>;

impl Race {
    async fn keep_up(self, first: oneshot::Sender<Failures>) {
        let Some(mut ended) = self.session.upgrade().map(|session| session.ended()) else { return };
        let over = async move { ended.wait_for(Option::is_some).await.ok().and_then(|ended| *ended) };
        let told = async {
            let Some(mut paths) = self.session.upgrade().map(|session| session.paths()) else { return };
            while paths.changed().await.is_ok() {
                let path = paths.borrow_and_update().clone();
                self.tell(Event::Path(path));
            }
        };
        tokio::select! {
            ended = over => {
                if let Some(ended) = ended {
                    self.tell(Event::Ended(ended));
                }
            }
            () = async { tokio::join!(self.races(first), told); } => {}
        }
    }

    fn good_path(&self) -> Option<PathInfo> {
        self.session.upgrade()?.good_path()
    }

    fn tell(&self, event: Event) {
        // Nobody has to listen.
        let _ = self.events.send(event);
    }

    async fn races(&self, first: oneshot::Sender<Failures>) {
        let mut first = Some(first);
        let Some(mut changes) = self.node.upgrade().map(|node| node.changes.subscribe()) else { return };
        let mut limit = FRUITLESS;
        loop {
            let Some(node) = self.node.upgrade() else { return std::future::pending().await };
            if self.session.upgrade().is_none_or(|session| session.is_ending()) {
                return std::future::pending().await;
            }
            first = first.filter(|_| self.session.upgrade().is_some_and(|session| !session.had_a_path()));
            let failures = tokio::select! {
                failures = self.run(&node, first.is_none()) => failures,
                // What was begun on the network that was is of no use.
                Ok(()) = changes.changed() => continue,
                () = self.is_lost() => continue,
                () = self.is_fruitless(limit), if first.is_none() => {
                    limit = (limit * 2).min(STRATEGY);
                    continue;
                }
            };
            limit = FRUITLESS;
            drop(node);
            let Some(session) = self.session.upgrade() else { return };
            let path = session.path();
            drop(session);
            if path.is_none()
                && let Some(first) = first.take()
            {
                // The caller may not wait any more.
                let _ = first.send(failures);
                return;
            }
            first = None;
            if self.session.upgrade().is_none_or(|session| session.is_ending()) {
                return std::future::pending().await;
            }
            self.until_worth_another(&mut changes).await;
        }
    }

    /// Until there was a path, and it is gone.
    async fn is_lost(&self) {
        let Some(mut paths) = self.session.upgrade().map(|session| session.paths()) else { return };
        for is_due in [Option::is_some, Option::is_none] {
            if paths.wait_for(is_due).await.is_err() {
                return;
            }
        }
    }

    /// Until after some time there is no path that is well: the other end may not have heard us.
    async fn is_fruitless(&self, limit: Duration) {
        sleep(limit).await;
        while self.good_path().is_some() {
            sleep(limit).await;
        }
    }

    /// Until there is reason to look for ways again: none is left or the one in use falls silent, the network has changed, or
    /// only a relay was found and some time has passed.
    async fn until_worth_another(&self, changes: &mut watch::Receiver<u64>) {
        let Some(session) = self.session.upgrade() else { return };
        let (path, ailing, mut paths) = (session.good_path(), session.ailing.clone(), session.paths());
        drop(session);
        let relayed = path.as_ref().is_some_and(|path| path.kind == PathKind::Relay);
        let limit = match path {
            None => AGAIN,
            Some(_) if relayed => UPGRADE,
            Some(_) => Duration::MAX,
        };
        let lost = paths.wait_for(|path| path.as_ref().is_none_or(|path| path.kind == PathKind::Relay && !relayed));
        tokio::select! {
            () = sleep(limit) => return,
            // Without any path the limit is enough.
            Ok(_) = lost, if limit != AGAIN => {}
            () = ailing.notified() => {}
            Ok(()) = changes.changed() => {}
        }
        if let Some(node) = self.node.upgrade() {
            node.check_clients();
        }
    }

    /// All strategies once; returns when a path was found that none can better, or all have come to something.
    async fn run(&self, node: &Arc<Inner>, again: bool) -> Failures {
        let mut running: Nursery<(PathKind, Found)> = Nursery::new(&Handle::current());
        let (mut failures, mut waiting) = (Failures::default(), 0);
        let (more, mut to_begin) = mpsc::channel(8);
        let Some(id) = self.session.upgrade().map(|session| session.id) else { return failures };
        if node.ways.direct {
            waiting += self.begin_direct(node, id, &mut running);
        }
        let mut meeting = std::pin::pin!(self.meet(node, id, again, more));
        let (mut met, mut open) = (false, true);
        loop {
            tokio::select! {
                kept = &mut meeting, if !met => {
                    met = true;
                    failures.0.extend(kept);
                }
                begun = to_begin.recv(), if open => match begun {
                    Some((kind, strategy)) => {
                        waiting += 1;
                        self.begin(&mut running, kind, strategy);
                    }
                    None => open = false,
                },
                Some((kind, found)) = running.next(), if waiting > 0 => {
                    waiting -= 1;
                    if self.found(kind, found, &mut failures) {
                        break;
                    }
                }
                else => break,
            }
            if self.session.strong_count() == 0 {
                break;
            }
        }
        node.await_no_more(id);
        failures
    }

    fn begin(&self, running: &mut Nursery<(PathKind, Found)>, kind: PathKind, strategy: Strategy) {
        self.tell(Event::Strategy { kind, state: StrategyState::Started });
        running.begin(async move {
            let found = timeout(STRATEGY, strategy).await;
            (kind, found.unwrap_or_else(|_| Err(format!("nothing came of it in {STRATEGY:?}"))))
        });
    }

    /// A path is used when it is the first, or better than the one in use; true when none that is still looked for can be
    /// better.
    fn found(&self, kind: PathKind, found: Found, failures: &mut Failures) -> bool {
        match found {
            Ok((carrier, info)) => {
                self.tell(Event::Strategy { kind, state: StrategyState::Won });
                let best = is_best(&info);
                let session = self.session.upgrade();
                let used = session.is_some_and(|session| session.would_gain(&info) && session.attach(carrier, info));
                used && best
            }
            Err(why) => {
                self.tell(Event::Strategy { kind, state: StrategyState::Failed { why: why.clone() } });
                failures.0.push((kind, why));
                false
            }
        }
    }

    fn greeting(&self, kind: PathKind, session: SessionId) -> Greeting {
        Greeting { kind, session, secret: self.ticket.secret().cloned() }
    }

    /// To every address of the ticket, over both protocols.
    fn begin_direct(&self, node: &Arc<Inner>, id: SessionId, running: &mut Nursery<(PathKind, Found)>) -> usize {
        let (peer, greeting) = (self.ticket.peer(), self.greeting(PathKind::Direct, id));
        let mut begun = 0;
        for address in self.ticket.addresses() {
            if address.tcp {
                let (node, greeting, to) = (node.clone(), greeting.clone(), address.addr);
                let strategy = Box::pin(async move { direct_tcp(&node, peer, to, &greeting).await.map_err(said) });
                self.begin(running, PathKind::Direct, strategy);
                begun += 1;
            }
            if address.udp {
                let (node, greeting, to) = (node.clone(), greeting.clone(), address.addr);
                let strategy = Box::pin(async move { direct_quic(&node, peer, to, &greeting).await.map_err(said) });
                self.begin(running, PathKind::Direct, strategy);
                begun += 1;
            }
        }
        begun
    }

    /// Meets the peer at each server of the ticket, and begins there what needs a conversation. What stays here are the
    /// conversations, as long as the strategies need them.
    async fn meet(
        &self,
        node: &Arc<Inner>,
        id: SessionId,
        again: bool,
        more: mpsc::Sender<(PathKind, Strategy)>,
    ) -> Vec<(PathKind, String)> {
        let mut failures = Vec::new();
        for server in self.ticket.servers() {
            let met = match node.client(server).await {
                Ok(client) => {
                    // A server that was lost without a word would lose ours.
                    if again && timeout(RECONNECT, client.checked()).await.is_err() {
                        tracing::debug!(server = %server.authority(), "not connected");
                    }
                    self.meet_at(node, &client, id, &more).await
                }
                Err(error) => Err(error.to_string()),
            };
            match met {
                Ok(()) => return failures,
                Err(why) => failures.push((PathKind::Relay, format!("{}: {why}", server.authority()))),
            }
        }
        failures
    }

    async fn meet_at(
        &self,
        node: &Arc<Inner>,
        client: &Client,
        id: SessionId,
        more: &mpsc::Sender<(PathKind, Strategy)>,
    ) -> Result<(), String> {
        let peer = self.ticket.peer();
        let relayed = node.ways.relay && self.good_path().is_none();
        let kind = if relayed { PathKind::Relay } else { PathKind::Reverse };
        let greeting = self.greeting(kind, id);
        let doors = node.doors.as_ref().filter(|_| node.ways.direct);
        let addresses: Vec<SocketAddr> = doors
            .map(|doors| doors.addresses(|i| node.wants(i)))
            .unwrap_or_default()
            .iter()
            .filter(|a| a.tcp)
            .map(|a| a.addr)
            .collect();
        let signal = client.signal(peer).map_err(said)?;
        let topic = Topic::Meet { greeting: greeting.clone(), addresses: addresses.clone() };
        signal.send(topic.to_bytes()).await.map_err(said)?;
        let send = |kind, strategy: Strategy| async move {
            // The race is over when nobody takes it.
            let _ = more.send((kind, strategy)).await;
        };
        if !addresses.is_empty() {
            let (node, greeting, mut back) = (node.clone(), self.greeting(PathKind::Reverse, id), node.await_back(id));
            send(PathKind::Reverse, Box::pin(async move { reverse(&node, peer, &mut back, &greeting).await })).await;
        }
        if relayed {
            let caller = node.clone();
            let strategy: Strategy = Box::pin(async move { relay(&caller, peer, signal, &greeting).await });
            send(PathKind::Relay, strategy).await;
            self.meet_at_turn(node, client, id, more).await?;
        }
        if node.ways.direct {
            for proto in [Proto::Udp, Proto::Tcp] {
                let kind = if proto == Proto::Udp { PathKind::UdpPunch } else { PathKind::TcpPunch };
                let signal = client.signal(peer).map_err(said)?;
                let (node, client, greeting) = (node.clone(), client.clone(), self.greeting(kind, id));
                let strategy: Strategy =
                    Box::pin(async move { punch(&node, &client, peer, signal, proto, &greeting).await });
                send(kind, strategy).await;
            }
        }
        Ok(())
    }
}

impl Race {
    /// At a TURN server of either end, which the rendezvous server has nothing to do with.
    async fn meet_at_turn(
        &self,
        node: &Arc<Inner>,
        client: &Client,
        id: SessionId,
        more: &mpsc::Sender<(PathKind, Strategy)>,
    ) -> Result<(), String> {
        let peer = self.ticket.peer();
        let mut signal = client.signal(peer).map_err(said)?;
        let (node, via, greeting) = (node.clone(), [client.url().clone()], self.greeting(PathKind::Relay, id));
        let strategy: Strategy =
            Box::pin(async move { relayed::call(&node, &via, peer, &mut signal, &greeting).await });
        // The race is over when nobody takes it.
        let _ = more.send((PathKind::Relay, strategy)).await;
        Ok(())
    }
}

type Strategy = std::pin::Pin<Box<dyn Future<Output = Found> + Send>>;

fn said(error: impl fmt::Display) -> String {
    error.to_string()
}

/// Nothing that is still running can better it.
fn is_best(path: &PathInfo) -> bool {
    path.kind != PathKind::Relay && path.proto == Proto::Tcp
}

async fn direct_tcp(
    node: &Inner,
    peer: PeerId,
    to: SocketAddr,
    greeting: &Greeting,
) -> io::Result<(Carrier, PathInfo)> {
    let stream = knock(to).await?;
    let info = tcp_path(PathKind::Direct, &stream);
    Ok((call_stream(&node.me, peer, stream, greeting).await?, info))
}

async fn direct_quic(
    node: &Inner,
    peer: PeerId,
    to: SocketAddr,
    greeting: &Greeting,
) -> io::Result<(Carrier, PathInfo)> {
    let endpoint = endpoint_towards(to)?;
    let local = endpoint.local_addr().ok();
    let carrier = call_quic(&node.me, peer, endpoint, to, greeting).await?;
    Ok((carrier, PathInfo { kind: PathKind::Direct, proto: Proto::Udp, local, remote: Some(to), rtt: None }))
}

/// The peer has been told our addresses, and may connect back.
async fn reverse(node: &Inner, peer: PeerId, back: &mut mpsc::Receiver<TcpStream>, greeting: &Greeting) -> Found {
    let mut last = "the peer did not connect back".to_owned();
    while let Ok(Some(stream)) = timeout(BACK, back.recv()).await {
        let info = tcp_path(PathKind::Reverse, &stream);
        // It may be anybody who connects: only the peer can prove its key.
        match call_stream(&node.me, peer, stream, greeting).await {
            Ok(carrier) => return Ok((carrier, info)),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

async fn relay(node: &Inner, peer: PeerId, signal: Signal, greeting: &Greeting) -> Found {
    let stream = signal.relay_stream().map_err(said)?;
    let secured = call_stream(&node.me, peer, stream, greeting);
    // The conversation tells earlier than a stream could that the peer is not there.
    tokio::select! {
        carrier = secured => Ok((carrier.map_err(said)?, relay_path())),
        why = ends(&signal) => Err(why),
    }
}

/// Until a conversation that has nothing more to say ends with an error.
async fn ends(signal: &Signal) -> String {
    loop {
        if let Err(error) = signal.recv().await {
            return match error {
                // The peer has said all that it had to say.
                crate::rendezvous::SignalError::Ended => std::future::pending().await,
                error => error.to_string(),
            };
        }
    }
}

async fn punch(
    node: &Inner,
    client: &Client,
    peer: PeerId,
    mut signal: Signal,
    proto: Proto,
    greeting: &Greeting,
) -> Found {
    let tcp = proto == Proto::Tcp;
    if tcp {
        sleep(TCP_LATER).await;
    }
    signal.send(Topic::Punch { session: greeting.session, tcp }.to_bytes()).await.map_err(said)?;
    let puncher = node.puncher(std::slice::from_ref(client.url())).await;
    let punched = puncher.punch(proto, &mut signal).await.map_err(said)?;
    let info = punched_path(proto, punched.local, punched.peer);
    let carrier = match punched.hole {
        Hole::Udp(hole) => {
            let (endpoint, to) = quic::through(*hole, None).map_err(said)?;
            call_quic(&node.me, peer, endpoint, to, greeting).await
        }
        Hole::Tcp { stream } => call_stream(&node.me, peer, stream, greeting).await,
    };
    Ok((carrier.map_err(said)?, info))
}
