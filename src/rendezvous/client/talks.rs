//! Decides: conversations with peers: which message belongs to which, and what ends them.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::wire::{Frame, RawPeer, Reason, Token};
use super::resend::{PATIENCE, Resend, Turn};
use super::signal::SignalError;
use crate::base::bell::Bell;
use crate::base::bucket::Bucket;
use crate::base::queue::{self, Queue};
use crate::key::seal::{self, Conversation, Ephemeral, Header};
use crate::key::{Identity, PeerId};

/// Before each text: its kind (1), its number (4).
const HEAD: usize = 5;
/// The longest message of a conversation, bytes.
pub(super) const MAX_MESSAGE: usize = seal::MAX_TEXT - HEAD;
/// Messages that wait to be read before the conversation is given up: it goes with the rest of the connection and can not be
/// held back.
const INBOX: queue::Limits = queue::Limits { messages: 256, bytes: 1 << 20 };
/// Conversations in all.
const TALKS: usize = 4096;
/// Conversations that others have begun and nobody has accepted yet, in all and of one peer.
const BACKLOG: usize = 256;
const BACKLOG_OF_ONE: usize = 8;
/// Conversations that others may begin each second in the long run, and at once: each costs some 0.3 ms of computing.
const STRANGERS: (u64, u64) = (50, 200);

/// What a text says.
mod kind {
    /// The conversation has begun, or is accepted.
    pub(super) const BEGIN: u8 = 0;
    pub(super) const MESSAGE: u8 = 1;
    pub(super) const END: u8 = 2;
    /// Over a broker: everything before this number has come. It has no number of its own.
    pub(super) const ACK: u8 = 3;
}

/// What carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carriage {
    /// One connection, in order or not at all.
    Server,
    /// Brokers, which lose, double and reorder, and may deliver again what is old.
    Brokers {
        /// Whether others may begin conversations here.
        open: bool,
    },
}

/// How long a peer may be absent from all brokers: it may have lost its connection to them just now.
const ABSENT: Duration = Duration::from_secs(3);

/// How long a conversation that nobody holds any more is said the rest of.
const LINGER: Duration = Duration::from_secs(10);

/// Names a conversation at this client.
pub(super) type TalkId = u64;

#[derive(Debug)]
pub(super) struct Talks {
    identity: Identity,
    carriage: Carriage,
    /// When something is to be said again; not before.
    due: Option<Instant>,
    talks: HashMap<TalkId, Talk>,
    by_peer: HashMap<RawPeer, Vec<TalkId>>,
    backlog: VecDeque<TalkId>,
    pub(super) acceptors: Bell,
    strangers: Bucket,
    last: TalkId,
}

#[derive(Debug)]
struct Talk {
    conversation: Conversation,
    inbox: Queue<Bytes>,
    reader: Bell,
    /// Numbers of texts: sent, and expected.
    sent: u32,
    expected: u32,
    /// What names the conversation to the server, for relayed streams: of who began it the beginning of its fresh key.
    name: [u8; 8],
    relays: u32,
    ended: Option<SignalError>,
    /// Where texts may be lost.
    resend: Option<Resend>,
    /// At which brokers nobody listens for the other end, as these say.
    absent: u8,
    /// Since when nobody holds it.
    left: Option<Instant>,
}

impl Talks {
    pub(super) fn new(identity: Identity, carriage: Carriage, now: Instant) -> Self {
        Self {
            identity,
            carriage,
            due: None,
            talks: HashMap::new(),
            by_peer: HashMap::new(),
            backlog: VecDeque::new(),
            acceptors: Bell::default(),
            strangers: Bucket::new(STRANGERS.0, STRANGERS.1, now),
            last: 0,
        }
    }

