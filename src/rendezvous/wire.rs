//! Decides: the frames between a rendezvous server and its peers, byte by byte (docs/protocols/rendezvous.md).

use bytes::{Buf, Bytes, BytesMut};

use crate::key::seal;

/// The version of the protocol that is spoken here.
pub const VERSION: u8 = 1;
/// Bytes before each frame's body: kind (1), length (3).
const HEADER: usize = 4;
/// The longest sealed message that is carried.
pub const MAX_SIGNAL: usize = seal::OVERHEAD + seal::MAX_TEXT;
/// The most bytes of a relayed stream in one frame: what fits into one TLS record.
pub const MAX_DATA: usize = 16 * 1024 - HEADER - 4;
/// The longest body: a signal with its address.
const MAX_BODY: usize = 32 + MAX_SIGNAL;
/// What each end of a relay may send before it has heard that the other end is there, bytes.
pub const FIRST_WINDOW: u32 = 64 * 1024;

/// A peer as it stands in frames: the bytes of its key, not yet known to be a valid one.
pub type RawPeer = [u8; 32];

/// What both ends of a relayed stream say, so that the server joins the right two: it names a conversation
/// (8 bytes) and which of its streams (4).
pub type Token = [u8; 12];

/// Why something was refused or has ended. Unknown numbers read as [`Self::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// It ended as it should.
    Done,
    /// The other peer is not registered at this server now.
    NotThere,
    /// A limit of the server or of the other peer is reached: later it may go.
    Busy,
    /// The relay's quota is used up.
    Quota,
    /// The other peer's connection to the server has ended.
    Gone,
    /// Another connection has registered with the same key.
    Replaced,
    /// The server stops, or begins anew.
    Stopping,
    /// This end has not kept to the protocol.
    Violation,
    /// Nothing was heard, or nothing was taken, for too long.
    Silent,
    /// A reason of a later version.
    Other,
}

const REASONS: [Reason; 9] = [
    Reason::Done,
    Reason::NotThere,
    Reason::Busy,
    Reason::Quota,
    Reason::Gone,
    Reason::Replaced,
    Reason::Stopping,
    Reason::Violation,
    Reason::Silent,
];

impl Reason {
    fn number(self) -> u8 {
        REASONS.iter().position(|other| *other == self).map_or(u8::MAX, |at| at as u8)
    }

    fn of(number: u8) -> Self {
        REASONS.get(usize::from(number)).copied().unwrap_or(Self::Other)
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Done => "it has ended",
            Self::NotThere => "the peer is not registered there now",
            Self::Busy => "a limit is reached; try again later",
            Self::Quota => "the relay's quota is used up; try again later, or another server",
            Self::Gone => "the peer has left the server",
            Self::Replaced => "the same key has registered again, from elsewhere",
            Self::Stopping => "the server stops",
            Self::Violation => "the protocol was not kept to",
            Self::Silent => "nothing was heard for too long",
            Self::Other => "for a reason of a later version",
        })
    }
}

/// One frame, in either direction. `peer` is whom it is for on the way to the server, and from whom it is on the way from
/// it. Channels are numbered by each peer for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Peer to server, first: the version that it speaks.
    Hello {
        /// [`VERSION`].
        version: u8,
    },
    /// Server to peer: it is registered.
    Welcome {
        /// [`VERSION`].
        version: u8,
        /// A peer that has sent nothing for so many seconds sends a ping.
        keepalive: u16,
        /// The largest window of a relayed stream, bytes.
        window: u32,
    },
    /// To be answered with a pong of the same number.
    Ping(u64),
    /// The answer.
    Pong(u64),
    /// A sealed message.
    Signal {
        /// The other peer.
        peer: RawPeer,
        /// What the server can not read.
        sealed: Bytes,
    },
    /// Server to peer: signals to this peer can not be delivered.
    Refused {
        /// The other peer.
        peer: RawPeer,
        /// Why not.
        why: Reason,
    },
    /// Peer to server: relay a stream, if the other peer asks for the same.
    Open {
        /// This peer's number for it.
        channel: u32,
        /// The other peer.
        peer: RawPeer,
        /// The same at both.
        token: Token,
        /// How many bytes this peer takes without having read them.
        window: u32,
    },
    /// Bytes of a relayed stream.
    Data {
        /// The receiver's or the sender's number for it.
        channel: u32,
        /// At least one byte, at most [`MAX_DATA`].
        bytes: Bytes,
    },
    /// So many bytes more may be sent.
    Window {
        /// Which stream.
        channel: u32,
        /// Bytes.
        more: u32,
    },
    /// No more bytes will be sent in this direction.
    Finish {
        /// Which stream.
        channel: u32,
    },
    /// The stream is over; the number will not be used again.
    Close {
        /// Which stream.
        channel: u32,
        /// Why.
        why: Reason,
    },
    /// The connection ends after this.
    Goodbye(Reason),
}

