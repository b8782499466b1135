//! Waits: the task of one connection, which does all its reading, writing and routing.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use futures_util::stream::SelectAll;
use tokio::time::{Instant, Sleep};

use super::call::Call;
use super::core::{Core, TaskGuard};
use super::envelope::{self, Envelope, Tag};
use super::member::{Member, Part, Taken};
use super::wire::{Heard, Wire};
use super::{Con, Event, Left, Meta, Packed, router};
use crate::frame::ws::{Close, WsError};

/// Messages read, sent and answered in one go, before the others get their turn.
const BATCH: usize = 64;
/// Rounds of a turn, before other tasks get theirs.
const ROUNDS: usize = 16;

/// A member's connection. It ends by itself when the connection has, and dropping it ends the member.
pub(super) struct Session {
    core: Arc<Core>,
    member: Arc<Member>,
    wire: Wire,
    calls: SelectAll<Call>,
    /// Frames that are taken from the member's queue at once.
    taken: Vec<Bytes>,
    /// An answer for which its asker has no room yet: nothing is read meanwhile.
    held: Option<(Tag, Part)>,
    /// Bytes given to the wire that the system may not have taken yet.
    unsent: usize,
    tick: Pin<Box<Sleep>>,
    heard: bool,
    silent: u32,
    /// What the system had taken at the last tick, and how many ticks ago that was.
    written: u64,
    stuck: u32,
    first: bool,
    /// Until when what is queued may go out, and then the goodbye, once the pool or its user has closed the member.
    parting: Option<Pin<Box<Sleep>>>,
    goodbye: Option<Goodbye>,
    left: Option<Left>,
    _task: TaskGuard,
}

/// A close that has been said, and until when the peer's is waited for; or, on a wire that has no word for it, until all is sent.
struct Goodbye {
    close: Close,
    is_answered: bool,
    until: Pin<Box<Sleep>>,
}

impl Session {
    /// A session for a member that the pool has taken; it tells this end's metadata first.
    pub(super) fn new(core: &Arc<Core>, member: Arc<Member>, wire: Wire) -> Self {
        let mut session = Self {
            tick: Box::pin(tokio::time::sleep(core.conf.ping)),
            _task: core.task(),
            core: core.clone(),
            member,
            wire,
            calls: SelectAll::new(),
            taken: Vec::new(),
            held: None,
            unsent: 0,
            heard: false,
            silent: 0,
            written: 0,
            stuck: 0,
            first: true,
            parting: None,
            goodbye: None,
            left: None,
        };
        if session.member.birth.kin
            && let Some(meta) = core.meta.get()
        {
            session.put(envelope::metadata(&meta));
        }
        session
    }

    /// Gives a frame to the wire. A wire that is closed takes none; why, it tells when it is read.
    fn put(&mut self, frame: Bytes) {
        self.unsent += frame.len();
        if let Err(error) = self.wire.start_send(frame) {
            tracing::trace!(%error, "a frame for a wire that is closed");
        }
    }

    /// Whether more may be given to the wire.
    fn has_room(&self) -> bool {
        self.unsent < self.core.conf.queue.bytes
    }

    /// Whether nothing is read now: an asker has no room, too much waits to be sent, or too many routers run.
    fn is_deaf(&self) -> bool {
        self.held.is_some() || !self.has_room() || self.calls.len() >= self.core.conf.calls
    }

    /// Gives what is queued to the wire; true when more may be queued.
    fn take_out(&mut self) -> bool {
        if !self.has_room() || self.goodbye.is_some() {
            return false;
        }
        let mut taken = std::mem::take(&mut self.taken);
        self.member.take_out(&mut taken, BATCH);
        let more = taken.len() == BATCH;
        taken.drain(..).for_each(|frame| self.put(frame));
        self.taken = taken;
        more
    }

