//! Decides: messages that only one peer can read and only the other can have written, whoever carries them.
//!
//! The construction, byte by byte and with its reasons, is in `docs/protocols/peer.md`. In short: each end of a
//! conversation makes a fresh X25519 key; a message is encrypted (ChaCha20-Poly1305) under a key that HKDF-SHA256 makes of the
//! Diffie-Hellman results between the ends' fresh keys and their identities.

use std::fmt;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use zeroize::Zeroizing;

use super::identity::{NoRandomness, random};
use super::{Identity, PeerId};

/// Bytes before the sealed text: version, kind, the sender's fresh key, whom it is for, number.
const HEADER: usize = 1 + 1 + 32 + ADDRESSEE + 8;
/// How much of the addressee's fresh key names the conversation.
const ADDRESSEE: usize = 8;
/// Bytes of the authentication tag.
const TAG: usize = 16;
/// How many bytes sealing adds to a text.
pub const OVERHEAD: usize = HEADER + TAG;
/// The longest text of one message: what a rendezvous carries, less what sealing adds.
pub const MAX_TEXT: usize = 16 * 1024 - OVERHEAD;

const VERSION: u8 = 1;
const SALT: &[u8] = b"natpipe sealed message, version 1";

/// Why a message can not be sealed or opened. What was refused changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The text is over [`MAX_TEXT`].
    #[error("a sealed message holds at most {MAX_TEXT} bytes, not {0}")]
    TooLong(usize),
    /// It is too short to be a sealed message, or of an unknown kind.
    #[error("this is no sealed message")]
    Format,
    /// It is of another version. One of the peers must be brought up to date.
    #[error("the message is sealed in version {0}, and only version {VERSION} is known here")]
    Version(u8),
    /// It belongs to another conversation.
    #[error("the message belongs to another conversation")]
    OtherConversation,
    /// It was not written by the peer, not for this one, or was changed on the way.
    #[error("the message is not what the peer has written for this end")]
    Forged,
    /// It has come before.
    #[error("the message has come before")]
    Replayed,
}

/// A fresh secret for one end of one conversation.
pub struct Ephemeral(Zeroizing<[u8; 32]>);

impl Ephemeral {
    /// From the system's randomness.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn random() -> Result<Self, NoRandomness> {
        Ok(Self(Zeroizing::new(random()?)))
    }

    pub(super) fn secret(&self) -> &[u8; 32] {
        &self.0
    }

    pub(super) fn public(&self) -> [u8; 32] {
        x25519_dalek::x25519(*self.0, x25519_dalek::X25519_BASEPOINT_BYTES)
    }
}

impl fmt::Debug for Ephemeral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ephemeral")
    }
}

/// What everybody can see of a sealed message: to which conversation it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// It was written before its writer had heard from the other end: it begins a conversation, and **whoever
    /// carries it can deliver it again** to an end that has forgotten it. So what it says may only cost an answer.
    pub opening: bool,
    /// The fresh key of its writer, which names the conversation.
    pub writer: [u8; 32],
    /// The beginning of the fresh key of whom it is for; zeros in an opening message.
    pub addressee: [u8; ADDRESSEE],
    number: u64,
}

impl Header {
    /// Reads what stands before the sealed text.
    ///
    /// # Errors
    /// [`SealError::Format`], [`SealError::Version`].
    pub fn read(message: &[u8]) -> Result<Self, SealError> {
        let (version, rest) = message.split_first().ok_or(SealError::Format)?;
        if *version != VERSION {
            return Err(SealError::Version(*version));
        }
        if message.len() < OVERHEAD || message.len() > OVERHEAD + MAX_TEXT {
            return Err(SealError::Format);
        }
        let (kind, rest) = rest.split_first().ok_or(SealError::Format)?;
        let (writer, rest) = rest.split_first_chunk().ok_or(SealError::Format)?;
        let (addressee, rest) = rest.split_first_chunk().ok_or(SealError::Format)?;
        let (number, _) = rest.split_first_chunk().ok_or(SealError::Format)?;
        let opening = match kind {
            1 => true,
            2 => false,
            _ => return Err(SealError::Format),
        };
        if opening && *addressee != [0; ADDRESSEE] {
            return Err(SealError::Format);
        }
        Ok(Self { opening, writer: *writer, addressee: *addressee, number: u64::from_be_bytes(*number) })
    }