    /// Begins to talk to a peer. The frame is to be sent.
    pub(super) fn begin(&mut self, now: Instant, peer: PeerId) -> Result<(TalkId, Frame), SignalError> {
        if self.talks.len() >= TALKS {
            return Err(SignalError::Busy);
        }
        let fresh = Ephemeral::random().map_err(|_| SignalError::NoRandomness)?;
        let conversation = Conversation::begin(&self.identity, peer, fresh).map_err(|_| SignalError::NotAPeer(peer))?;
        let mut talk = Talk::new(conversation, self.carriage);
        let sealed = talk.seal(now, kind::BEGIN, &[])?;
        talk.name = name_of(&sealed);
        self.be_due(talk.again());
        Ok((self.add(talk), Frame::Signal { peer: *peer.as_bytes(), sealed }))
    }

    fn add(&mut self, talk: Talk) -> TalkId {
        self.last += 1;
        self.by_peer.entry(*talk.conversation.peer().as_bytes()).or_default().push(self.last);
        self.talks.insert(self.last, talk);
        self.last
    }

    /// Something may have to be said again then.
    fn be_due(&mut self, again: Option<Instant>) {
        self.due = [self.due, again].into_iter().flatten().min();
    }

    /// The next conversation that another peer has begun. The frame tells that it was accepted.
    pub(super) fn accept(&mut self, now: Instant) -> Option<(TalkId, PeerId, Option<Frame>)> {
        let id = self.backlog.pop_front()?;
        let talk = self.talks.get_mut(&id)?;
        let peer = talk.conversation.peer();
        let told = talk.seal(now, kind::BEGIN, &[]).ok().filter(|_| talk.ended.is_none());
        let again = talk.again();
        self.be_due(again);
        Some((id, peer, told.map(|sealed| Frame::Signal { peer: *peer.as_bytes(), sealed })))
    }

    /// Seals a message. The frame is to be sent.
    pub(super) fn seal(&mut self, now: Instant, id: TalkId, message: &[u8]) -> Result<Frame, SignalError> {
        let talk = self.talks.get_mut(&id).ok_or(SignalError::Ended)?;
        if let Some(ended) = talk.ended {
            return Err(ended);
        }
        if message.len() > MAX_MESSAGE {
            return Err(SignalError::TooLong(message.len()));
        }
        let sealed = talk.seal(now, kind::MESSAGE, message)?;
        let (again, peer) = (talk.again(), *talk.conversation.peer().as_bytes());
        self.be_due(again);
        Ok(Frame::Signal { peer, sealed })
    }

    /// True when so much is unacknowledged that more has to wait.
    pub(super) fn is_full(&self, id: TalkId) -> bool {
        self.talks
            .get(&id)
            .is_some_and(|talk| talk.ended.is_none() && talk.resend.as_ref().is_some_and(Resend::is_full))
    }

    /// The next message, or the end; `None` while there is neither.
    pub(super) fn next(&mut self, id: TalkId, cx: &std::task::Context<'_>) -> Option<Result<Bytes, SignalError>> {
        let Some(talk) = self.talks.get_mut(&id) else { return Some(Err(SignalError::Ended)) };
        // What a broker brings may be an old conversation that somebody plays again.
        let heard = talk.resend.is_none() || talk.conversation.is_live();
        if let Some(message) = heard.then(|| talk.inbox.pop()).flatten() {
            return Some(Ok(message));
        }
        if talk.ended.is_none() {
            talk.reader.wait(cx);
        }
        talk.ended.map(Err)
    }

    /// As [`is_live`](Self::is_live), or the end; `None` while there is neither.
    pub(super) fn live(&mut self, id: TalkId, cx: &std::task::Context<'_>) -> Option<Result<(), SignalError>> {
        let Some(talk) = self.talks.get_mut(&id) else { return Some(Err(SignalError::Ended)) };
        if talk.conversation.is_live() {
            return Some(Ok(()));
        }
        if talk.ended.is_none() {
            talk.reader.wait(cx);
        }
        talk.ended.map(Err)
    }

    /// Whether the other end has shown that it is there now.
    pub(super) fn is_live(&self, id: TalkId) -> bool {
        self.talks.get(&id).is_some_and(|talk| talk.conversation.is_live())
    }

