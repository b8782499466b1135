//! Holds: what all handles, sessions and listeners of a pool share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use tokio::sync::{broadcast, watch};

use super::member::Member;
use super::{Con, ConId, Event, Left, Meta, PoolConf, Router, event};
use crate::frame::ws::Close;

pub(super) struct Core {
    pub(super) name: Arc<str>,
    pub(super) router: Router,
    pub(super) conf: Arc<PoolConf>,
    members: RwLock<Members>,
    /// How many members there are, for those who wait for some.
    pub(super) count: watch::Sender<usize>,
    pub(super) events: broadcast::Sender<Event>,
    /// Why the pool is closed, once it is.
    pub(super) closing: watch::Sender<Option<Close>>,
    /// Tasks that are not yet done.
    pub(super) tasks: watch::Sender<usize>,
    /// What this end tells of itself, packed.
    pub(super) meta: Arc<OwnMeta>,
}

/// This end's metadata, which members that have to be told look up.
pub(super) struct OwnMeta(Mutex<Bytes>);

impl OwnMeta {
    /// Packed; nothing when there are none.
    pub(super) fn get(&self) -> Option<Bytes> {
        Some(self.lock().clone()).filter(|meta| !meta.is_empty())
    }

    fn lock(&self) -> MutexGuard<'_, Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Members {
    list: Vec<Arc<Member>>,
    places: HashMap<ConId, usize>,
}

impl Core {
    pub(super) fn new(name: &str, router: Router, conf: PoolConf) -> Arc<Self> {
        let meta = packed(&conf.meta);
        Arc::new(Self {
            name: name.into(),
            router,
            conf: Arc::new(conf),
            members: RwLock::default(),
            count: watch::Sender::new(0),
            events: broadcast::Sender::new(event::WAITING),
            closing: watch::Sender::new(None),
            tasks: watch::Sender::new(0),
            meta: Arc::new(OwnMeta(Mutex::new(meta))),
        })
    }

    /// Adds a member, unless there are as many as may be or the pool is closed.
    pub(super) fn add(&self, member: &Arc<Member>) -> bool {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        if members.list.len() >= self.conf.members || self.is_closed() {
            return false;
        }
        let place = members.list.len();
        members.places.insert(member.id, place);
        members.list.push(member.clone());
        drop(members);
        self.count.send_modify(|count| *count += 1);
        self.tell(Event::Joined(Con(member.clone())));
        true
    }

    pub(super) fn remove(&self, member: &Arc<Member>, left: Left) {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = members.places.remove(&member.id) else { return };
        members.list.swap_remove(place);
        if let Some(moved) = members.list.get(place).map(|moved| moved.id) {
            members.places.insert(moved, place);
        }
        drop(members);
        self.count.send_modify(|count| *count -= 1);
        self.tell(Event::Left(Con(member.clone()), left));
    }

    pub(super) fn tell(&self, event: Event) {
        // Nobody has to listen.
        let _heard = self.events.send(event);
    }

    /// Reads the list of members.
    pub(super) fn with<T>(&self, read: impl FnOnce(&[Arc<Member>]) -> T) -> T {
        read(&self.members.read().unwrap_or_else(PoisonError::into_inner).list)
    }

    pub(super) fn all(&self) -> Vec<Arc<Member>> {
        self.with(<[_]>::to_vec)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closing.borrow().is_some()
    }

    pub(super) fn is_full(&self) -> bool {
        self.with(|members| members.len() >= self.conf.members)
    }

    pub(super) fn set_meta(&self, meta: &Meta) {
        *self.meta.lock() = if meta.is_empty() { Bytes::from_static(b"\x80") } else { packed(meta) };
    }

    /// Closes the listeners, stops the clients, and says goodbye to the members.
    pub(super) fn begin_close(&self, close: &Close) {
        self.closing.send_if_modified(|closing| {
            let first = closing.is_none();
            closing.get_or_insert_with(|| close.clone());
            first
        });
        self.all().iter().for_each(|member| member.close(close.clone()));
    }

    /// Counts a task as long as the guard lives.
    pub(super) fn task(self: &Arc<Self>) -> TaskGuard {
        self.tasks.send_modify(|tasks| *tasks += 1);
        TaskGuard(self.clone())
    }

    /// Waits until the pool is closed. Cancel safe.
    pub(super) async fn closed(&self) {
        let mut closing = self.closing.subscribe();
        // The sender is in `self`, so it can not be gone.
        let _closing = closing.wait_for(Option::is_some).await.is_ok();
    }
}

pub(super) struct TaskGuard(Arc<Core>);

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.0.tasks.send_modify(|tasks| *tasks -= 1);
    }
}

fn packed(meta: &Meta) -> Bytes {
    let mut out = Vec::new();
    if !meta.is_empty() {
        let map = meta.iter().map(|(key, value)| (key.as_str().into(), value.clone())).collect();
        // Writing to memory does not fail.
        let _written = rmpv::encode::write_value(&mut out, &rmpv::Value::Map(map)).is_ok();
    }
    out.into()
}
