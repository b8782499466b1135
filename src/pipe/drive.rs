//! Waits: the one task of a connected pipe: it reads, delivers, and ends everything at the end.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::dedup::Window;
use super::handle::Message;
use super::hub::Listeners;
use super::transport::{Kind, Reader, Received};
use super::{Addr, End, callbacks, error, join};

/// How long closing waits for the last bytes of a layer above the socket (TLS's goodbye).
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);
/// How long closing waits for one handler of the end.
const END_HANDLER_LIMIT: Duration = Duration::from_secs(5);
/// Errors in a row, with no datagram between them, after which a datagram pipe counts as broken.
const DATAGRAM_ERRORS: u32 = 64;

/// Runs a connected pipe from its first byte to its end.
pub(crate) async fn drive(core: Arc<Core>) {
    let _done = Done(core.clone());
    let mut life = core.life.subscribe();
    let end = tokio::select! {
        biased;
        _ = life.wait_for(|life| life.closing && !life.by_handler) => End::Closed,
        end = receive(&core) => end,
    };
    core.life.send_modify(|life| life.ended = Some(end));
    end_queues(&core, end);
    tell_links(&core, end).await;
    run_ends(&core, end).await;
    if let Some(parent) = core.parent.upgrade() {
        parent.release_client(core.id);
    }
    if end == End::Finished || (matches!(end, End::Broken(_)) && !core.conf.do_close) {
        // Sending may go on: a half-closed stream waits for its owner, or for its own last byte.
        let _ = life.wait_for(|life| life.closing || (life.write_finished && end == End::Finished)).await;
    }
    release(&core, end).await;
}

/// Reads until the end. Each turn reads once and delivers once; tokio's budget bounds a task's run.
async fn receive(core: &Arc<Core>) -> End {
    let Some(transport) = core.transport() else { return End::Closed };
    let mut reader = Reader::new(reader_room(core, transport.kind()));
    let mut window = core.conf.enable_msg_ids.then(|| Window::new(core.conf.max_msg_ids));
    let mut errors = 0;
    loop {
        let listeners = core.hub.listeners();
        if !listeners.is_empty() {
            hand_over(core, &listeners).await;
            if let Some(link) = join::target(core, &*transport, &listeners) {
                match join::splice(core, &*transport, &link).await {
                    Some(end) => return end,
                    None => continue,
                }
            }
        }
        let received = tokio::select! {
            biased;
            received = poll_fn(|cx| transport.poll_recv(cx, &mut reader)) => received,
            () = core.hub.changed.notified() => continue,
        };
        match received {
            Ok(Received::End) => return End::Finished,
            Ok(Received::Data(data, from)) => {
                errors = 0;
                let from = from.or_else(|| core.peer.clone()).unwrap_or(Addr::Unnamed);
                take(core, Message { data, from }, &mut window).await;
            }
            Err(error) => match survive(core, transport.kind(), &error, &mut errors) {
                Some(end) => return end,
                None => continue,
            },
        }
        if core.is_closing() {
            return End::Closed;
        }
    }
}

/// Room for one read: a datagram is read whole whatever `reader_limit` says, to know that it is too long.
fn reader_room(core: &Core, kind: Kind) -> usize {
    match kind {
        Kind::Stream => core.conf.reader_limit,
        Kind::Datagram => core.conf.reader_limit.max(1 << 16),
    }
}

/// An error ends a stream; of datagrams one is told to the receiver, and many in a row are the end.
fn survive(core: &Core, kind: Kind, error: &io::Error, errors: &mut u32) -> Option<End> {
    *errors += 1;
    if kind == Kind::Stream || *errors > DATAGRAM_ERRORS {
        tracing::debug!(pipe = core.id, %error, "the pipe broke");
        return Some(End::Broken(error.kind()));
    }
    core.counters.failed();
    core.hub.inbox.refuse(error::refused(core.peer.as_ref().and_then(Addr::ip), error));
    None
}

/// Counts a message, drops it where it is a duplicate or too long, and delivers it otherwise.
async fn take(core: &Arc<Core>, message: Message, window: &mut Option<Window>) {
    core.count_in(message.data.len());
    if message.data.len() > core.conf.reader_limit {
        core.counters.dropped(1);
    } else if window.as_mut().is_some_and(|window| !window.is_new(&message.from, &message.data)) {
        core.counters.duplicate();
    } else {
        deliver(core, message).await;
    }
}

/// To the links, the handlers and the subscriptions, of the pipe and of its server, and to the inbox.
async fn deliver(core: &Arc<Core>, message: Message) {
    let own = core.hub.listeners();
    spread(core, core, &own, &message).await;
    let mut heard = !own.is_empty();
    if let Some(parent) = core.parent.upgrade() {
        let above = parent.hub.listeners();
        spread(core, &parent, &above, &message).await;
        heard |= !above.is_empty() || parent.hub.is_claimed();
        if parent.hub.is_claimed() {
            let bytes = message.data.len();
            core.counters.dropped(parent.hub.inbox.put(message.clone(), bytes).await);
        }
    }
    if !heard || core.hub.is_claimed() {
        put_inbox(core, message).await;
    }
}