    /// What names the conversation's next relayed stream; both ends count alike.
    pub(super) fn next_relay(&mut self, id: TalkId) -> Result<Token, SignalError> {
        let talk = self.talks.get_mut(&id).ok_or(SignalError::Ended)?;
        if let Some(ended) = talk.ended {
            return Err(ended);
        }
        let mut token = [0; 12];
        token[..8].copy_from_slice(&talk.name);
        token[8..].copy_from_slice(&talk.relays.to_be_bytes());
        talk.relays = talk.relays.wrapping_add(1);
        Ok(token)
    }

    /// The conversation is not needed any more. The frame, if any, tells the other end. Where texts may be lost it stays until
    /// the other end has the last of them.
    pub(super) fn end(&mut self, now: Instant, id: TalkId) -> Option<Frame> {
        let talk = self.talks.get_mut(&id)?;
        let told = talk.ended.is_none().then(|| talk.seal(now, kind::END, &[]).ok()).flatten();
        let peer = *talk.conversation.peer().as_bytes();
        talk.left = Some(now);
        talk.ended.get_or_insert(SignalError::Ended);
        if talk.is_over() {
            self.remove(id);
        } else {
            let again = talk.again();
            self.be_due(again);
        }
        told.map(|sealed| Frame::Signal { peer, sealed })
    }