    fn write(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = VERSION;
        bytes[1] = if self.opening { 1 } else { 2 };
        bytes[2..34].copy_from_slice(&self.writer);
        bytes[34..34 + ADDRESSEE].copy_from_slice(&self.addressee);
        bytes[34 + ADDRESSEE..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }
}

/// One end of a conversation between two peers, in memory that does not grow.
///
/// Who begins it seals at once; its first messages may be replayed to an end that has forgotten them. From the
/// first answer on each message is bound to fresh keys of both ends: it can be opened once, by this end, in
/// this conversation, and nobody who learns both identities later can read it.
///
/// ```
/// use natpipe::Identity;
/// use natpipe::key::seal::{Conversation, Ephemeral};
///
/// let (alice, bob) = (Identity::generate()?, Identity::generate()?);
/// let mut at_alice = Conversation::begin(&alice, bob.peer_id(), Ephemeral::random()?)?;
/// let offer = at_alice.seal(b"offer")?;
///
/// let (mut at_bob, text) = Conversation::answer(&bob, alice.peer_id(), &offer, Ephemeral::random()?)?;
/// assert_eq!(text, b"offer");
/// let answer = at_bob.seal(b"answer")?;
/// assert_eq!(at_alice.open(&answer)?, b"answer");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Conversation {
    me: PeerId,
    other: PeerId,
    secret: Zeroizing<[u8; 32]>,
    fresh: Ephemeral,
    public: [u8; 32],
    /// The other end's fresh key, once it is known and proven.
    theirs: Option<[u8; 32]>,
    began: bool,
    sent: u64,
    /// For messages of this end: before and after the other end's fresh key is known.
    sealing: LessSafeKey,
    opening: Option<Incoming>,
    bound: Option<Incoming>,
}

/// A key to open messages with, and which of them have come.
struct Incoming {
    key: LessSafeKey,
    seen: Seen,
}

impl Conversation {
    /// Begins to talk to `other`.
    ///
    /// # Errors
    /// [`SealError::Forged`] when `other` is no key of a peer.
    pub fn begin(identity: &Identity, other: PeerId, fresh: Ephemeral) -> Result<Self, SealError> {
        let (me, secret, public) = (identity.peer_id(), identity.scalar(), fresh.public());
        let sealing = Exchange { writer: me, reader: other, fresh: public, answered: None }
            .key([dh(&fresh.0, &point(other)?)?, dh(&secret, &point(other)?)?], None)?;
        let (theirs, opening, bound) = (None, None, None);
        Ok(Self { me, other, secret, fresh, public, theirs, began: true, sent: 0, sealing, opening, bound })
    }

    /// Opens the first message of a conversation that `other` has begun.
    ///
    /// # Errors
    /// Those of [`open`](Self::open); [`SealError::OtherConversation`] when it is not a first message.
    pub fn answer(
        identity: &Identity,
        other: PeerId,
        message: &[u8],
        fresh: Ephemeral,
    ) -> Result<(Self, Vec<u8>), SealError> {
        let header = Header::read(message)?;
        if !header.opening {
            return Err(SealError::OtherConversation);
        }
        let (me, secret, public) = (identity.peer_id(), identity.scalar(), fresh.public());
        let between = dh(&secret, &point(other)?)?;
        let key = Exchange { writer: other, reader: me, fresh: header.writer, answered: None }
            .key([dh(&secret, &header.writer)?, between], None)?;
        let mut opening = Incoming { key, seen: Seen::default() };
        let text = opening.open(&header, message)?;
        let keys = Ends { me, other, secret: &secret, fresh: &fresh, public, theirs: header.writer };
        let (sealing, bound) = (keys.sealing()?, Some(keys.opening()?));
        let (theirs, opening) = (Some(header.writer), Some(opening));
        Ok((Self { me, other, secret, fresh, public, theirs, began: false, sent: 0, sealing, opening, bound }, text))
    }