/// Why bytes are no frame. The connection can not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Longer than any frame may be.
    #[error("a frame of {0} bytes is longer than any may be")]
    TooLong(usize),
    /// A kind that this version does not know.
    #[error("there is no frame of kind {0}")]
    Kind(u8),
    /// The body has not the length that its kind has.
    #[error("a frame of kind {kind} can not have {len} bytes")]
    Length {
        /// The kind.
        kind: u8,
        /// The body's length.
        len: usize,
    },
}

impl Frame {
    /// Appends the frame to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[self.kind(), 0, 0, 0]);
        match self {
            Self::Hello { version } => out.push(*version),
            Self::Welcome { version, keepalive, window } => {
                out.push(*version);
                out.extend_from_slice(&keepalive.to_be_bytes());
                out.extend_from_slice(&window.to_be_bytes());
            }
            Self::Ping(n) | Self::Pong(n) => out.extend_from_slice(&n.to_be_bytes()),
            Self::Signal { peer, sealed } => put(out, &[peer, sealed]),
            Self::Refused { peer, why } => put(out, &[peer, &[why.number()]]),
            Self::Open { channel, peer, token, window } => {
                put(out, &[&channel.to_be_bytes(), peer, token, &window.to_be_bytes()]);
            }
            Self::Data { channel, bytes } => put(out, &[&channel.to_be_bytes(), bytes]),
            Self::Window { channel, more } => put(out, &[&channel.to_be_bytes(), &more.to_be_bytes()]),
            Self::Finish { channel } => put(out, &[&channel.to_be_bytes()]),
            Self::Close { channel, why } => put(out, &[&channel.to_be_bytes(), &[why.number()]]),
            Self::Goodbye(why) => out.push(why.number()),
        }
        let len = (out.len() - start - HEADER) as u32;
        out[start + 1..start + HEADER].copy_from_slice(&len.to_be_bytes()[1..]);
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Hello { .. } => 1,
            Self::Welcome { .. } => 2,
            Self::Ping(_) => 3,
            Self::Pong(_) => 4,
            Self::Signal { .. } => 5,
            Self::Refused { .. } => 6,
            Self::Open { .. } => 7,
            Self::Data { .. } => 8,
            Self::Window { .. } => 9,
            Self::Finish { .. } => 10,
            Self::Close { .. } => 11,
            Self::Goodbye(_) => 12,
        }
    }

    /// Takes the first frame out of `received`; `None` while it is not complete.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn read(received: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        let Some(&[kind, a, b, c]) = received.first_chunk::<HEADER>() else { return Ok(None) };
        let len = u32::from_be_bytes([0, a, b, c]) as usize;
        if len > MAX_BODY {
            return Err(FrameError::TooLong(len));
        }
        if kind == 0 || kind > 12 {
            return Err(FrameError::Kind(kind));
        }
        if received.len() < HEADER + len {
            return Ok(None);
        }
        received.advance(HEADER);
        let body = received.split_to(len).freeze();
        Self::parse(kind, body).map(Some).ok_or(FrameError::Length { kind, len })
    }

    fn parse(kind: u8, body: Bytes) -> Option<Self> {
        let mut rest = Rest(body);
        let frame = match kind {
            1 => Self::Hello { version: rest.byte()? },
            2 => Self::Welcome {
                version: rest.byte()?,
                keepalive: u16::from_be_bytes(rest.take()?),
                window: rest.u32()?,
            },
            3 => Self::Ping(u64::from_be_bytes(rest.take()?)),
            4 => Self::Pong(u64::from_be_bytes(rest.take()?)),
            5 => Self::Signal { peer: rest.take()?, sealed: rest.all(seal::OVERHEAD, MAX_SIGNAL)? },
            6 => Self::Refused { peer: rest.take()?, why: rest.reason()? },
            7 => Self::Open { channel: rest.u32()?, peer: rest.take()?, token: rest.take()?, window: rest.u32()? },
            8 => Self::Data { channel: rest.u32()?, bytes: rest.all(1, MAX_DATA)? },
            9 => Self::Window { channel: rest.u32()?, more: rest.u32()? },
            10 => Self::Finish { channel: rest.u32()? },
            11 => Self::Close { channel: rest.u32()?, why: rest.reason()? },
            12 => Self::Goodbye(rest.reason()?),
            _ => return None,
        };
        // A greeting of a later version may say more.
        (rest.0.is_empty() || matches!(frame, Self::Hello { .. } | Self::Welcome { .. })).then_some(frame)
    }
}

fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// What is yet to be read of a body.
struct Rest(Bytes);

impl Rest {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let taken = *self.0.first_chunk::<N>()?;
        self.0.advance(N);
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn reason(&mut self) -> Option<Reason> {
        self.byte().map(Reason::of)
    }

    fn all(&mut self, least: usize, most: usize) -> Option<Bytes> {
        (least..=most).contains(&self.0.len()).then(|| std::mem::take(&mut self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every() -> Vec<Frame> {
        let peer = [7; 32];
        vec![
            Frame::Hello { version: 1 },
            Frame::Welcome { version: 1, keepalive: 30, window: 1 << 20 },
            Frame::Ping(5),
            Frame::Pong(u64::MAX),
            Frame::Signal { peer, sealed: vec![3; seal::OVERHEAD].into() },
            Frame::Signal { peer, sealed: vec![3; MAX_SIGNAL].into() },
            Frame::Refused { peer, why: Reason::NotThere },
            Frame::Open { channel: 9, peer, token: [1; 12], window: 77 },
            Frame::Data { channel: 9, bytes: vec![5; MAX_DATA].into() },
            Frame::Data { channel: 9, bytes: vec![5].into() },
            Frame::Window { channel: 9, more: 1 },
            Frame::Finish { channel: u32::MAX },
            Frame::Close { channel: 0, why: Reason::Other },
            Frame::Goodbye(Reason::Silent),
        ]
    }

    #[test]
    fn frames_come_back_from_their_bytes_however_these_are_cut() {
        let mut bytes = Vec::new();
        every().iter().for_each(|frame| frame.write(&mut bytes));
        for step in [1, 7, 1000, bytes.len()] {
            let (mut received, mut read) = (BytesMut::new(), Vec::new());
            for chunk in bytes.chunks(step) {
                received.extend_from_slice(chunk);
                while let Some(frame) = Frame::read(&mut received).unwrap() {
                    read.push(frame);
                }
            }
            assert_eq!((read, received.len()), (every(), 0));
        }
    }

    #[test]
    fn what_is_no_frame_is_refused_before_its_body_has_come() {
        let read = |bytes: &[u8]| Frame::read(&mut BytesMut::from(bytes));
        assert_eq!(read(&[8, 255, 255, 255]), Err(FrameError::TooLong(0xFF_FFFF)));
        assert_eq!(read(&[0, 0, 0, 0]), Err(FrameError::Kind(0)));
        assert_eq!(read(&[13, 0, 0, 0]), Err(FrameError::Kind(13)));
        assert_eq!(read(&[8, 0, 0, 4, 0, 0, 0, 1]), Err(FrameError::Length { kind: 8, len: 4 }));
        assert_eq!(read(&[10, 0, 0, 5, 0, 0, 0, 1, 0]), Err(FrameError::Length { kind: 10, len: 5 }));
        assert_eq!(read(&[10, 0, 0, 4, 0, 0, 0]), Ok(None));
    }

    #[test]
    fn a_full_data_frame_is_one_tls_record() {
        let mut bytes = Vec::new();
        Frame::Data { channel: 1, bytes: vec![0; MAX_DATA].into() }.write(&mut bytes);
        assert_eq!(bytes.len(), 16 * 1024);
    }
}