    fn remove(&mut self, id: TalkId) {
        let Some(talk) = self.talks.remove(&id) else { return };
        let peer = *talk.conversation.peer().as_bytes();
        if let Some(ids) = self.by_peer.get_mut(&peer) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_peer.remove(&peer);
            }
        }
        self.backlog.retain(|other| *other != id);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.talks.is_empty()
    }

    /// True while something was said that others do not have yet.
    pub(super) fn has_unsaid(&self) -> bool {
        self.talks.values().any(|talk| talk.resend.as_ref().is_some_and(|resend| !resend.is_done()))
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Says again what was not acknowledged, and gives up conversations whose other end does not answer.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<Frame> {
        if self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.due = None;
        let (mut again, mut over) = (Vec::new(), Vec::new());
        for (id, talk) in &mut self.talks {
            talk.age(now);
            let texts = talk.resend.as_mut().map(|resend| resend.handle_timeout(now)).unwrap_or_default();
            let peer = *talk.conversation.peer().as_bytes();
            let sealed = texts.iter().filter_map(|text| talk.conversation.seal(text).ok());
            again.extend(sealed.map(|sealed| Frame::Signal { peer, sealed: sealed.into() }));
            if talk.is_over() {
                over.push(*id);
            }
            self.due = [self.due, talk.again()].into_iter().flatten().min();
        }
        over.into_iter().for_each(|id| self.remove(id));
        again
    }

    /// A sealed message came. What can not be opened was not written by its peer and changes nothing. The frame, if any, is to
    /// be sent.
    pub(super) fn receive(&mut self, now: Instant, from: RawPeer, sealed: &[u8]) -> Option<Frame> {
        let header = Header::read(sealed).ok()?;
        let of_peer = self.by_peer.get(&from).map_or(&[][..], Vec::as_slice);
        let known = of_peer.iter().find(|id| self.talks.get(id).is_some_and(|talk| talk.conversation.is_for(&header)));
        let id = match known.copied() {
            Some(id) => {
                let talk = self.talks.get_mut(&id)?;
                let was_live = talk.conversation.is_live();
                match talk.conversation.open(sealed) {
                    Ok(text) => talk.deliver(&text),
                    Err(error) => tracing::debug!(%error, "a sealed message is left out"),
                }
                if !was_live && talk.conversation.is_live() {
                    talk.reader.ring();
                }
                id
            }
            None if header.opening => self.be_addressed(now, from, sealed)?,
            None => return None,
        };
        let talk = self.talks.get_mut(&id)?;
        let acknowledgement = talk.acknowledge();
        if talk.is_over() {
            self.remove(id);
        }
        acknowledgement.map(|sealed| Frame::Signal { peer: from, sealed })
    }

    /// Nobody listens for this peer at a broker (its bit, and those of all that are connected).
    pub(super) fn be_absent(&mut self, now: Instant, peer: RawPeer, broker: u8, connected: u8) {
        for id in self.by_peer.get(&peer).cloned().unwrap_or_default() {
            let Some(talk) = self.talks.get_mut(&id) else { continue };
            talk.be_absent(now, broker, connected);
            if talk.is_over() {
                self.remove(id);
            }
        }
    }

    /// Another peer begins a conversation.
    fn be_addressed(&mut self, now: Instant, from: RawPeer, sealed: &[u8]) -> Option<TalkId> {
        if self.carriage == (Carriage::Brokers { open: false }) {
            return None;
        }
        let of_one = self.by_peer.get(&from).map_or(&[][..], Vec::as_slice);
        let waiting = of_one.iter().filter(|id| self.backlog.contains(id)).count();
        let full = self.backlog.len() >= BACKLOG || waiting >= BACKLOG_OF_ONE || self.talks.len() >= TALKS;
        if full || !self.strangers.take(1, now) {
            tracing::debug!("a peer that wants to talk is left out: too many do");
            return None;
        }
        let (peer, fresh) = (PeerId::from_bytes(from).ok()?, Ephemeral::random().ok()?);
        let (conversation, text) = Conversation::answer(&self.identity, peer, sealed, fresh).ok()?;
        // Not the first text: the rest of a conversation that is over here. Over a broker it may have overtaken the first, which
        // is then said again.
        if text.first_chunk() != Some(&[kind::BEGIN, 0, 0, 0, 0]) {
            return None;
        }
        let mut talk = Talk::new(conversation, self.carriage);
        (talk.name, talk.expected) = (name_of(sealed), 1);
        if let Some(resend) = &mut talk.resend {
            resend.owes = true;
        }
        let id = self.add(talk);
        self.backlog.push_back(id);
        self.acceptors.ring();
        Some(id)
    }

    /// The server can not deliver what is sent to a peer.
    pub(super) fn refuse(&mut self, peer: RawPeer, why: Reason) {
        let ended = if why == Reason::NotThere { SignalError::NotThere } else { SignalError::Busy };
        for id in self.by_peer.get(&peer).cloned().unwrap_or_default() {
            if let Some(talk) = self.talks.get_mut(&id) {
                talk.end(ended);
            }
        }
    }

    /// The connection to the server is gone: each conversation may have lost messages and ends. The frames tell the other
    /// ends, when there is a connection again.
    pub(super) fn fall(&mut self, now: Instant) -> Vec<Frame> {
        let mut told = Vec::new();
        for id in std::mem::take(&mut self.backlog) {
            told.extend(self.end(now, id));
        }
        for talk in self.talks.values_mut().filter(|talk| talk.ended.is_none()) {
            if let Ok(sealed) = talk.seal(now, kind::END, &[]) {
                told.push(Frame::Signal { peer: *talk.conversation.peer().as_bytes(), sealed });
            }
            talk.end(SignalError::ServerLost);
        }
        self.acceptors.ring();
        told
    }
}

impl Talk {
    fn new(conversation: Conversation, carriage: Carriage) -> Self {
        Self {
            conversation,
            inbox: Queue::new(INBOX),
            reader: Bell::default(),
            sent: 0,
            expected: 0,
            name: [0; 8],
            relays: 0,
            ended: None,
            resend: matches!(carriage, Carriage::Brokers { .. }).then(Resend::default),
            absent: 0,
            left: None,
        }
    }

    fn seal(&mut self, now: Instant, kind: u8, payload: &[u8]) -> Result<Bytes, SignalError> {
        let text = text(kind, self.sent, payload);
        let sealed = self.conversation.seal(&text).map_err(|_| SignalError::TooLong(payload.len()))?;
        if let Some(resend) = &mut self.resend {
            resend.say(now, self.sent, text);
        }
        self.sent = self.sent.wrapping_add(1);
        Ok(sealed.into())
    }