    /// The other peer.
    pub fn peer(&self) -> PeerId {
        self.other
    }

    /// Whether a message belongs here, as far as its header tells.
    pub fn is_for(&self, header: &Header) -> bool {
        let from_theirs = self.theirs.is_none_or(|theirs| theirs == header.writer);
        match header.opening {
            true => !self.began && from_theirs,
            false => from_theirs && header.addressee[..] == self.public[..ADDRESSEE],
        }
    }

    /// Whether the other end has shown that it is there now: its messages are no replays.
    pub fn is_live(&self) -> bool {
        self.bound.as_ref().is_some_and(|bound| bound.seen.any())
    }

    /// Encrypts a text for the other end.
    ///
    /// # Errors
    /// [`SealError::TooLong`].
    pub fn seal(&mut self, text: &[u8]) -> Result<Vec<u8>, SealError> {
        if text.len() > MAX_TEXT {
            return Err(SealError::TooLong(text.len()));
        }
        self.sent += 1;
        let mut addressee = [0; ADDRESSEE];
        if let Some(theirs) = &self.theirs {
            addressee.copy_from_slice(&theirs[..ADDRESSEE]);
        }
        let header = Header { opening: self.theirs.is_none(), writer: self.public, addressee, number: self.sent };
        let head = header.write();
        let mut message = Vec::with_capacity(OVERHEAD + text.len());
        message.extend_from_slice(&head);
        message.extend_from_slice(text);
        let tag = self.sealing.seal_in_place_separate_tag(nonce(self.sent), Aad::from(head), &mut message[HEADER..]);
        message.extend_from_slice(tag.map_err(|_| SealError::TooLong(text.len()))?.as_ref());
        Ok(message)
    }

    /// Verifies a message of the other end and decrypts it.
    ///
    /// # Errors
    /// [`SealError`]; the conversation goes on as if the message had not come.
    pub fn open(&mut self, message: &[u8]) -> Result<Vec<u8>, SealError> {
        let header = Header::read(message)?;
        if !self.is_for(&header) {
            return Err(SealError::OtherConversation);
        }
        let known = if header.opening { &mut self.opening } else { &mut self.bound };
        if let Some(incoming) = known {
            return incoming.open(&header, message);
        }
        self.open_first_answer(&header, message)
    }

    /// The first answer carries the other end's fresh key, which is taken only if the message is genuine.
    fn open_first_answer(&mut self, header: &Header, message: &[u8]) -> Result<Vec<u8>, SealError> {
        let keys = Ends {
            me: self.me,
            other: self.other,
            secret: &self.secret,
            fresh: &self.fresh,
            public: self.public,
            theirs: header.writer,
        };
        let mut bound = keys.opening()?;
        let text = bound.open(header, message)?;
        self.sealing = keys.sealing()?;
        (self.theirs, self.bound) = (Some(header.writer), Some(bound));
        Ok(text)
    }
}

impl fmt::Debug for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conversation({:?} with {:?})", self.me, self.other)
    }
}

impl Incoming {
    fn open(&mut self, header: &Header, message: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut text = message[HEADER..].to_vec();
        let opened = self.key.open_in_place(nonce(header.number), Aad::from(header.write()), &mut text);
        let len = opened.map_err(|_| SealError::Forged)?.len();
        // Only what is genuine may mark a number as used.
        if !self.seen.mark(header.number) {
            return Err(SealError::Replayed);
        }
        text.truncate(len);
        Ok(text)
    }
}

/// Both ends' keys, from where one of them stands.
struct Ends<'a> {
    me: PeerId,
    other: PeerId,
    secret: &'a [u8; 32],
    fresh: &'a Ephemeral,
    public: [u8; 32],
    theirs: [u8; 32],
}

