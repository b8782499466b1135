//! Waits: the state that a socket's handles and drivers share.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::runtime::Handle as Runtime;
use tokio::sync::{Notify, broadcast, oneshot, watch};

use super::desk::{Desk, Joined, Load, Outcome, PeerKey, Refused, Rules, Taken};
use super::inbox::{Handed, Inbox};
use super::lane::{Lane, Wish};
use super::options::{Acknowledge, Delivery, Options, SendMode};
use super::protocol::MessageId;
use super::{Cause, ConfirmError, Event, Identity, Payload, PeerInfo, SendError, SocketClosed};
use crate::base::attention::Attention;
use crate::base::task;

/// Events that are kept for who is slow to take them.
const EVENTS: usize = 256;

/// Where a socket is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Open,
    /// Nothing new is taken; what is on its way goes on.
    Lingering,
    Ended,
}

pub(crate) type Receipt = oneshot::Sender<Result<(), ConfirmError>>;

pub(crate) struct Core {
    pub(crate) options: Options,
    pub(crate) runtime: Runtime,
    pub(crate) inbox: Inbox,
    /// Calls the clerk: there is something to be sent again at an instant that it does not know of.
    pub(crate) clerk: Attention,
    desk: Mutex<Desk<Arc<Lane>>>,
    /// Something has left, was acknowledged or given up.
    progress: Notify,
    /// Connections without a greeting, the oldest first.
    greeting: Mutex<VecDeque<Arc<Lane>>>,
    receipts: Mutex<HashMap<u64, Receipt>>,
    /// Messages that were handed over and are acknowledged when the next is asked for.
    owed: Mutex<Vec<(PeerKey, MessageId)>>,
    events: broadcast::Sender<Event>,
    stage: watch::Sender<Stage>,
    closing: AtomicBool,
    tasks: watch::Sender<usize>,
    born: Instant,
}

impl Core {
    pub(crate) fn new(options: Options, runtime: Runtime) -> Self {
        Self {
            desk: Mutex::new(Desk::new(Rules::from(&options), rand::random())),
            inbox: Inbox::new(options.inbox),
            runtime,
            options,
            clerk: Attention::default(),
            progress: Notify::new(),
            greeting: Mutex::default(),
            receipts: Mutex::default(),
            owed: Mutex::default(),
            events: broadcast::Sender::new(EVENTS),
            stage: watch::Sender::new(Stage::Open),
            closing: AtomicBool::new(false),
            tasks: watch::Sender::new(0),
            born: Instant::now(),
        }
    }

    /// Starts a task that ends by the socket's stage.
    pub(crate) fn begin(self: &Arc<Self>, future: impl Future<Output = ()> + Send + 'static) {
        self.tasks.send_modify(|tasks| *tasks += 1);
        let counted = Counted(self.clone());
        task::drive(&self.runtime, async move {
            future.await;
            drop(counted);
        });
    }