    /// When something of it is to be said again.
    fn again(&self) -> Option<Instant> {
        self.resend.as_ref().and_then(Resend::poll_timeout)
    }

    /// What tells the other end how much has come, if something came since it was told.
    fn acknowledge(&mut self) -> Option<Bytes> {
        let resend = self.resend.as_mut().filter(|resend| resend.owes)?;
        resend.owes = false;
        Some(self.conversation.seal(&text(kind::ACK, self.expected, &[])).ok()?.into())
    }

    /// True when nobody holds it and nothing of it is to be said again.
    fn is_over(&self) -> bool {
        self.left.is_some() && self.resend.as_ref().is_none_or(Resend::is_done)
    }

    /// Gives up when there is no broker left where the other end could be.
    fn be_absent(&mut self, now: Instant, broker: u8, connected: u8) {
        let Some(resend) = &mut self.resend else { return };
        self.absent |= broker;
        let long = resend.oldest().is_some_and(|since| now >= since + ABSENT);
        if long && !self.conversation.is_live() && self.absent & connected == connected {
            resend.give_up();
            self.end(SignalError::NoAnswer);
        }
    }

    /// Gives up what nobody acknowledges.
    fn age(&mut self, now: Instant) {
        let Some(resend) = &mut self.resend else { return };
        let silent = resend.oldest().is_some_and(|since| now >= since + PATIENCE);
        if silent || self.left.is_some_and(|left| now >= left + LINGER) {
            resend.give_up();
            self.end(SignalError::NoAnswer);
        }
    }

    /// Takes a text of the other end.
    fn deliver(&mut self, text: &[u8]) {
        let Some((&[kind, a, b, c, d], payload)) = text.split_first_chunk::<HEAD>() else {
            return self.end(SignalError::Malformed);
        };
        let number = u32::from_be_bytes([a, b, c, d]);
        let Some(resend) = &mut self.resend else {
            // It comes in order or not at all.
            match number == self.expected {
                _ if self.ended.is_some() => {}
                true => self.take(kind, payload),
                false => self.end(SignalError::Lost),
            }
            return;
        };
        if kind == kind::ACK {
            resend.acknowledged(number);
        } else if resend.handle(self.expected, number, text) == Turn::Now {
            self.take(kind, payload);
            while let Some(next) = self.resend.as_mut().and_then(|resend| resend.take(self.expected)) {
                self.take(next[0], &next[HEAD..]);
            }
        }
    }

    /// The next text.
    fn take(&mut self, kind: u8, payload: &[u8]) {
        self.expected = self.expected.wrapping_add(1);
        match kind {
            _ if self.ended.is_some() => {}
            kind::BEGIN => {}
            kind::MESSAGE if self.inbox.is_full() => self.end(SignalError::Overflow),
            kind::MESSAGE => {
                self.inbox.push(Bytes::copy_from_slice(payload), payload.len());
                self.reader.ring();
            }
            kind::END => {
                self.end(SignalError::Ended);
                // Nobody is there any more who could take it.
                self.resend.iter_mut().for_each(Resend::give_up);
            }
            _ => self.end(SignalError::Malformed),
        }
    }

    fn end(&mut self, why: SignalError) {
        self.ended.get_or_insert(why);
        self.reader.ring();
    }
}

fn text(kind: u8, number: u32, payload: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(HEAD + payload.len());
    text.push(kind);
    text.extend_from_slice(&number.to_be_bytes());
    text.extend_from_slice(payload);
    text
}

/// The beginning of the fresh key of who began the conversation.
fn name_of(opening: &[u8]) -> [u8; 8] {
    let writer = Header::read(opening).map(|header| header.writer).unwrap_or_default();
    writer.first_chunk().copied().unwrap_or_default()
}