impl Ends<'_> {
    /// For messages of this end.
    fn sealing(&self) -> Result<LessSafeKey, SealError> {
        let exchange =
            Exchange { writer: self.me, reader: self.other, fresh: self.public, answered: Some(self.theirs) };
        let lasting = [dh(&self.fresh.0, &point(self.other)?)?, dh(self.secret, &point(self.other)?)?];
        exchange.key(lasting, Some([dh(&self.fresh.0, &self.theirs)?, dh(self.secret, &self.theirs)?]))
    }

    /// For messages of the other end.
    fn opening(&self) -> Result<Incoming, SealError> {
        let exchange =
            Exchange { writer: self.other, reader: self.me, fresh: self.theirs, answered: Some(self.public) };
        let lasting = [dh(self.secret, &self.theirs)?, dh(self.secret, &point(self.other)?)?];
        let fresh = [dh(&self.fresh.0, &self.theirs)?, dh(&self.fresh.0, &point(self.other)?)?];
        Ok(Incoming { key: exchange.key(lasting, Some(fresh))?, seen: Seen::default() })
    }
}

type Shared = Zeroizing<[u8; 32]>;

/// One direction of a conversation.
struct Exchange {
    writer: PeerId,
    reader: PeerId,
    /// The writer's fresh key.
    fresh: [u8; 32],
    /// The reader's fresh key, if the writer knows it.
    answered: Option<[u8; 32]>,
}

impl Exchange {
    /// `lasting`: the writer's fresh key and its identity, each with the reader's identity. `fresh`: the same
    /// two with the reader's fresh key.
    fn key(&self, lasting: [Shared; 2], fresh: Option<[Shared; 2]>) -> Result<LessSafeKey, SealError> {
        let mut input = Zeroizing::new(Vec::with_capacity(128));
        for shared in lasting.iter().chain(fresh.iter().flatten()) {
            input.extend_from_slice(&**shared);
        }
        let kind = [if self.answered.is_some() { 2 } else { 1 }];
        let answered = self.answered.unwrap_or_default();
        let info: [&[u8]; 5] = [&kind, self.writer.as_bytes(), self.reader.as_bytes(), &self.fresh, &answered];
        let secret = Salt::new(HKDF_SHA256, SALT).extract(&input);
        let okm = secret.expand(&info, &CHACHA20_POLY1305).map_err(|_| SealError::Forged)?;
        Ok(LessSafeKey::new(UnboundKey::from(okm)))
    }
}

/// X25519; a result of zeros means a point of small order, which somebody chose to know the result.
pub(super) fn dh(secret: &[u8; 32], public: &[u8; 32]) -> Result<Shared, SealError> {
    let shared = Zeroizing::new(x25519_dalek::x25519(*secret, *public));
    if *shared == [0; 32] { Err(SealError::Forged) } else { Ok(shared) }
}

pub(super) fn point(peer: PeerId) -> Result<[u8; 32], SealError> {
    peer.montgomery().ok_or(SealError::Forged)
}

pub(super) fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Which numbers have come: the highest, and the 64 below it (RFC 4303 section 3.4.3).
#[derive(Default)]
struct Seen {
    highest: u64,
    below: u64,
}

impl Seen {
    fn any(&self) -> bool {
        self.highest > 0
    }

    /// False when the number has come, or is too old to tell. Numbers begin with 1.
    fn mark(&mut self, number: u64) -> bool {
        if number > self.highest {
            let ahead = number - self.highest;
            // The highest so far becomes one of those below.
            let shifted = if ahead > 64 { 0 } else { self.below.checked_shl(ahead as u32).unwrap_or(0) };
            let was = if self.highest > 0 && ahead <= 64 { 1 << (ahead - 1) } else { 0 };
            (self.highest, self.below) = (number, shifted | was);
            return true;
        }
        let behind = self.highest - number;
        if behind == 0 || behind > 64 || number == 0 {
            return false;
        }
        let bit = 1 << (behind - 1);
        let new = self.below & bit == 0;
        self.below |= bit;
        new
    }
}

#[cfg(test)]
mod tests;
