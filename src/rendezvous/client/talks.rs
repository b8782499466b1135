//! Decides: conversations with peers: which message belongs to which, and what ends them.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;

use super::super::wire::{Frame, RawPeer, Reason, Token};
use super::bell::Bell;
use super::signal::SignalError;
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
}

/// Names a conversation at this client.
pub(super) type TalkId = u64;

#[derive(Debug)]
pub(super) struct Talks {
    identity: Identity,
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
}

impl Talks {
    pub(super) fn new(identity: Identity, now: Instant) -> Self {
        Self {
            identity,
            talks: HashMap::new(),
            by_peer: HashMap::new(),
            backlog: VecDeque::new(),
            acceptors: Bell::default(),
            strangers: Bucket::new(STRANGERS.0, STRANGERS.1, now),
            last: 0,
        }
    }

    /// Begins to talk to a peer. The frame is to be sent.
    pub(super) fn begin(&mut self, peer: PeerId) -> Result<(TalkId, Frame), SignalError> {
        if self.talks.len() >= TALKS {
            return Err(SignalError::Busy);
        }
        let fresh = Ephemeral::random().map_err(|_| SignalError::NoRandomness)?;
        let conversation = Conversation::begin(&self.identity, peer, fresh).map_err(|_| SignalError::NotAPeer(peer))?;
        let mut talk = Talk::new(conversation);
        let sealed = talk.seal(kind::BEGIN, &[])?;
        talk.name = name_of(&sealed);
        Ok((self.add(talk), Frame::Signal { peer: *peer.as_bytes(), sealed }))
    }

    fn add(&mut self, talk: Talk) -> TalkId {
        self.last += 1;
        self.by_peer.entry(*talk.conversation.peer().as_bytes()).or_default().push(self.last);
        self.talks.insert(self.last, talk);
        self.last
    }

    /// The next conversation that another peer has begun. The frame tells that it was accepted.
    pub(super) fn accept(&mut self) -> Option<(TalkId, PeerId, Option<Frame>)> {
        let id = self.backlog.pop_front()?;
        let talk = self.talks.get_mut(&id)?;
        let peer = talk.conversation.peer();
        let told = talk.seal(kind::BEGIN, &[]).ok().filter(|_| talk.ended.is_none());
        Some((id, peer, told.map(|sealed| Frame::Signal { peer: *peer.as_bytes(), sealed })))
    }

    /// Seals a message. The frame is to be sent.
    pub(super) fn seal(&mut self, id: TalkId, message: &[u8]) -> Result<Frame, SignalError> {
        let talk = self.talks.get_mut(&id).ok_or(SignalError::Ended)?;
        if let Some(ended) = talk.ended {
            return Err(ended);
        }
        if message.len() > MAX_MESSAGE {
            return Err(SignalError::TooLong(message.len()));
        }
        let sealed = talk.seal(kind::MESSAGE, message)?;
        Ok(Frame::Signal { peer: *talk.conversation.peer().as_bytes(), sealed })
    }

    /// The next message, or the end; `None` while there is neither.
    pub(super) fn next(&mut self, id: TalkId, cx: &std::task::Context<'_>) -> Option<Result<Bytes, SignalError>> {
        let Some(talk) = self.talks.get_mut(&id) else { return Some(Err(SignalError::Ended)) };
        if let Some(message) = talk.inbox.pop() {
            return Some(Ok(message));
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

    /// The conversation is not needed any more. The frame, if any, tells the other end.
    pub(super) fn end(&mut self, id: TalkId) -> Option<Frame> {
        let mut talk = self.talks.remove(&id)?;
        let peer = *talk.conversation.peer().as_bytes();
        if let Some(ids) = self.by_peer.get_mut(&peer) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_peer.remove(&peer);
            }
        }
        let sealed = talk.ended.is_none().then(|| talk.seal(kind::END, &[]).ok()).flatten()?;
        Some(Frame::Signal { peer, sealed })
    }