    /// Reads what has come; true when more may have come.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, Left> {
        if let Some((tag, part)) = self.held.take() {
            self.answered(tag, part, cx);
        }
        for _ in 0..BATCH {
            if self.is_deaf() {
                return Ok(false);
            }
            match self.wire.poll_next(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(heard) => self.take_in(heard, cx)?,
            }
            self.heard = true;
        }
        Ok(true)
    }

    fn take_in(&mut self, heard: Option<Result<Heard, WsError>>, cx: &mut Context<'_>) -> Result<(), Left> {
        match heard {
            Some(Ok(Heard::Data(data))) => self.data(&data, cx),
            Some(Ok(Heard::Text)) => {
                self.bid(Close::new(Close::UNSUPPORTED, "maps in MessagePack come as binary messages"))
            }
            Some(Ok(Heard::Alive)) => {}
            Some(Ok(Heard::Close(close))) => {
                let left = self.goodbye.take().map_or(Left::Closed(close), |ours| Left::ByUs(ours.close));
                self.left.get_or_insert(left);
            }
            Some(Err(error)) => return Err(self.ended(Some(&error))),
            None => return Err(self.ended(None)),
        }
        Ok(())
    }

    fn ended(&mut self, error: Option<&WsError>) -> Left {
        if let Some(left) = self.left.take() {
            return left;
        }
        if let Some(goodbye) = self.goodbye.take() {
            return Left::ByUs(goodbye.close);
        }
        match error {
            Some(error) => Left::Broken(error.to_string()),
            None => Left::Closed(Close::new(Close::NONE, "")),
        }
    }

    /// Begins to say goodbye; the first word counts.
    fn bid(&mut self, close: Close) {
        if self.goodbye.is_some() || self.left.is_some() {
            return;
        }
        let is_answered = self.wire.start_close(close.clone());
        let until = self.parting.take().unwrap_or_else(|| self.patience());
        self.goodbye = Some(Goodbye { close, is_answered, until });
    }

    /// For how long a goodbye is waited for.
    fn patience(&self) -> Pin<Box<Sleep>> {
        Box::pin(tokio::time::sleep(self.core.conf.goodbye))
    }

    fn data(&mut self, data: &Bytes, cx: &mut Context<'_>) {
        if self.goodbye.is_some() {
            return;
        }
        let mut envelope = match envelope::parse(data) {
            Ok(envelope) => envelope,
            Err(bad) => {
                let code = if bad == envelope::Bad::NoMap { Close::INVALID } else { Close::POLICY };
                return self.bid(Close::new(code, bad.to_string()));
            }
        };
        self.take_meta(&mut envelope);
        if let Some(tag) = envelope.rtag {
            return self.reply(tag, envelope, cx);
        }
        if let Some(tag) = &envelope.ctag {
            self.cancel(tag);
        }
        if let Some(msg) = envelope.msg {
            self.route(msg, envelope.stag, cx);
        }
    }

    /// Metadata stand at the top of a map, or within the message of the first request.
    fn take_meta(&mut self, envelope: &mut Envelope) {
        let mut found = envelope.meta.take().map(Packed::checked);
        if self.first
            && let Some(msg) = envelope.msg.as_ref().filter(|_| envelope.rtag.is_none())
        {
            self.first = false;
            found = found.or_else(|| within(msg));
        }
        let Some(found) = found else { return };
        if found.as_bytes().len() > self.core.conf.max_meta {
            return self.bid(Close::new(Close::POLICY, "the metadata are too long"));
        }
        if let Ok(meta) = found.get::<Meta>()
            && self.member.set_meta(meta)
        {
            self.core.tell(Event::Changed(Con(self.member.clone())));
        }
    }

    fn reply(&mut self, tag: Option<Tag>, envelope: Envelope, cx: &mut Context<'_>) {
        let Some(tag) = tag else { return };
        let (Envelope { msg, done, count, eof, err, .. }, plain) = (envelope, Packed::checked);
        let part = Part { msg: msg.filter(|_| !eof).map(plain), done: done.unwrap_or(true), count, err };
        self.answered(tag, part, cx);
    }

    fn answered(&mut self, tag: Tag, part: Part, cx: &mut Context<'_>) {
        match self.member.answered(&tag, &part, cx) {
            Taken::Done => {}
            Taken::Later => self.held = Some((tag, part)),
            Taken::Nobody => tracing::trace!("an answer to a question that nobody asks (any more)"),
        }
    }

    /// Calls the router; what it answers at once is sent at once.
    fn route(&mut self, msg: Bytes, stag: Option<Bytes>, cx: &mut Context<'_>) {
        let core = &self.core;
        let ctx = router::Context { pool: core.name.clone(), con: Con(self.member.clone()) };
        let route = || core.router.route(ctx, Packed::checked(msg));
        let mut call = Call::begin(route, stag, core.conf.router, core.conf.max_message);
        for _ in 0..BATCH {
            match Pin::new(&mut call).poll_next(cx) {
                Poll::Ready(Some(frame)) => self.put(frame),
                Poll::Ready(None) => return,
                Poll::Pending => break,
            }
        }
        self.calls.push(call);
    }

    fn cancel(&mut self, tag: &Bytes) {
        if self.calls.iter().any(|call| call.tag.as_ref() == Some(tag)) {
            let calls = std::mem::take(&mut self.calls);
            self.calls = calls.into_iter().filter(|call| call.tag.as_ref() != Some(tag)).collect();
        }
    }

    /// Takes what routers have answered; true when there may be more.
    fn run_calls(&mut self, cx: &mut Context<'_>) -> bool {
        for _ in 0..BATCH {
            if !self.has_room() || self.calls.is_empty() {
                return false;
            }
            match Pin::new(&mut self.calls).poll_next(cx) {
                Poll::Ready(Some(frame)) => self.put(frame),
                Poll::Ready(None) | Poll::Pending => return false,
            }
        }
        true
    }

    fn flush(&mut self, cx: &mut Context<'_>) {
        match self.wire.poll_flush(cx) {
            Poll::Ready(Ok(())) => self.unsent = 0,
            Poll::Pending => self.unsent = self.unsent.max(1),
            // Reading tells it too, and with what the peer said last.
            Poll::Ready(Err(error)) => tracing::trace!(%error, "a flush failed"),
        }
    }

    /// Looks after a peer that says nothing, and one that takes nothing. What has come was read before.
    fn tick(&mut self, cx: &mut Context<'_>) -> Result<(), Left> {
        if self.tick.as_mut().poll(cx).is_pending() {
            return Ok(());
        }
        // Who was not let run for long has missed ticks. The others are not to blame for them: one counts.
        let next = Instant::now() + self.core.conf.ping;
        self.tick.as_mut().reset(next);
        if self.tick.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        let dead = self.core.conf.silent();
        let written = self.wire.written();
        self.stuck = if self.unsent == 0 || written != self.written { 0 } else { self.stuck + 1 };
        self.written = written;
        if self.stuck >= dead {
            return Err(self.goodbye.take().map_or(Left::Stuck, |ours| Left::ByUs(ours.close)));
        }
        // While this end does not read, the silence is its own; the peer still has to hear from it.
        let deaf = self.is_deaf();
        let silent = !std::mem::take(&mut self.heard);
        self.silent = if silent && !deaf { self.silent + 1 } else { 0 };
        if (silent || deaf) && self.goodbye.is_none() {
            let expected = self.wire.ping().map_err(|error| self.ended(Some(&error)))?;
            self.silent = if expected { self.silent } else { 0 };
            self.flush(cx);
        }
        if self.silent >= dead.max(2) { Err(Left::Dead) } else { Ok(()) }
    }

    fn close(&mut self, cx: &mut Context<'_>) -> Result<(), Left> {
        if self.goodbye.is_none()
            && let Some(close) = self.member.closing()
        {
            self.part(close, cx);
        }
        if self.goodbye.is_some() {
            self.flush(cx);
        }
        let Some(goodbye) = &mut self.goodbye else { return Ok(()) };
        let is_said = !goodbye.is_answered && self.unsent == 0;
        if is_said || goodbye.until.as_mut().poll(cx).is_ready() {
            return Err(Left::ByUs(goodbye.close.clone()));
        }
        Ok(())
    }

    /// What was queued before the goodbye goes out before it: the goodbye waits until the wire has room for all of it, or time is up.
    fn part(&mut self, close: Close, cx: &mut Context<'_>) {
        while self.take_out() {}
        let mut until = self.parting.take().unwrap_or_else(|| self.patience());
        let is_over = until.as_mut().poll(cx).is_ready();
        self.parting = Some(until);
        if is_over || !self.member.has_queued() {
            self.bid(close);
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Result<(), Left> {
        self.member.watch(cx);
        for round in 0.. {
            let mut more = self.take_out();
            more |= self.read(cx)?;
            let mut waited = self.is_deaf();
            more |= self.run_calls(cx);
            waited |= self.is_deaf();
            self.close(cx)?;
            self.flush(cx);
            // What had to wait for room has not told its waker to come back.
            if !more && (!waited || self.is_deaf()) {
                break;
            }
            if round == ROUNDS {
                cx.waker().wake_by_ref();
                break;
            }
        }
        self.tick(cx)
    }
}

/// The metadata within a message that is a map with the key `meta`.
fn within(msg: &Bytes) -> Option<Packed> {
    envelope::parse(msg).ok()?.meta.map(Packed::checked)
}

impl Future for Session {
    type Output = Left;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Left> {
        match self.turn(cx) {
            Ok(()) => Poll::Pending,
            Err(left) => {
                self.left = Some(left.clone());
                Poll::Ready(left)
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let left = self.left.take().unwrap_or_else(|| Left::Broken("its runtime ended".to_owned()));
        if self.member.end(&left) {
            self.core.remove(&self.member, left);
        }
    }
}
