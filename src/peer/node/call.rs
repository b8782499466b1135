//! Waits: reaching a peer: all strategies race, the first path is used, better ones follow.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::doors::interfaces;
use super::inner::Inner;
use super::meeting::{Meet, Meeting};
use super::news::{self, Back, Elsewhere};
use super::relayed;
use super::secure::begin_stream;
use super::strategies::{Found, Strategy, direct, punch, relay, said};
use crate::base::task::{self, Nursery};
use crate::key::{PeerId, Ticket, TicketAddress};
use crate::nat::Proto;
use crate::net::Interface;
use crate::peer::greeting::{Greeting, Topic};
use crate::peer::session::{Keep, Role, SessionId, Shared};
use crate::peer::{Event, Multipath, PathInfo, PathKind, StrategyState};
use crate::rendezvous::Signal;

/// After a race that found only a relay, and after one that found nothing.
const UPGRADE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(1);

/// After this long without a path that is well, a lost one is looked for anew, and then after twice as long.
const FRUITLESS: Duration = Duration::from_millis(1500);

/// How long a rendezvous server that was lost is waited for.
const RECONNECT: Duration = Duration::from_secs(2);

/// How long we stay where nobody is any more whom we have called.
const LINGER: Duration = Duration::from_secs(5);

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
    /// It has called us, and takes no pipes: they are its to open. Who wants both ways calls it too.
    #[error("the peer has called us, and it is its end that opens pipes")]
    TheirsToOpen,
    /// The node was closed.
    #[error("the node was closed")]
    Closed,
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

impl Called {
    /// Waits for its first path, which is looked for already.
    pub(super) async fn reached(self) -> Result<Self, ConnectError> {
        let shared = &self.keep.0;
        let mut paths = shared.paths();
        if shared.had_a_path() {
            return Ok(self);
        }
        tokio::select! {
            biased;
            Ok(_) = paths.wait_for(Option::is_some) => {}
            ended = shared.over() => return Err(ended.into()),
        }
        Ok(self)
    }
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
    let session = SessionId(crate::peer::random().ok_or(ConnectError::NoRandomness)?);
    let keep = Shared::begin(&node.runtime, peer, session, Role::Caller, node.multipath, node.patience);
    let elsewhere = Arc::new(Elsewhere::than(ticket));
    let called = Called { keep, events };
    node.remember(&called, elsewhere.clone(), Meet::places(ticket));
    let (tell, told) = oneshot::channel();
    let race = Race {
        node: Arc::downgrade(node),
        session: Arc::downgrade(&called.keep.0),
        ticket: ticket.clone(),
        events: called.events.clone(),
        elsewhere,
        told: Mutex::default(),
        hearing: Mutex::new(Nursery::new(&node.runtime)),
    };
    task::drive(&node.runtime, race.keep_up(tell));
    tokio::select! {
        biased;
        // The race says why before it gives the session up.
        Ok(failures) = told => Err(if failures.0.is_empty() { ConnectError::NoWay } else { ConnectError::Failed(failures) }),
        reached = called.reached() => reached,
    }
}

/// What looks after a session that was called: it finds the first path, better ones, and others when they are lost.
struct Race {
    node: Weak<Inner>,
    session: Weak<Shared>,
    ticket: Ticket,
    events: broadcast::Sender<Event>,
    /// Where the peer is reached beside what its ticket says.
    elsewhere: Arc<Elsewhere>,
    /// Where the peer knows that we are reached.
    told: Mutex<Vec<TicketAddress>>,
    /// The conversations of the last race.
    hearing: Mutex<Nursery<()>>,
}

/// Either end's network is another one.
struct Changed {
    ours: watch::Receiver<u64>,
    theirs: watch::Receiver<u64>,
}

impl Changed {
    /// Cancel safe. Never, when nobody can tell any more.
    async fn changed(&mut self) {
        tokio::select! {
            Ok(()) = self.ours.changed() => {}
            Ok(()) = self.theirs.changed() => {}
            else => std::future::pending().await,
        }
    }
}

