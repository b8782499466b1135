//! Waits: a session at work: its state behind one lock, and the paths that it has. `task` runs it, `ends` are its channels.

mod ends;
mod task;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};

use super::ProtocolError;
use super::buffers::Buffers;
use super::carry::Carrier;
use super::outlet::Outlet;
use super::path::{PathId, SessionId};
use super::record::Record;
use super::state::{Event, Multipath, Role, State};
use crate::base::bucket::Bucket;
use crate::base::task as tasks;
use crate::key::PeerId;
use crate::peer::{PathInfo, PathKind};
use task::run;

/// Paths that wait to be taken up by the session's task.
const NEW_PATHS: usize = 8;

/// Paths that are used at one time: the one in use, and as many as are kept beside it.
const PATHS: usize = 3;

/// How long a session that the peer has not greeted is kept without any path.
const UNGREETED: Duration = Duration::from_secs(30);

/// Words of the peer that it is elsewhere which are heeded at once in this time; later ones wait, and become one.
const MOVES: u64 = 6;
const MOVES_IN: Duration = Duration::from_secs(60);

/// How long a session may be kept without any path, at most.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// Paths that end before the peer has greeted on any: it is its answer to us.
const REFUSALS: u32 = 2;

/// How long the goodbye may take.
const PARTING: Duration = Duration::from_secs(30);

/// How long the last acknowledgements are given to arrive.
const LAST: Duration = Duration::from_secs(2);

/// A timer that is due this much sooner than it was is set anew.
const SOONER: Duration = Duration::from_millis(10);

/// Records that are given to a path at once, by their bytes.
const BATCH: usize = 256 << 10;

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// One end closed it, after everything was said.
    #[error("the connection to the peer was closed")]
    Closed,
    /// No path to the peer was left, and none was found for as long as the node has patience
    /// ([`Builder::patience`](crate::peer::Builder::patience)).
    #[error("the peer can not be reached any more")]
    Lost,
    /// The peer has turned us away: we are not among those that it allows, or the ticket was used before.
    #[error("the peer has turned us away: it does not allow us, or the ticket was used already")]
    Refused,
    /// The peer does not keep to the protocol.
    #[error("the peer does not keep to the protocol")]
    Protocol,
}

impl From<Ended> for io::Error {
    fn from(ended: Ended) -> Self {
        let kind = match ended {
            Ended::Closed => io::ErrorKind::BrokenPipe,
            Ended::Lost => io::ErrorKind::TimedOut,
            Ended::Refused => io::ErrorKind::PermissionDenied,
            Ended::Protocol => io::ErrorKind::InvalidData,
        };
        Self::new(kind, ended)
    }
}

/// What all who have to do with a session share.
pub(crate) struct Shared {
    pub(crate) peer: PeerId,
    pub(crate) id: SessionId,
    inner: Mutex<Inner>,
    new_paths: mpsc::Sender<(PathId, Carrier)>,
    /// Wakes the session's task: a timer may have changed, or it is over.
    bell: Notify,
    active: watch::Sender<Option<PathInfo>>,
    /// Rung when the path in use says nothing any more.
    pub(crate) ailing: Arc<Notify>,
    /// Counts how often the peer has said that it is elsewhere now, while no path was well.
    pub(crate) moved: watch::Sender<u64>,
    ended: watch::Sender<Option<Ended>>,
}

/// What its lock guards.
pub(super) struct Inner {
    pub(super) state: State,
    lines: BTreeMap<PathId, Line>,
    next_path: u64,
    readers: HashMap<u32, Waker>,
    writers: HashMap<u32, Waker>,
    acceptors: Vec<Waker>,
    /// Since when there is no path.
    orphaned: Option<Instant>,
    closing: Option<Instant>,
    /// How long it lives without any path, once the peer has greeted.
    patience: Duration,
    /// The number of the last word that the peer is elsewhere.
    last_move: Option<u64>,
    moves: Bucket,
    /// One that waits: whether the peer has left the paths, and when it is heeded.
    next_move: Option<(bool, Instant)>,
    refusals: u32,
    /// When the session's task wakes by itself.
    armed: Instant,
    ended: Option<Ended>,
}

/// One path, as the session sees it.
struct Line {
    info: PathInfo,
    /// There is something to write.
    bell: Arc<Notify>,
    /// It is to end.
    cut: Arc<Notify>,
    datagrams: Option<quinn::Connection>,
    /// Where much can be written at once.
    outlet: Option<Arc<Outlet>>,
}

/// Someone still has to do with the session: when the last of these is dropped, it says goodbye.
pub(crate) struct Keep(pub(crate) Arc<Shared>);

