//! Decides: what stands in a frame.

use bytes::{Buf, Bytes};

use crate::smart::Identity;

/// The version in HELLO.
pub const VERSION: u8 = 1;

const HELLO: u8 = 1;
const HEARTBEAT: u8 = 2;
const DATA: u8 = 3;
const DATA_REQ: u8 = 4;
const ACK: u8 = 5;
/// Natpipe's own, far from the protocol's: other implementations skip types that they do not know.
const SUBSCRIBE: u8 = 0x60;
const UNSUBSCRIBE: u8 = 0x61;

const ID: usize = 16;
/// The longest topic that a peer may ask for, in bytes.
const TOPIC: usize = 1024;
/// A frame's length and an envelope's type.
pub(crate) const CONTROL_HEAD: usize = 5;

/// Names one message that is to be acknowledged.
pub type MessageId = [u8; ID];

/// One frame's content.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Envelope {
    /// The first frame of each end.
    Hello {
        /// The protocol's version.
        version: u8,
        /// Who says it.
        identity: Identity,
    },
    /// Nothing but a sign of life.
    Heartbeat,
    /// A message.
    Data(Bytes),
    /// A message that is to be acknowledged.
    DataReq(MessageId, Bytes),
    /// The acknowledgement.
    Ack(MessageId),
    /// From now on only published messages that begin with one of the topics asked for.
    Subscribe(Bytes),
    /// Takes a topic back.
    Unsubscribe(Bytes),
    /// Something to be skipped: an unknown type, or a frame with nothing in it.
    Skipped,
}

/// What is wrong with an envelope of a known type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// HELLO is a version and 16 bytes of identity.
    #[error("a HELLO of {0} bytes; a version and an identity are 17")]
    Hello(usize),
    /// A message with an id, or its acknowledgement, is too short for the id, or too long.
    #[error("a message id of {0} bytes; it has 16")]
    Id(usize),
    /// A topic is too long.
    #[error("a topic of {0} bytes; {TOPIC} are the most")]
    Topic(usize),
}

impl Envelope {
    /// Reads a frame. The payload shares the frame's memory.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(mut frame: Bytes) -> Result<Self, Malformed> {
        let Some(&kind) = frame.first() else { return Ok(Self::Skipped) };
        frame.advance(1);
        Ok(match kind {
            DATA => Self::Data(frame),
            DATA_REQ => {
                let id = id(&frame)?;
                frame.advance(ID);
                Self::DataReq(id, frame)
            }
            ACK if frame.len() == ID => Self::Ack(id(&frame)?),
            ACK => return Err(Malformed::Id(frame.len())),
            HEARTBEAT => Self::Heartbeat,
            HELLO => hello(&frame)?,
            SUBSCRIBE => Self::Subscribe(topic(frame)?),
            UNSUBSCRIBE => Self::Unsubscribe(topic(frame)?),
            _ => Self::Skipped,
        })
    }

    /// Appends the frame, its length included. What is to be skipped is not written.
    pub fn encode(&self, to: &mut Vec<u8>) {
        match self {
            Self::Hello { version, identity } => frame(to, HELLO, &[&[*version], identity.as_bytes()]),
            Self::Heartbeat => frame(to, HEARTBEAT, &[]),
            Self::Data(payload) => frame(to, DATA, &[payload]),
            Self::DataReq(id, payload) => frame(to, DATA_REQ, &[id, payload]),
            Self::Ack(id) => frame(to, ACK, &[id]),
            Self::Subscribe(topic) => frame(to, SUBSCRIBE, &[topic]),
            Self::Unsubscribe(topic) => frame(to, UNSUBSCRIBE, &[topic]),
            Self::Skipped => {}
        }
    }
}

fn id(frame: &[u8]) -> Result<MessageId, Malformed> {
    frame.first_chunk().copied().ok_or(Malformed::Id(frame.len()))
}

fn hello(frame: &[u8]) -> Result<Envelope, Malformed> {
    match frame.split_first_chunk::<1>() {
        Some(([version], identity)) if identity.len() == ID || *version != VERSION => {
            // Another version may say more or less; what it is matters only to those who speak it.
            let identity = Identity::from(identity.first_chunk().copied().unwrap_or_default());
            Ok(Envelope::Hello { version: *version, identity })
        }
        _ => Err(Malformed::Hello(frame.len())),
    }
}

fn topic(frame: Bytes) -> Result<Bytes, Malformed> {
    // It is kept as long as the connection: not with the memory of everything read beside it.
    if frame.len() > TOPIC { Err(Malformed::Topic(frame.len())) } else { Ok(Bytes::copy_from_slice(&frame)) }
}

fn frame(to: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let len: usize = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
    to.reserve(4 + len);
    to.extend_from_slice(&(len as u32).to_be_bytes());
    to.push(kind);
    parts.iter().for_each(|part| to.extend_from_slice(part));
}

