//! Decides: the frames between two processes, as bytes and back.
//!
//! A frame is a `u32` length in network order, then a kind, then an id of eight bytes, then what the kind has. The first
//! frame of each end is a greeting with the version.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::comm::{Format, Payload};

/// Begins the greeting; it ends with the version.
const MAGIC: &[u8; 7] = b"natpipe";
const VERSION: u8 = 1;
/// What a frame may have beside its body: two names of 255 bytes, and some numbers.
const BESIDE: usize = 1024;
/// The longest frame of who has not greeted: the greeting.
pub(super) const GREETING: usize = 1 + MAGIC.len() + 1;
/// The longest reason for a refusal, in bytes.
const REASON: usize = 512;

/// The longest frame, where bodies have no more than this.
pub(super) fn longest(max_body: usize) -> usize {
    max_body.saturating_add(BESIDE)
}

/// Who gets a message, and with what its queue is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) exchange: String,
    pub(super) key: String,
    pub(super) auto_delete: bool,
    pub(super) durable: bool,
    pub(super) declare: bool,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Full,
    Unroutable,
    NotFound,
    Differs,
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Hello,
    Push(u64, Address, Payload),
    Call(u64, Address, Payload),
    /// A push is in its queue.
    Taken(u64),
    Answer(u64, Payload),
    Refused(u64, Why, String),
    /// Nobody waits for the answer any more.
    GiveUp(u64),
}

/// Bytes that are no frame: the other end speaks something else, or is hostile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame of {size} bytes, more than {limit}")]
    TooLong { size: usize, limit: usize },
    #[error("it does not speak natpipe's protocol")]
    NoGreeting,
    #[error("it speaks version {0}, this is {VERSION}")]
    Version(u8),
    #[error("a frame that is {0}")]
    Malformed(&'static str),
}

impl Frame {
    /// Appends the frame to `out`. Names have been checked to be short.
    pub(super) fn write(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_u32(0);
        match self {
            Self::Hello => {
                out.put_u8(0);
                out.put_slice(MAGIC);
                out.put_u8(VERSION);
            }
            Self::Push(id, to, payload) => message(out, 1, *id, to, payload),
            Self::Call(id, to, payload) => message(out, 2, *id, to, payload),
            Self::Taken(id) => head(out, 3, *id),
            Self::Answer(id, payload) => {
                head(out, 4, *id);
                put_payload(out, payload);
            }
            Self::Refused(id, why, reason) => {
                head(out, 5, *id);
                out.put_u8(why.code());
                out.put_slice(reason.as_bytes());
            }
            Self::GiveUp(id) => head(out, 6, *id),
        }
        let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Takes the first frame off `bytes`, when all of it is there. One longer than `limit` is an error as soon as it is announced.
    pub(super) fn read(bytes: &mut BytesMut, limit: usize) -> Result<Option<Self>, FrameError> {
        let Some(head) = bytes.first_chunk::<4>() else { return Ok(None) };
        let size = u32::from_be_bytes(*head) as usize;
        if size > limit {
            // Something that begins with text is another protocol, not a long frame.
            return Err(if head.is_ascii() { FrameError::NoGreeting } else { FrameError::TooLong { size, limit } });
        }
        if bytes.len() < 4 + size {
            return Ok(None);
        }
        bytes.advance(4);
        Self::parse(bytes.split_to(size).freeze()).map(Some)
    }

    fn parse(mut body: Bytes) -> Result<Self, FrameError> {
        let kind = take_u8(&mut body)?;
        if kind == 0 {
            return greeting(&body);
        }
        let id = body.try_get_u64().map_err(|_| SHORT)?;
        match kind {
            1 | 2 => {
                let to = address(&mut body)?;
                let payload = take_payload(body)?;
                Ok(if kind == 1 { Self::Push(id, to, payload) } else { Self::Call(id, to, payload) })
            }
            3 => Ok(Self::Taken(id)),
            4 => Ok(Self::Answer(id, take_payload(body)?)),
            5 => {
                let why = Why::from_code(take_u8(&mut body)?);
                Ok(Self::Refused(id, why, String::from_utf8_lossy(&body[..body.len().min(REASON)]).into_owned()))
            }
            6 => Ok(Self::GiveUp(id)),
            _ => Err(FrameError::Malformed("of an unknown kind")),
        }
    }
}

const SHORT: FrameError = FrameError::Malformed("too short");

fn greeting(body: &Bytes) -> Result<Frame, FrameError> {
    match body.strip_prefix(MAGIC) {
        Some([VERSION]) => Ok(Frame::Hello),
        Some([version]) => Err(FrameError::Version(*version)),
        _ => Err(FrameError::NoGreeting),
    }
}

fn head(out: &mut BytesMut, kind: u8, id: u64) {
    out.put_u8(kind);
    out.put_u64(id);
}

fn message(out: &mut BytesMut, kind: u8, id: u64, to: &Address, payload: &Payload) {
    head(out, kind, id);
    out.put_u8(u8::from(to.auto_delete) | u8::from(to.durable) << 1 | u8::from(to.declare) << 2);
    for name in [&to.exchange, &to.key] {
        let short = &name.as_bytes()[..name.len().min(255)];
        out.put_u8(u8::try_from(short.len()).unwrap_or(u8::MAX));
        out.put_slice(short);
    }
    put_payload(out, payload);
}

fn address(body: &mut Bytes) -> Result<Address, FrameError> {
    let flags = take_u8(body)?;
    let exchange = name(body)?;
    let key = name(body)?;
    let flag = |bit: u8| flags & (1 << bit) != 0;
    Ok(Address { exchange, key, auto_delete: flag(0), durable: flag(1), declare: flag(2) })
}

fn name(body: &mut Bytes) -> Result<String, FrameError> {
    let length = take_u8(body)?.into();
    if body.len() < length {
        return Err(SHORT);
    }
    String::from_utf8(body.split_to(length).to_vec()).map_err(|_| FrameError::Malformed("with a name that is no text"))
}

fn put_payload(out: &mut BytesMut, payload: &Payload) {
    out.put_u8(match payload.format {
        None => 0,
        Some(Format::Yaml) => 1,
        Some(Format::Json) => 2,
        Some(Format::MessagePack) => 3,
        Some(Format::Raw) => 4,
    });
    out.put_u16(payload.code.unwrap_or(0));
    out.put_slice(&payload.body);
}

fn take_payload(mut body: Bytes) -> Result<Payload, FrameError> {
    let format = match take_u8(&mut body)? {
        0 => None,
        1 => Some(Format::Yaml),
        2 => Some(Format::Json),
        3 => Some(Format::MessagePack),
        4 => Some(Format::Raw),
        _ => return Err(FrameError::Malformed("in an unknown format")),
    };
    let code = body.try_get_u16().map_err(|_| SHORT)?;
    Ok(Payload { body, format, code: (code != 0).then_some(code) })
}

fn take_u8(body: &mut Bytes) -> Result<u8, FrameError> {
    body.try_get_u8().map_err(|_| SHORT)
}

impl Why {
    fn code(self) -> u8 {
        match self {
            Self::Full => 1,
            Self::Unroutable => 2,
            Self::NotFound => 3,
            Self::Differs => 4,
            Self::Refused => 5,
        }
    }

    fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Full,
            2 => Self::Unroutable,
            3 => Self::NotFound,
            4 => Self::Differs,
            _ => Self::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        let to =
            Address { exchange: String::new(), key: "q".repeat(255), auto_delete: true, durable: false, declare: true };
        let payload = Payload { body: Bytes::from_static(b"body"), format: Some(Format::Raw), code: Some(404) };
        let plain = Payload { body: Bytes::new(), format: None, code: None };
        vec![
            Frame::Hello,
            Frame::Push(1, to.clone(), payload.clone()),
            Frame::Call(u64::MAX, to, plain),
            Frame::Taken(2),
            Frame::Answer(3, payload),
            Frame::Refused(4, Why::Differs, "why".into()),
            Frame::GiveUp(5),
        ]
    }

    #[test]
    fn frames_survive_any_cut() {
        let mut wire = BytesMut::new();
        frames().iter().for_each(|frame| frame.write(&mut wire));
        for step in [1, 2, 7, 1000] {
            let (mut got, mut buffer) = (Vec::new(), BytesMut::new());
            for piece in wire.chunks(step) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = Frame::read(&mut buffer, longest(100)).unwrap() {
                    got.push(frame);
                }
            }
            assert_eq!(got, frames());
        }
    }

    #[test]
    fn a_length_is_checked_before_anything_is_kept() {
        let mut wire = BytesMut::from(&b"\xff\xff\xff\xff"[..]);
        assert!(matches!(Frame::read(&mut wire, 100), Err(FrameError::TooLong { .. })));
        let mut greeting = BytesMut::new();
        Frame::Hello.write(&mut greeting);
        assert_eq!(Frame::read(&mut greeting.clone(), GREETING), Ok(Some(Frame::Hello)));
        assert!(Frame::read(&mut greeting, GREETING - 1).is_err());
        let mut http = BytesMut::from(&b"GET / HTTP/1.1\r\n"[..]);
        assert_eq!(Frame::read(&mut http, 100), Err(FrameError::NoGreeting));
    }

    #[test]
    fn every_beginning_and_every_changed_byte_is_an_error_or_a_frame() {
        for frame in frames() {
            let mut wire = BytesMut::new();
            frame.write(&mut wire);
            for cut in 0..wire.len() - 4 {
                let mut short = BytesMut::from(&u32::try_from(cut).unwrap().to_be_bytes()[..]);
                short.extend_from_slice(&wire[4..4 + cut]);
                let _ = Frame::read(&mut short, longest(100));
            }
            for at in 4..wire.len() {
                for bit in 0..8 {
                    let mut changed = wire.clone();
                    changed[at] ^= 1 << bit;
                    let _ = Frame::read(&mut changed, longest(100));
                }
            }
        }
    }
}