    /// A sealed message came. What can not be opened was not written by its peer and changes nothing.
    pub(super) fn receive(&mut self, now: Instant, from: RawPeer, sealed: &[u8]) {
        let Ok(header) = Header::read(sealed) else { return };
        let of_peer = self.by_peer.get(&from).map_or(&[][..], Vec::as_slice);
        let known = of_peer.iter().find(|id| self.talks.get(id).is_some_and(|talk| talk.conversation.is_for(&header)));
        match known.copied() {
            Some(id) => {
                let Some(talk) = self.talks.get_mut(&id) else { return };
                match talk.conversation.open(sealed) {
                    Ok(text) => talk.deliver(&text),
                    Err(error) => tracing::debug!(%error, "a sealed message is left out"),
                }
            }
            None if header.opening => self.be_addressed(now, from, sealed),
            None => {}
        }
    }

    /// Another peer begins a conversation.
    fn be_addressed(&mut self, now: Instant, from: RawPeer, sealed: &[u8]) {
        let of_one = self.by_peer.get(&from).map_or(&[][..], Vec::as_slice);
        let waiting = of_one.iter().filter(|id| self.backlog.contains(id)).count();
        let full = self.backlog.len() >= BACKLOG || waiting >= BACKLOG_OF_ONE || self.talks.len() >= TALKS;
        if full || !self.strangers.take(1, now) {
            return tracing::debug!("a peer that wants to talk is left out: too many do");
        }
        let (Ok(peer), Ok(fresh)) = (PeerId::from_bytes(from), Ephemeral::random()) else { return };
        let Ok((conversation, text)) = Conversation::answer(&self.identity, peer, sealed, fresh) else { return };
        // Not the first text: the rest of a conversation that is over here.
        if text.first_chunk() != Some(&[kind::BEGIN, 0, 0, 0, 0]) {
            return;
        }
        let mut talk = Talk::new(conversation);
        (talk.name, talk.expected) = (name_of(sealed), 1);
        let id = self.add(talk);
        self.backlog.push_back(id);
        self.acceptors.ring();
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
    pub(super) fn fall(&mut self) -> Vec<Frame> {
        let mut told = Vec::new();
        for id in std::mem::take(&mut self.backlog) {
            told.extend(self.end(id));
        }
        for talk in self.talks.values_mut().filter(|talk| talk.ended.is_none()) {
            if let Ok(sealed) = talk.seal(kind::END, &[]) {
                told.push(Frame::Signal { peer: *talk.conversation.peer().as_bytes(), sealed });
            }
            talk.end(SignalError::ServerLost);
        }
        self.acceptors.ring();
        told
    }
}

impl Talk {
    fn new(conversation: Conversation) -> Self {
        Self {
            conversation,
            inbox: Queue::new(INBOX),
            reader: Bell::default(),
            sent: 0,
            expected: 0,
            name: [0; 8],
            relays: 0,
            ended: None,
        }
    }

    fn seal(&mut self, kind: u8, payload: &[u8]) -> Result<Bytes, SignalError> {
        let mut text = Vec::with_capacity(HEAD + payload.len());
        text.push(kind);
        text.extend_from_slice(&self.sent.to_be_bytes());
        text.extend_from_slice(payload);
        let sealed = self.conversation.seal(&text).map_err(|_| SignalError::TooLong(payload.len()))?;
        self.sent = self.sent.wrapping_add(1);
        Ok(sealed.into())
    }

    /// Takes a text of the other end, which comes in order or not at all.
    fn deliver(&mut self, text: &[u8]) {
        let Some((&[kind, a, b, c, d], payload)) = text.split_first_chunk::<HEAD>() else {
            return self.end(SignalError::Malformed);
        };
        if self.ended.is_some() {
            return;
        }
        if u32::from_be_bytes([a, b, c, d]) != self.expected {
            return self.end(SignalError::Lost);
        }
        self.expected = self.expected.wrapping_add(1);
        match kind {
            kind::BEGIN => {}
            kind::MESSAGE if self.inbox.is_full() => self.end(SignalError::Overflow),
            kind::MESSAGE => {
                self.inbox.push(Bytes::copy_from_slice(payload), payload.len());
                self.reader.ring();
            }
            kind::END => self.end(SignalError::Ended),
            _ => self.end(SignalError::Malformed),
        }
    }

    fn end(&mut self, why: SignalError) {
        self.ended.get_or_insert(why);
        self.reader.ring();
    }
}

/// The beginning of the fresh key of who began the conversation.
fn name_of(opening: &[u8]) -> [u8; 8] {
    let writer = Header::read(opening).map(|header| header.writer).unwrap_or_default();
    writer.first_chunk().copied().unwrap_or_default()
}