impl Drop for Keep {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Shared {
    /// A session and its task, which ends when the session is over.
    pub(crate) fn begin(
        runtime: &Handle,
        peer: PeerId,
        id: SessionId,
        role: Role,
        multipath: Multipath,
        patience: Duration,
    ) -> Arc<Keep> {
        let (new_paths, to_take) = mpsc::channel(NEW_PATHS);
        let now = Instant::now();
        let inner = Inner {
            state: State::new(role, id, now).with_multipath(multipath),
            lines: BTreeMap::new(),
            next_path: 0,
            readers: HashMap::new(),
            writers: HashMap::new(),
            acceptors: Vec::new(),
            orphaned: Some(now),
            closing: None,
            patience: patience.min(PATIENCE),
            last_move: None,
            moves: Bucket::per(MOVES, MOVES_IN, now),
            next_move: None,
            refusals: 0,
            armed: now,
            ended: None,
        };
        let shared = Arc::new(Self {
            peer,
            id,
            inner: Mutex::new(inner),
            new_paths,
            bell: Notify::new(),
            active: watch::Sender::new(None),
            ailing: Arc::default(),
            moved: watch::Sender::new(0),
            ended: watch::Sender::new(None),
        });
        tasks::drive(runtime, run(shared.clone(), to_take));
        Arc::new(Keep(shared))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One turn of the state; then those are woken whom it concerns.
    pub(super) fn with<R>(&self, turn: impl FnOnce(&mut Inner) -> R) -> R {
        self.with_but(None, turn)
    }

    /// The same, where one path's task need not be woken: what there is to say on it is said by the caller.
    fn with_but<R>(&self, path: Option<PathId>, turn: impl FnOnce(&mut Inner) -> R) -> R {
        let mut inner = self.lock();
        let done = turn(&mut inner);
        let woken = self.settle(&mut inner, path);
        drop(inner);
        woken.into_iter().for_each(Waker::wake);
        done
    }

    fn settle(&self, inner: &mut Inner, but: Option<PathId>) -> Vec<Waker> {
        let mut woken = Vec::new();
        while let Some(event) = inner.state.poll_event() {
            match event {
                Event::Readable(id) => woken.extend(inner.readers.remove(&id)),
                Event::Writable(id) => woken.extend(inner.writers.remove(&id)),
                Event::Opened => woken.append(&mut inner.acceptors),
                Event::Active(path) => {
                    let info = inner.lines.get(&path).map(|line| line.info.clone());
                    tracing::debug!(path = ?info, "the session goes this way now");
                    self.active.send_replace(info);
                }
                Event::Over(path) => inner.leave(path),
                Event::Ailing => {
                    tracing::debug!("the path in use says nothing any more");
                    self.ailing.notify_one();
                }
                Event::Closed => self.bell.notify_one(),
            }
        }
        // A path that is yet to be greeted takes over in a moment.
        if inner.lines.is_empty() && self.active.borrow().is_some() {
            self.active.send_replace(None);
            self.bell.notify_one();
        }
        for (id, line) in &inner.lines {
            if but != Some(*id) && inner.state.has_output(*id) {
                line.bell.notify_one();
            }
        }
        if inner.state.is_over() || inner.is_due_sooner() {
            self.bell.notify_one();
        }
        woken
    }

    // ---- paths

    /// Takes up an authenticated path; false when the session is over, or has too many.
    pub(crate) fn attach(&self, carrier: Carrier, info: PathInfo) -> bool {
        let datagrams = carrier.connection();
        let id = self.with(|inner| {
            let id = PathId(inner.next_path);
            inner.next_path += 1;
            let line =
                Line { info, bell: Arc::new(Notify::new()), cut: Arc::new(Notify::new()), datagrams, outlet: None };
            inner.state.attach(id, line.info.standing(), Instant::now());
            inner.lines.insert(id, line);
            id
        });
        let taken = self.new_paths.try_send((id, carrier)).is_ok();
        if !taken {
            self.detach(id);
        }
        taken
    }

    pub(super) fn detach(&self, id: PathId) {
        self.with(|inner| {
            inner.state.detach(id, Instant::now());
            inner.leave(id);
        });
    }

    /// The path in use now.
    pub(crate) fn path(&self) -> Option<PathInfo> {
        let inner = self.lock();
        let id = inner.state.active()?;
        let info = inner.lines.get(&id)?.info.clone();
        Some(PathInfo { rtt: inner.state.rtt(id), ..info })
    }

    /// All paths, the one in use first.
    pub(crate) fn all_paths(&self) -> Vec<PathInfo> {
        let inner = self.lock();
        let of = |(id, line): (&PathId, &Line)| PathInfo { rtt: inner.state.rtt(*id), ..line.info.clone() };
        let active = inner.state.active();
        let (mut first, others): (Vec<_>, Vec<_>) = inner.lines.iter().partition(|(id, _)| Some(**id) == active);
        first.extend(others);
        first.into_iter().map(of).collect()
    }

    /// Whether there ever was one.
    pub(crate) fn had_a_path(&self) -> bool {
        self.lock().next_path > 0
    }

    /// The path in use, if it is well.
    pub(crate) fn good_path(&self) -> Option<PathInfo> {
        let inner = self.lock();
        let id = inner.state.active().filter(|id| !inner.state.is_doubted(*id))?;
        inner.lines.get(&id).map(|line| line.info.clone())
    }

    /// Whether a path would be better than all that are well, those included that are yet to be greeted.
    pub(crate) fn would_gain(&self, info: &PathInfo) -> bool {
        let inner = self.lock();
        let mut well = inner.lines.iter().filter(|(id, _)| !inner.state.is_doubted(**id));
        well.all(|(_, line)| info.rank() < line.info.rank())
    }

    /// Whether a path would be one more of the kind that several are used of: not through a server, and from none of `near`, which
    /// are the addresses of the interface that it leaves by; or to another address of the peer's where we have `one` interface
    /// only.
    pub(crate) fn would_add(&self, info: &PathInfo, one: bool, near: &[IpAddr]) -> bool {
        let inner = self.lock();
        let ip = |addr: Option<SocketAddr>| addr.map(|addr| addr.ip().to_canonical());
        let shares = |line: &Line| match one {
            true => ip(line.info.remote) == ip(info.remote),
            false => {
                ip(line.info.local) == ip(info.local) || ip(line.info.local).is_some_and(|local| near.contains(&local))
            }
        };
        let shared = inner.lines.values().filter(|line| line.info.kind != PathKind::Relay).any(shares);
        info.kind != PathKind::Relay && !shared && inner.lines.len() < PATHS
    }

    /// The machine's network is another one now, with these addresses: a path from another one is gone, and each of the rest is
    /// asked whether it lives.
    pub(crate) fn handle_change(&self, here: &[IpAddr]) {
        self.with(|inner| {
            let is_gone = |line: &Line| line.info.local.is_some_and(|local| !is_here(local.ip(), here));
            let gone: Vec<PathId> = inner.lines.iter().filter(|(_, line)| is_gone(line)).map(|(id, _)| *id).collect();
            for id in gone {
                inner.state.detach(id, Instant::now());
                inner.leave(id);
            }
            inner.state.handle_change(Instant::now());
        });
        self.bell.notify_one();
    }

    /// The peer says, by another way than a path, that its network is another one; with `left` it is on none of the paths any
    /// more. False for an older word, of which nothing is made: it may have been played again.
    pub(crate) fn handle_moved(&self, number: u64, left: bool) -> bool {
        {
            let mut inner = self.lock();
            if inner.last_move.is_some_and(|last| number <= last) {
                return false;
            }
            inner.last_move = Some(number);
            let now = Instant::now();
            let due = inner.next_move.map_or_else(|| inner.moves.when(1, now), |(_, due)| due);
            inner.next_move = Some((left, due));
        }
        self.heed_move();
        self.bell.notify_one();
        true
    }

    /// Makes of the peer's last word what there is to make, if it is time.
    fn heed_move(&self) {
        let heeded = self.with(|inner| {
            let now = Instant::now();
            let (left, _) = inner.next_move.take_if(|(_, due)| *due <= now)?;
            inner.moves.take(1, now);
            if left {
                inner.state.handle_left(now);
            } else {
                inner.state.handle_change(now);
            }
            Some(left)
        });
        let Some(left) = heeded else { return };
        tracing::debug!(left, "the peer is elsewhere now");
        if self.good_path().is_none() {
            self.moved.send_modify(|moved| *moved += 1);
        }
    }

    /// Since when there is no path, if there is none.
    pub(crate) fn orphaned(&self) -> Option<Instant> {
        let inner = self.lock();
        inner.orphaned.filter(|_| inner.lines.is_empty())
    }

    /// Others need its place.
    pub(crate) fn give_up(&self) {
        self.end(Ended::Lost);
    }

    /// The path in use, and each change.
    pub(crate) fn paths(&self) -> watch::Receiver<Option<PathInfo>> {
        self.active.subscribe()
    }

    /// Why it is over, once it is.
    pub(crate) fn ended(&self) -> watch::Receiver<Option<Ended>> {
        self.ended.subscribe()
    }

    /// Waits until it is over: why.
    pub(crate) async fn over(&self) -> Ended {
        let mut ended = self.ended();
        let ended = ended.wait_for(Option::is_some).await.ok().and_then(|ended| *ended);
        // The sender lives in what is held here.
        ended.unwrap_or(Ended::Lost)
    }

    /// Which end of it this is.
    pub(crate) fn role(&self) -> Role {
        self.lock().state.role
    }

    /// The bells of a path: there is something to write, and it is to end.
    pub(super) fn bells(&self, id: PathId) -> Option<(Arc<Notify>, Arc<Notify>)> {
        let inner = self.lock();
        let line = inner.lines.get(&id)?;
        Some((line.bell.clone(), line.cut.clone()))
    }

    /// Where payloads are kept.
    pub(super) fn buffers(&self) -> Buffers {
        self.lock().state.buffers.clone()
    }

    /// What is said on this path can be written there from now on.
    pub(super) fn take_outlet(&self, id: PathId, outlet: &Arc<Outlet>) {
        if let Some(line) = self.lock().lines.get_mut(&id) {
            line.outlet = Some(outlet.clone());
        }
    }

    /// Appends what there is to say on a path, for one who comes again until there is nothing; with `anyway` an acknowledgement
    /// alone too.
    pub(super) fn fill(&self, id: PathId, anyway: bool, to: &mut Vec<Record>) {
        self.with_but(Some(id), |inner| {
            if !anyway && !inner.state.has_output(id) {
                return;
            }
            inner.state.begin_batch(Instant::now());
            let mut bytes = 0;
            while bytes < BATCH
                && let Some(record) = inner.state.poll_transmit(id)
            {
                bytes += record.len();
                to.push(record);
            }
        });
    }

    /// True when a path has only to say what is left.
    pub(super) fn has_ended(&self) -> bool {
        self.lock().ended.is_some()
    }

    /// Records that came on a path.
    pub(super) fn handle(&self, id: PathId, records: &mut Vec<Record>) -> Result<(), ProtocolError> {
        self.with(|inner| inner.handle(id, records))
    }

    /// The same, for one who writes on that path too: true when there is something to say now, of which nobody is told.
    pub(super) fn handle_and_ask(&self, id: PathId, records: &mut Vec<Record>) -> Result<bool, ProtocolError> {
        self.with_but(Some(id), |inner| inner.handle(id, records).map(|()| inner.state.has_output(id)))
    }

    /// A part of a record has come.
    pub(super) fn handle_heard(&self, id: PathId) {
        self.with(|inner| inner.state.handle_heard(id, Instant::now()));
    }

    /// The other end does not keep to the protocol.
    pub(super) fn refuse(&self, error: ProtocolError) {
        tracing::warn!(peer = %self.peer, %error, "the peer does not keep to the protocol");
        self.end(Ended::Protocol);
    }

    // ---- end

    /// True when it is over, or will be when everything is said: no other path is wanted.
    pub(crate) fn is_ending(&self) -> bool {
        let inner = self.lock();
        inner.ended.is_some() || inner.closing.is_some() || inner.state.is_over()
    }

    /// Says what is yet to be said, and then goodbye.
    pub(crate) fn close(&self) {
        self.with(|inner| {
            if inner.closing.is_none() {
                inner.closing = Some(Instant::now());
                inner.state.close();
            }
        });
        self.bell.notify_one();
    }
}

/// Whether this machine has an address; an unspecified one it always has.
fn is_here(ip: IpAddr, here: &[IpAddr]) -> bool {
    let ip = ip.to_canonical();
    ip.is_unspecified() || ip.is_loopback() || here.contains(&ip)
}

impl Inner {
    fn handle(&mut self, id: PathId, records: &mut Vec<Record>) -> Result<(), ProtocolError> {
        let now = Instant::now();
        records.drain(..).try_for_each(|record| self.state.handle_record(id, record, now))
    }

    /// True, once, when the session's task sleeps too long.
    fn is_due_sooner(&mut self) -> bool {
        let Some(due) = self.state.poll_timeout().filter(|due| *due + SOONER < self.armed) else { return false };
        let now = Instant::now();
        if self.armed <= now {
            // It wakes anyway, however late it is.
            return false;
        }
        self.armed = due.max(now);
        true
    }

    fn leave(&mut self, path: PathId) {
        if let Some(line) = self.lines.remove(&path) {
            line.cut.notify_one();
            self.refusals += u32::from(!self.state.is_greeted());
        }
        if self.lines.is_empty() && self.orphaned.is_none() {
            self.orphaned = Some(Instant::now());
        }
    }
}