/// What stands before a payload: the frame's length, the type, and the id where there is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    bytes: [u8; CONTROL_HEAD + ID],
    len: u8,
}

impl Head {
    pub(crate) fn new(id: Option<&MessageId>, payload: usize) -> Self {
        let mut bytes = [0; CONTROL_HEAD + ID];
        let extra = if id.is_some() { ID } else { 0 };
        bytes[..4].copy_from_slice(&((1 + extra + payload) as u32).to_be_bytes());
        bytes[4] = if id.is_some() { DATA_REQ } else { DATA };
        if let Some(id) = id {
            bytes[CONTROL_HEAD..].copy_from_slice(id);
        }
        Self { bytes, len: (CONTROL_HEAD + extra) as u8 }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The size of the whole frame that `bytes` begin with, if it carries a message and is well-formed.
    pub(crate) fn measure(bytes: &[u8]) -> Option<usize> {
        let len = u32::from_be_bytes(*bytes.first_chunk()?) as usize;
        let least = match *bytes.get(4)? {
            DATA => 1,
            DATA_REQ => 1 + ID,
            _ => return None,
        };
        (len >= least).then_some(4 + len)
    }

    /// What stands before the payload of a frame, its length not counted.
    pub(crate) fn extra(frame: &[u8]) -> usize {
        if Self::asks_ack(frame) { 1 + ID } else { 1 }
    }

    /// True of a whole frame that carries a message.
    pub(crate) fn carries_message(frame: &[u8]) -> bool {
        matches!(frame.get(4), Some(&(DATA | DATA_REQ)))
    }

    /// True of a whole frame that carries a message to be acknowledged.
    pub(crate) fn asks_ack(frame: &[u8]) -> bool {
        frame.get(4) == Some(&DATA_REQ)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(envelope: &Envelope) -> Vec<u8> {
        let mut bytes = Vec::new();
        envelope.encode(&mut bytes);
        bytes
    }

    #[test]
    fn the_bytes_are_those_of_the_protocol() {
        let identity = Identity::from([0xAB; 16]);
        let hello = written(&Envelope::Hello { version: 1, identity });
        assert_eq!(&hello[..6], b"\0\0\0\x12\x01\x01");
        assert_eq!(hello.len(), 22);
        assert_eq!(written(&Envelope::Heartbeat), b"\0\0\0\x01\x02");
        assert_eq!(written(&Envelope::Data(Bytes::from_static(b"hi"))), b"\0\0\0\x03\x03hi");
        let asked = written(&Envelope::DataReq([7; 16], Bytes::from_static(b"hi")));
        assert_eq!(asked.len(), 4 + 1 + 16 + 2);
        assert_eq!(&asked[..6], b"\0\0\0\x13\x04\x07");
        assert_eq!(&written(&Envelope::Ack([7; 16]))[..6], b"\0\0\0\x11\x05\x07");
    }

    #[test]
    fn a_head_is_what_the_envelope_begins_with() {
        let payload = Bytes::from_static(b"payload");
        let data = written(&Envelope::Data(payload.clone()));
        assert_eq!(data, [Head::new(None, 7).as_slice(), b"payload"].concat());
        let asked = written(&Envelope::DataReq([9; 16], payload));
        assert_eq!(asked, [Head::new(Some(&[9; 16]), 7).as_slice(), b"payload"].concat());
    }

    #[test]
    fn what_is_written_is_read_and_what_is_short_is_refused() {
        let identity = Identity::from([3; 16]);
        for envelope in [
            Envelope::Hello { version: 1, identity },
            Envelope::Heartbeat,
            Envelope::Data(Bytes::new()),
            Envelope::DataReq([1; 16], Bytes::new()),
            Envelope::Ack([2; 16]),
            Envelope::Subscribe(Bytes::from_static(b"news.")),
            Envelope::Unsubscribe(Bytes::from_static(b"news.")),
        ] {
            let bytes = Bytes::from(written(&envelope));
            assert_eq!(Envelope::decode(bytes.slice(4..)), Ok(envelope));
        }
        let of = |bytes: &'static [u8]| Envelope::decode(Bytes::from_static(bytes));
        assert_eq!(of(b""), Ok(Envelope::Skipped));
        assert_eq!(of(b"\x99rest"), Ok(Envelope::Skipped));
        assert_eq!(of(b"\x01\x01abc"), Err(Malformed::Hello(4)));
        assert_eq!(of(b"\x04short"), Err(Malformed::Id(5)));
        assert_eq!(of(b"\x05"), Err(Malformed::Id(0)));
        assert!(matches!(of(b"\x01\x02"), Ok(Envelope::Hello { version: 2, .. })));
    }
}
