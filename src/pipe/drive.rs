//! Waits: the one task of a connected pipe: it reads, delivers, and ends everything at the end.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::core::{Core, Keep, Life};
use super::handle::Message;
use super::hub::{Listeners, Seen};
use super::mailbox::Mailbox;
use super::receive::{Receiving, Step};
use super::{End, Pipe, SendError, callbacks, join};

/// How long closing waits for the last bytes of a layer above the socket (TLS's goodbye).
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);
/// How long closing waits for one handler of the end.
const END_HANDLER_LIMIT: Duration = Duration::from_secs(5);

/// Runs a connected pipe from its first byte to its end.
pub(crate) async fn drive(core: Arc<Core>) {
    let _done = Done(core.clone());
    let end = unless_closing(&core, receive(&core)).await;
    core.life.send_modify(|life| life.ended = Some(end));
    end_queues(&core, end);
    // Whoever was linked while the end was on its way has what came before it coming.
    let listeners = core.hub.listeners();
    tokio::select! {
        biased;
        () = core.when(|life| life.closing) => {}
        () = hand_over(&core, &listeners) => {}
    }
    tell_links(&core, end, &listeners).await;
    run_ends(&core, end).await;
    if let Some(parent) = &core.parent {
        parent.release_client(core.id);
    }
    if end == End::Finished || (matches!(end, End::Broken(_)) && !core.conf.do_close) {
        // Sending may go on: a half-closed stream waits for its owner, or for its own last byte.
        let over = |life: &Life| life.closing || (life.write_finished && end == End::Finished);
        tokio::select! {
            () = core.when(over) => {}
            () = late_links(&core, end) => {}
        }
    }
    release(&core, end).await;
}

/// Runs `work` until its end, or until the pipe is to close and no handler of its own is in the way.
async fn unless_closing(core: &Arc<Core>, work: impl Future<Output = End>) -> End {
    let mut work = pin!(work);
    let mut watching = None;
    poll_fn(|cx| {
        if watching.as_ref().is_none_or(|known: &Waker| !known.will_wake(cx.waker())) {
            core.hub.attention.watch(cx);
            watching = Some(cx.waker().clone());
        }
        if core.is_closing_now() { Poll::Ready(End::Closed) } else { work.as_mut().poll(cx) }
    })
    .await
}

/// The listeners as the driver saw them last, of the pipe and of its server.
#[derive(Default)]
struct Ears {
    own: Seen,
    above: Seen,
}

/// Reads until the end, or leaves the reading to the receivers while nobody else listens. Each turn
/// reads once and delivers once; tokio's budget bounds a task's run.
async fn receive(core: &Arc<Core>) -> End {
    let (Some(transport), Some(receiving)) = (core.transport(), &core.receiving) else { return End::Closed };
    let mut ears = Ears::default();
    while !core.is_closing() {
        let listeners = ears.own.refresh(&core.hub);
        if core.only_receivers_listen(&listeners) {
            if let Some(end) = leave_to_receivers(core, receiving).await {
                return end;
            }
            continue;
        }
        if !listeners.is_empty() {
            hand_over(core, &listeners).await;
            if let Some(link) = join::target(core, &**transport, &listeners) {
                match join::splice(core, &**transport, &link).await {
                    Some(end) => return end,
                    None => continue,
                }
            }
        }
        // The task watches the attention flag already: see `unless_closing`.
        let step = poll_fn(|cx| match core.hub.attention.lower() {
            true => Poll::Ready(None),
            false => receiving.poll(core, &**transport, cx).map(Some),
        });
        match step.await {
            None | Some(Step::Dropped) => {}
            Some(Step::Message(message)) => deliver(core, &mut ears, message).await,
            Some(Step::Refused(error)) => core.hub.inbox.refuse(error),
            Some(Step::End(end)) => return end,
        }
    }
    End::Closed
}

/// Lets the receivers read until something changes; the end, if one came upon it.
async fn leave_to_receivers(core: &Arc<Core>, receiving: &Receiving) -> Option<End> {
    receiving.leave_to_receivers(true);
    core.hub.inbox.stir();
    core.hub.attention.wait().await;
    let still = core.only_receivers_listen(&core.hub.listeners()) && !core.is_closing();
    let end = receiving.end();
    if !still || end.is_some() {
        receiving.leave_to_receivers(false);
    }
    end
}