/// Puts a message in the inbox. A listener that comes while it waits for space ends the wait: what
/// waits in the inbox is the listener's then.
async fn put_inbox(core: &Arc<Core>, message: Message) {
    let bytes = message.data.len();
    let mut message = Some(message);
    if let Some(dropped) = core.hub.inbox.try_put(&mut message, bytes) {
        core.counters.dropped(dropped);
        return;
    }
    let Some(message) = message else { return };
    loop {
        tokio::select! {
            biased;
            _ = core.hub.inbox.put(message.clone(), bytes) => return,
            () = core.hub.changed.notified() => {
                let listeners = core.hub.listeners();
                if !listeners.is_empty() && !core.hub.is_claimed() {
                    hand_over(core, &listeners).await;
                    return spread(core, core, &listeners, &message).await;
                }
            }
        }
    }
}

/// Gives what the inbox holds to the first listeners, if nobody has called `recv` yet.
async fn hand_over(core: &Arc<Core>, listeners: &Listeners) {
    while !core.hub.is_claimed() && !core.hub.inbox.is_empty() {
        let Some(Ok(message)) = core.hub.inbox.try_take() else { return };
        spread(core, core, listeners, &message).await;
    }
}

/// One message to the listeners of `owner`, which is the pipe itself or its server.
async fn spread(core: &Arc<Core>, owner: &Arc<Core>, listeners: &Listeners, message: &Message) {
    for link in &listeners.links {
        if let Err(error) = link.send(&message.data).await {
            tracing::debug!(pipe = core.id, %error, "a linked pipe takes no more");
            core.counters.dropped(1);
            owner.hub.change(|listeners| listeners.links.retain(|other| !other.is_same(link)));
        }
    }
    for (_, handler) in &listeners.handlers {
        let Some(pipe) = core.handle() else { return };
        let pipe = if core.peer.is_none() { pipe.answering(message.from.clone()) } else { pipe };
        let (data, from) = (message.data.clone(), message.from.clone());
        core.note(callbacks::run(core.id, || handler(data, from, pipe)).await);
    }
    for sub in &listeners.subs {
        if sub.filter.takes(&message.data, &message.from) {
            core.counters.dropped(sub.mailbox.put(message.clone(), message.data.len()).await);
        }
    }
}

fn end_queues(core: &Core, end: End) {
    core.hub.inbox.end(end);
    for sub in &core.hub.listeners().subs {
        sub.mailbox.end(end);
    }
}

/// Carries the end of this pipe over to those that it is linked to.
async fn tell_links(core: &Arc<Core>, end: End) {
    for link in &core.hub.listeners().links {
        link.core().source_ended(end).await;
    }
}

/// Runs the handlers of the end, those of the server after the pipe's own.
pub(crate) async fn run_ends(core: &Arc<Core>, end: End) {
    let mut handlers = core.hub.take_ends();
    if let Some(parent) = core.parent.upgrade() {
        handlers.extend(parent.hub.ends());
    }
    for handler in handlers {
        match tokio::time::timeout(END_HANDLER_LIMIT, callbacks::run(core.id, || handler(end))).await {
            Ok(ran) => core.note(ran),
            Err(_) => tracing::warn!(pipe = core.id, limit = ?END_HANDLER_LIMIT, "an end handler was given up"),
        }
    }
}

/// Says goodbye and lets go of the socket, once nobody is in the middle of writing.
async fn release(core: &Arc<Core>, end: End) {
    core.begin_close();
    let _turn = core.writer.lock().await;
    let Some(transport) = core.take_transport() else { return };
    if !matches!(end, End::Broken(_)) && !core.life.borrow().write_finished {
        let goodbye = poll_fn(|cx| transport.poll_finish(cx));
        let _ = tokio::time::timeout(GOODBYE_LIMIT, goodbye).await;
    }
}

/// Marks the pipe as done however its driver ends, also when its runtime is shut down.
pub(crate) struct Done(pub(crate) Arc<Core>);

impl Drop for Done {
    fn drop(&mut self) {
        let core = &self.0;
        drop(core.take_transport());
        let end = core.end().unwrap_or(End::Closed);
        end_queues(core, end);
        core.hub.clear();
        if let Some(parent) = core.parent.upgrade() {
            parent.forget(core.id);
        }
        core.life.send_modify(|life| {
            life.closing = true;
            life.ended.get_or_insert(end);
            life.done = true;
        });
    }
}