/// While so many strategies are being tried none is added for addresses that the peer tells: each is a socket.
const AT_ONCE: usize = 128;

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
        let node = self.node.clone();
        drop(self);
        // What it had to say last may still be on its way there, and it may be called again.
        sleep(LINGER).await;
        if let Some(node) = node.upgrade() {
            node.leave_unwanted().await;
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
        let Some(changes) = self.node.upgrade().map(|node| node.changes.subscribe()) else { return };
        let Some(moved) = self.session.upgrade().map(|session| session.moved.subscribe()) else { return };
        let mut elsewhere = Changed { ours: changes, theirs: moved };
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
                () = elsewhere.changed() => continue,
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
                // The caller may not wait any more. Others who do are told by the session's end.
                let _ = first.send(failures);
                self.session.upgrade().into_iter().for_each(|session| session.give_up());
                return;
            }
            first = None;
            if self.session.upgrade().is_none_or(|session| session.is_ending()) {
                return std::future::pending().await;
            }
            self.until_worth_another(&mut elsewhere).await;
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
    async fn until_worth_another(&self, elsewhere: &mut Changed) {
        let Some(session) = self.session.upgrade() else { return };
        let (path, ailing, mut paths) = (session.good_path(), session.ailing.clone(), session.paths());
        drop(session);
        let relayed = path.as_ref().is_some_and(|path| path.kind == PathKind::Relay);
        let bettered = path.as_ref().is_none_or(|path| !is_best(path));
        let limit = match path {
            None => AGAIN,
            Some(_) if relayed => UPGRADE,
            Some(_) => Duration::MAX,
        };
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(more) = self.node.upgrade().map(|node| node.more_addresses(&told)) else { return };
        let lost = paths.wait_for(|path| path.as_ref().is_none_or(|path| path.kind == PathKind::Relay && !relayed));
        tokio::select! {
            () = sleep(limit) => return,
            // Without any path the limit is enough.
            Ok(_) = lost, if limit != AGAIN => {}
            () = ailing.notified() => {}
            () = elsewhere.changed() => {}
            // Either end is reached in another way too.
            () = self.elsewhere.bell.notified(), if bettered => return,
            _ = more, if bettered => return,
        }
        if let Some(node) = self.node.upgrade() {
            node.check_meetings();
        }
    }

    /// All strategies once; returns when a path was found that none can better, or all have come to something.
    async fn run(&self, node: &Arc<Inner>, again: bool) -> Failures {
        let mut running: Nursery<(PathKind, Found)> = Nursery::new(&Handle::current());
        let (mut failures, mut waiting) = (Failures::default(), 0);
        let (more, mut to_begin) = mpsc::channel(8);
        let Some(id) = self.session.upgrade().map(|session| session.id) else { return failures };
        let _awaited = Awaited { node: node.clone(), id };
        *self.hearing.lock().unwrap_or_else(PoisonError::into_inner) = Nursery::new(&node.runtime);
        let mut tried = self.ticket.addresses().to_vec();
        tried.extend(self.elsewhere.addresses());
        waiting += self.begin_direct(node, id, &tried, &mut running);
        let mut meeting = std::pin::pin!(self.look(node, id, again, more));
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
                () = self.elsewhere.bell.notified(), if (!met || open || waiting > 0) && waiting < AT_ONCE => {
                    let fresh: Vec<_> = self.elsewhere.addresses().into_iter().filter(|a| !tried.contains(a)).collect();
                    waiting += self.begin_direct(node, id, &fresh, &mut running);
                    tried.extend(fresh);
                }
                Some((kind, found)) = running.next(), if waiting > 0 => {
                    waiting -= 1;
                    if self.found(kind, found, node.multipath, &mut failures) {
                        break;
                    }
                }
                else => break,
            }
            if self.session.strong_count() == 0 {
                break;
            }
        }
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
    fn found(&self, kind: PathKind, found: Found, multipath: Multipath, failures: &mut Failures) -> bool {
        match found {
            Ok((carrier, info)) => {
                self.tell(Event::Strategy { kind, state: StrategyState::Won });
                let Some(session) = self.session.upgrade() else { return true };
                let several = multipath != Multipath::Off;
                let best = is_best(&info) && !several;
                let one = info.remote.is_none_or(|to| self.node.upgrade().is_none_or(|node| node.locals(to).len() < 2));
                let wanted = session.would_gain(&info) || several && session.would_add(&info, one, &near(&info));
                wanted && session.attach(carrier, info) && best
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

    /// To every address where the peer is said to be, over both protocols.
    fn begin_direct(
        &self,
        node: &Arc<Inner>,
        id: SessionId,
        addresses: &[TicketAddress],
        running: &mut Nursery<(PathKind, Found)>,
    ) -> usize {
        let (peer, greeting) = (self.ticket.peer(), self.greeting(PathKind::Direct, id));
        let mut begun = 0;
        for address in addresses.iter().filter(|_| node.ways.direct) {
            for (proto, wanted) in [(Proto::Tcp, address.tcp), (Proto::Udp, address.udp)] {
                for from in node.locals(address.addr).into_iter().filter(|_| wanted) {
                    self.begin(running, PathKind::Direct, direct(node, peer, from, address.addr, proto, &greeting));
                    begun += 1;
                }
            }
        }
        begun
    }

    /// Looks for the peer on this network and at the places of its ticket.
    async fn look(
        &self,
        node: &Arc<Inner>,
        id: SessionId,
        again: bool,
        more: mpsc::Sender<(PathKind, Strategy)>,
    ) -> Vec<(PathKind, String)> {
        #[cfg(feature = "lan")]
        let near = super::near::seek(node, &self.ticket, self.greeting(PathKind::Direct, id), more.clone());
        #[cfg(not(feature = "lan"))]
        let near = async { Vec::new() };
        let (mut failures, unmet) = tokio::join!(near, self.meet(node, id, again, more));
        failures.extend(unmet);
        failures
    }

    /// Looks for the peer at all places of the ticket at once, and begins where it answers first what needs a conversation; a relay
    /// where there is one. What stays here are the conversations, as long as the strategies need them.
    async fn meet(
        &self,
        node: &Arc<Inner>,
        id: SessionId,
        again: bool,
        more: mpsc::Sender<(PathKind, Strategy)>,
    ) -> Vec<(PathKind, String)> {
        let mut failures = Vec::new();
        let places = Meet::places(&self.ticket);
        // With a choice, the peer has to show where it is; else there is nothing to wait for.
        let choice = places.len() > 1;
        let mut asking = Nursery::new(&Handle::current());
        for place in places {
            let (node, peer) = (node.clone(), self.ticket.peer());
            asking.begin(async move { (place.to_string(), ask(&node, &place, peer, choice, again).await) });
        }
        let mut begun = false;
        while !asking.is_empty() {
            let Some((place, met)) = asking.next().await else { continue };
            let at = match met {
                Ok((meeting, signal)) => {
                    self.meet_at(node, &meeting, signal, id, &more, !begun).await.map(|()| meeting)
                }
                Err(why) => Err(why),
            };
            match at {
                Ok(meeting) if meeting.relays() || !node.ways.relay => return failures,
                Ok(_) => begun = true,
                Err(why) => failures.push((PathKind::Relay, format!("{place}: {why}"))),
            }
        }
        if begun && node.turn.is_empty() {
            let why =
                "the places to meet are brokers, which relay nothing; a rendezvous server (--via natpipe://…) would";
            failures.push((PathKind::Relay, why.to_owned()));
        }
        failures
    }

    /// Begins what needs a conversation; only the relay, when the rest has begun elsewhere.
    async fn meet_at(
        &self,
        node: &Arc<Inner>,
        meeting: &Meeting,
        signal: Signal,
        id: SessionId,
        more: &mpsc::Sender<(PathKind, Strategy)>,
        first: bool,
    ) -> Result<(), String> {
        let peer = self.ticket.peer();
        let relayed = node.ways.relay && self.good_path().is_none();
        let relays = relayed && meeting.relays();
        if !first && !relays {
            return Ok(());
        }
        let kind = if relays { PathKind::Relay } else { PathKind::Reverse };
        let greeting = self.greeting(kind, id);
        let doors = node.doors.as_ref().filter(|_| node.ways.direct && first);
        let told = doors.map(|doors| doors.addresses(|i| node.wants(i))).unwrap_or_default();
        let addresses = told.iter().filter(|a| a.tcp).map(|a| a.addr).collect();
        let mut begun = None;
        if relays {
            begun = Some(begin_stream(&node.me, peer, signal.relay_stream().map_err(said)?).map_err(said)?);
        }
        let hello = begun.as_ref().map(|(hello, _)| hello.clone()).unwrap_or_default();
        let topic = Topic::Meet { greeting: greeting.clone(), hello, addresses };
        signal.send(topic.to_bytes()).await.map_err(said)?;
        let failed = self.hear(signal, first, &told);
        let send = |kind, strategy: Strategy| async move {
            // The race is over when nobody takes it.
            let _ = more.send((kind, strategy)).await;
        };
        if doors.is_some() {
            let (greeting, came) = (self.greeting(PathKind::Reverse, id), node.await_back(id));
            let back = Back { node: node.clone(), meeting: meeting.clone(), peer, greeting, told, came };
            send(PathKind::Reverse, Box::pin(back.reverse())).await;
        }
        if relayed && first {
            self.meet_at_turn(node, meeting, id, more).await?;
        }
        if let Some((_, begun)) = begun {
            let strategy: Strategy = Box::pin(async move { relay(begun, failed, &greeting).await });
            send(PathKind::Relay, strategy).await;
        }
        if node.ways.direct && first {
            let servers = self.ticket.servers().to_vec();
            for proto in [Proto::Udp, Proto::Tcp] {
                let kind = if proto == Proto::Udp { PathKind::UdpPunch } else { PathKind::TcpPunch };
                let signal = meeting.signal(peer).map_err(said)?;
                let (node, servers, greeting) = (node.clone(), servers.clone(), self.greeting(kind, id));
                let strategy: Strategy =
                    Box::pin(async move { punch(&node, &servers, peer, signal, proto, &greeting).await });
                send(kind, strategy).await;
            }
        }
        Ok(())
    }
}

impl Race {
    /// Goes on hearing what the peer says in a conversation; the receiver is told why it has failed.
    fn hear(&self, signal: Signal, first: bool, told: &[TicketAddress]) -> oneshot::Receiver<String> {
        if first {
            *self.told.lock().unwrap_or_else(PoisonError::into_inner) = told.to_vec();
        }
        let (fail, failed) = oneshot::channel();
        let mut hearing = self.hearing.lock().unwrap_or_else(PoisonError::into_inner);
        hearing.begin(news::hear(Arc::new(signal), self.elsewhere.clone(), fail));
        failed
    }

    /// At a TURN server of either end, which the place to meet has nothing to do with.
    async fn meet_at_turn(
        &self,
        node: &Arc<Inner>,
        meeting: &Meeting,
        id: SessionId,
        more: &mpsc::Sender<(PathKind, Strategy)>,
    ) -> Result<(), String> {
        let peer = self.ticket.peer();
        let mut signal = meeting.signal(peer).map_err(said)?;
        let (node, via, greeting) = (node.clone(), self.ticket.servers().to_vec(), self.greeting(PathKind::Relay, id));
        let strategy: Strategy =
            Box::pin(async move { relayed::call(&node, &via, peer, &mut signal, &greeting).await });
        // The race is over when nobody takes it.
        let _ = more.send((PathKind::Relay, strategy)).await;
        Ok(())
    }
}

/// While a race lasts its session is connected back to; nobody waits for that when it is over, or given up in the midst.
struct Awaited {
    node: Arc<Inner>,
    id: SessionId,
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.node.await_no_more(self.id);
    }
}

/// All addresses of the interface that a path leaves by.
fn near(path: &PathInfo) -> Vec<IpAddr> {
    let Some(local) = path.local.map(|local| local.ip().to_canonical()) else { return Vec::new() };
    let addresses = |interface: &Interface| interface.addrs().iter().map(|addr| addr.ip).collect::<Vec<_>>();
    let all = interfaces(|_| true);
    all.iter().map(addresses).find(|addresses| addresses.contains(&local)).unwrap_or_default()
}

/// Nothing that is still running can better it.
fn is_best(path: &PathInfo) -> bool {
    path.kind != PathKind::Relay && path.proto == Proto::Tcp
}

/// Begins to talk with the peer at a place; with a choice of places, waits until it has shown that it is there.
async fn ask(node: &Inner, place: &Meet, peer: PeerId, choice: bool, again: bool) -> Result<(Meeting, Signal), String> {
    let meeting = node.meeting(place).await.map_err(said)?;
    meeting.ready().await.map_err(said)?;
    // A server that was lost without a word would lose ours.
    if again && timeout(RECONNECT, meeting.checked()).await.is_err() {
        tracing::debug!(%place, "not connected");
    }
    let signal = meeting.signal(peer).map_err(said)?;
    if choice {
        let live = timeout(STRATEGY, signal.live()).await;
        live.map_err(|_| format!("the peer did not answer in {STRATEGY:?}"))?.map_err(said)?;
    }
    Ok((meeting, signal))
}