/// To the links, the handlers and the subscriptions, of the pipe and of its server, and to the inbox.
async fn deliver(core: &Arc<Core>, ears: &mut Ears, message: Message) {
    let own = ears.own.refresh(&core.hub);
    let mut heard = !own.is_empty();
    if heard {
        spread(core, core, &own, &message).await;
    }
    if let Some(parent) = &core.parent {
        let above = ears.above.refresh(&parent.hub);
        spread(core, parent, &above, &message).await;
        heard |= !above.is_empty() || parent.hub.is_claimed();
        if parent.hub.is_claimed() {
            put(core, &parent.hub.inbox, &message).await;
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
            () = core.hub.attention.wait() => {
                if core.is_closing() {
                    return;
                }
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
    if listeners.is_empty() {
        return;
    }
    while !core.hub.is_claimed() && !core.hub.inbox.is_empty() {
        let Some(Ok(message)) = core.hub.inbox.try_take() else { return };
        spread(core, core, listeners, &message).await;
    }
}

/// One message to the listeners of `owner`, which is the pipe itself or its server.
async fn spread(core: &Arc<Core>, owner: &Arc<Core>, listeners: &Listeners, message: &Message) {
    for link in &listeners.links {
        if let Err(error) = pass_on(core, link, &message.data).await {
            core.counters.dropped(1);
            // A datagram that is refused is one that is lost: the next may arrive.
            if matches!(error, SendError::Io { .. }) && link.is_datagram() {
                tracing::trace!(pipe = core.id, %error, "a linked pipe did not take a datagram");
                continue;
            }
            tracing::debug!(pipe = core.id, %error, "a linked pipe takes no more");
            owner.unlink(link);
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
            put(core, &sub.mailbox, message).await;
        }
    }
}

/// Puts a message in a queue. A pipe that is to close waits for no space in it.
async fn put(core: &Core, mailbox: &Mailbox<Message>, message: &Message) {
    let bytes = message.data.len();
    let dropped = match mailbox.try_put(&mut Some(message.clone()), bytes) {
        Some(dropped) => dropped,
        None => tokio::select! {
            biased;
            dropped = mailbox.put(message.clone(), bytes) => dropped,
            () = core.when(|life| life.closing) => 1,
        },
    };
    core.counters.dropped(dropped);
}

/// The longest datagram that UDP carries over IPv4: 65,535 bytes with both headers.
const LONGEST_DATAGRAM: usize = 65_507;

/// Sends to a linked pipe what came; of a stream's bytes no more in one datagram than it takes.
async fn pass_on(core: &Core, link: &Pipe, data: &[u8]) -> Result<(), SendError> {
    if data.len() <= LONGEST_DATAGRAM || core.is_datagram() || !link.is_datagram() {
        return link.send(data).await;
    }
    for part in data.chunks(LONGEST_DATAGRAM) {
        link.send(part).await?;
    }
    Ok(())
}

fn end_queues(core: &Core, end: End) {
    if let Some(receiving) = &core.receiving {
        receiving.leave_to_receivers(false);
    }
    core.hub.inbox.end(end);
    for sub in &core.hub.listeners().subs {
        sub.mailbox.end(end);
    }
}

/// Carries the end of this pipe over to those that it is linked to. One that was linked since the inbox was handed over is told
/// later, after what is left in it.
async fn tell_links(core: &Arc<Core>, end: End, listeners: &Listeners) {
    if listeners.links.len() == listeners.told.len() {
        return;
    }
    let mut left = Vec::new();
    core.hub.change(|now| left = now.begin_telling(&listeners.links));
    for link in &left {
        link.core().source_ended(end).await;
    }
    core.life.send_modify(|life| life.links_told += left.len());
}

/// Whoever links a pipe that has ended already gets what is left in the inbox, and the end.
async fn late_links(core: &Arc<Core>, end: End) {
    loop {
        let listeners = core.hub.listeners();
        hand_over(core, &listeners).await;
        tell_links(core, end, &listeners).await;
        core.hub.attention.wait().await;
    }
}

/// Runs the handlers of the end, those of the server after the pipe's own.
pub(crate) async fn run_ends(core: &Arc<Core>, end: End) {
    let mut handlers = core.hub.take_ends();
    if let Some(parent) = &core.parent {
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
    core.note_closing(false);
    core.hub.attention.raise();
    // A byte stream of the pipe keeps the turn for as long as it lives; it sees the closing by itself.
    let _turn = tokio::time::timeout(GOODBYE_LIMIT, core.writing()).await;
    let Some(transport) = core.take_transport() else { return };
    let resets = core.conf.socket.linger.is_some_and(|limit| limit.is_zero());
    if !resets && !matches!(end, End::Broken(_)) && !core.is_write_finished() {
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
        if core.life.borrow().keep != Keep::All {
            core.hub.clear();
        }
        if let Some(parent) = &core.parent {
            parent.forget(core.id);
        }
        if let Some(server) = &core.server {
            server.abandon(end);
        }
        core.note_closing(false);
        core.hub.attention.raise();
        core.life.send_modify(|life| {
            life.ended.get_or_insert(end);
            life.done = true;
        });
    }
}