    fn desk(&self) -> MutexGuard<'_, Desk<Arc<Lane>>> {
        lock(&self.desk)
    }

    /// Does something at the desk, and then what follows from it.
    pub(crate) fn at_desk<T>(&self, work: impl FnOnce(&mut Desk<Arc<Lane>>) -> T) -> T {
        let mut desk = self.desk();
        let done = work(&mut desk);
        let (woken, outcomes) = (desk.take_woken(), desk.take_outcomes());
        drop(desk);
        woken.iter().for_each(|lane| lane.call.raise());
        if !outcomes.is_empty() {
            self.settle(outcomes);
            self.progress.notify_waiters();
        }
        done
    }

    /// True of messages that are acknowledged.
    pub(crate) fn acknowledges(&self, to: Option<Identity>) -> bool {
        let publishes = self.options.mode == SendMode::Publish && to.is_none();
        self.options.delivery == Delivery::AtLeastOnce && !publishes
    }

    /// Takes a message, or says why not.
    pub(crate) fn try_send(
        &self,
        payload: &mut Payload<'_>,
        to: Option<Identity>,
        receipt: &mut Option<Receipt>,
    ) -> Result<Taken, SendError> {
        if payload.len() > self.options.max_message {
            return Err(SendError::TooLong { len: payload.len(), limit: self.options.max_message });
        }
        if self.closing.load(Ordering::Acquire) {
            return Err(SocketClosed.into());
        }
        // The clock is looked at only where it matters.
        let asks = self.acknowledges(to);
        let now = if asks { Instant::now() } else { self.born };
        let (taken, called) = self.at_desk(|desk| {
            let due = desk.poll_timeout();
            let taken = desk.send(now, payload, to);
            if let (Ok(Taken::Queued(Some(number))), Some(receipt)) = (&taken, receipt.take()) {
                lock(&self.receipts).insert(*number, receipt);
            }
            (taken, asks && desk.poll_timeout() != due)
        });
        if called {
            self.clerk.raise();
        }
        taken.map_err(|refused| match refused {
            Refused::Full => SendError::Full,
            Refused::NoDestination => SendError::NoDestination,
            Refused::NoSuchPeer => match to {
                Some(identity) => SendError::NoSuchPeer { identity },
                None => SendError::NoDestination,
            },
        })
    }

    /// Sends a message, waiting for room where that is the rule.
    pub(crate) async fn send(
        &self,
        mut payload: Payload<'_>,
        to: Option<Identity>,
        mut receipt: Option<Receipt>,
    ) -> Result<Taken, SendError> {
        match self.try_send(&mut payload, to, &mut receipt) {
            Err(SendError::Full) if self.options.when_full == super::WhenFull::Wait => {}
            done => return done,
        }
        loop {
            let mut progress = pin!(self.progress.notified());
            progress.as_mut().enable();
            match self.try_send(&mut payload, to, &mut receipt) {
                Err(SendError::Full) => progress.await,
                done => return done,
            }
        }
    }

    /// Tells those who wait for it what became of their messages.
    fn settle(&self, outcomes: Vec<Outcome>) {
        let mut receipts = lock(&self.receipts);
        for Outcome { number, given_up } in outcomes {
            let receipt = receipts.remove(&number);
            let told = match given_up {
                None => Ok(()),
                Some(given_up) => {
                    let (payload, tries) = (given_up.payload, given_up.tries);
                    self.tell(Event::GivenUp { payload: payload.clone(), to: given_up.to, tries });
                    Err(ConfirmError::GivenUp { tries, payload })
                }
            };
            if let Some(receipt) = receipt {
                // Who asked may have gone away.
                let _ = receipt.send(told);
            }
        }
    }

    /// Tells an event to whoever listens.
    pub(crate) fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// A connection begins. One that greets late may have to go.
    pub(crate) fn enter(&self, lane: &Arc<Lane>) {
        let mut greeting = lock(&self.greeting);
        greeting.push_back(lane.clone());
        let oldest = (greeting.len() > self.options.max_greeting).then(|| greeting.pop_front()).flatten();
        drop(greeting);
        if let Some(oldest) = oldest {
            oldest.end(Wish::Displace);
        }
        if self.stage() == Stage::Ended {
            lane.end(Wish::Close);
        }
    }

    /// It has greeted, or ended before.
    pub(crate) fn forget_greeting(&self, lane: &Arc<Lane>) {
        lock(&self.greeting).retain(|other| !Arc::ptr_eq(other, lane));
    }

    /// Makes a connection a peer.
    pub(crate) fn join(&self, lane: &Arc<Lane>, joined: Joined) -> Result<PeerKey, Cause> {
        let most = self.options.max_peers;
        let key = self.at_desk(|desk| {
            if desk.len() >= most {
                return Err(Cause::TooManyPeers(most));
            }
            desk.join(Instant::now(), joined, lane.clone()).map_err(|_| Cause::Double(joined.identity))
        })?;
        // Nobody else sets it.
        let _ = lane.identity.set(joined.identity);
        self.forget_greeting(lane);
        if self.stage() == Stage::Ended {
            lane.end(Wish::Close);
        }
        self.progress.notify_waiters();
        self.tell(Event::Connected { identity: joined.identity, addr: lane.addr.clone() });
        Ok(key)
    }

    /// A peer's connection is over.
    pub(crate) fn leave(&self, key: PeerKey, load: Load) {
        self.at_desk(|desk| desk.leave(Instant::now(), key, load));
        self.progress.notify_waiters();
    }

    /// Takes what a connection is to write next. False when there is nothing.
    pub(crate) fn take(&self, now: Instant, key: PeerKey, load: &mut Load) -> bool {
        let taken = self.desk().take(now, key, load);
        self.progress.notify_waiters();
        taken
    }

    /// What follows from handing a message over.
    pub(crate) fn handed(&self, handed: &Handed) {
        let Some(ack) = handed.ack else { return };
        match self.options.acknowledge {
            Acknowledge::Received => self.acknowledge([ack]),
            Acknowledge::NextAsked => lock(&self.owed).push(ack),
        }
    }

    /// The next message is asked for: what was handed over is done with.
    pub(crate) fn asked(&self) {
        if self.options.acknowledge == Acknowledge::NextAsked {
            let owed = std::mem::take(&mut *lock(&self.owed));
            self.acknowledge(owed);
        }
    }

    fn acknowledge(&self, acks: impl IntoIterator<Item = (PeerKey, MessageId)>) {
        self.at_desk(|desk| acks.into_iter().for_each(|(key, id)| desk.acknowledge(key, &id)));
    }

    /// This socket wants published messages of a topic, or no longer.
    pub(crate) fn want(&self, topic: Bytes, wanted: bool) {
        self.inbox.want(&topic, wanted);
        self.at_desk(|desk| desk.subscribe(topic, wanted));
    }

    pub(crate) fn counters(&self) -> super::Counters {
        super::Counters { filtered: self.inbox.filtered(), ..self.desk().counters() }
    }

    pub(crate) fn peers(&self) -> Vec<PeerInfo> {
        let desk = self.desk();
        let info = |peer: &super::desk::Peer<Arc<Lane>>| {
            let (received, received_bytes) = peer.link.received();
            let counters = super::PeerCounters { received, received_bytes, ..peer.counters };
            PeerInfo { identity: peer.identity, addr: peer.link.addr.clone(), counters }
        };
        desk.peers().map(info).collect()
    }

    pub(crate) fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    pub(crate) fn check_open(&self) -> Result<(), SocketClosed> {
        if self.closing.load(Ordering::Acquire) { Err(SocketClosed) } else { Ok(()) }
    }

    /// Waits until the socket has ended. Cancel safe.
    pub(crate) async fn ended(&self) {
        // The sender lives in `self`, so the wait does not fail; what it yields must not be held.
        drop(self.stage.subscribe().wait_for(|stage| *stage == Stage::Ended).await);
    }

    /// Takes nothing new from now on, and waits until everything has left and was acknowledged.
    pub(crate) async fn drain(&self) {
        self.closing.store(true, Ordering::Release);
        self.stage.send_if_modified(|stage| {
            let opens = *stage == Stage::Open;
            if opens {
                *stage = Stage::Lingering;
            }
            opens
        });
        self.progress.notify_waiters();
        loop {
            let mut progress = pin!(self.progress.notified());
            progress.as_mut().enable();
            if self.desk().is_drained() {
                return;
            }
            progress.await;
        }
    }

    /// Messages that are on their way.
    pub(crate) fn outstanding(&self) -> u64 {
        self.desk().outstanding()
    }

    /// Ends everything; does not wait.
    pub(crate) fn end(&self) {
        self.closing.store(true, Ordering::Release);
        self.stage.send_replace(Stage::Ended);
        let greeting = std::mem::take(&mut *lock(&self.greeting));
        let peers: Vec<_> = self.desk().peers().map(|peer| peer.link.clone()).collect();
        greeting.iter().chain(&peers).for_each(|lane| lane.end(Wish::Close));
        lock(&self.receipts).clear();
        self.inbox.close();
        self.progress.notify_waiters();
    }

    /// Waits until all tasks have ended.
    pub(crate) async fn done(&self) {
        drop(self.tasks.subscribe().wait_for(|tasks| *tasks == 0).await);
    }
}

/// Counts a task as long as it lives, though it should panic.
struct Counted(Arc<Core>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.tasks.send_modify(|tasks| *tasks -= 1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
