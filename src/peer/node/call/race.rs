//! Waits: all strategies at once, the first path, better ones after it, and others when it is lost.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::base::task::Nursery;
use crate::key::TicketAddress;
use crate::nat::Proto;
use crate::net::Interface;
use crate::peer::greeting::Greeting;
use crate::peer::node::doors::interfaces;
use crate::peer::node::inner::Inner;
use crate::peer::node::strategies::{Found, Strategy, direct};
use crate::peer::session::SessionId;
use crate::peer::{Event, Multipath, PathInfo, PathKind, StrategyState};

use super::{Failures, Race};

/// After a race that found only a relay, and after one that found nothing.
const UPGRADE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(1);

/// For so long a first race begins anew with each change of the network; then it goes to its end, and who calls is told.
const FIRST: Duration = Duration::from_secs(60);

/// After this long without a path that is well, a lost one is looked for anew, and then after twice as long.
const FRUITLESS: Duration = Duration::from_millis(1500);

/// How long we stay where nobody is any more whom we have called.
const LINGER: Duration = Duration::from_secs(5);

/// How long one strategy may take.
pub(super) const STRATEGY: Duration = Duration::from_secs(25);

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
    pub(super) async fn keep_up(self, first: oneshot::Sender<Failures>) {
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

    pub(super) fn good_path(&self) -> Option<PathInfo> {
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
        let (begun, mut limit) = (Instant::now(), FRUITLESS);
        loop {
            let Some(node) = self.node.upgrade() else { return std::future::pending().await };
            if self.session.upgrade().is_none_or(|session| session.is_ending()) {
                return std::future::pending().await;
            }
            first = first.filter(|_| self.session.upgrade().is_some_and(|session| !session.had_a_path()));
            let failures = tokio::select! {
                failures = self.run(&node, first.is_none()) => failures,
                // What was begun on the network that was is of no use.
                () = elsewhere.changed(), if first.is_none() || begun.elapsed() < FIRST => continue,
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

    pub(super) fn greeting(&self, kind: PathKind, session: SessionId) -> Greeting {
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
