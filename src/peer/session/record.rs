//! Decides: the records of a session, and finding them in a stream of bytes.
//!
//! A record is a header of eight bytes (kind, length of the payload in three bytes, channel in four, all
//! big-endian) and its payload.

use bytes::{Buf, Bytes, BytesMut};

use super::ProtocolError;

/// Bytes of a header.
pub(crate) const HEADER: usize = 8;

/// The longest payload: with it a record's cost is below one part in eight thousand, and another
/// channel waits no longer than one of these takes.
pub(crate) const MAX_PAYLOAD: usize = 1 << 16;

/// Payloads shorter than this are copied: one that waits for its turn, or for its reader, would keep all that was received with it.
const COPIED: usize = 4 << 10;

/// What a record says. Those from [`Open`](Kind::Open) to [`Close`](Kind::Close) are numbered and survive the loss of a path;
/// the others concern the path that they came on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// First on each path: which session, which attempt, and what was received so far.
    Hello,
    /// The number of the next record that is expected.
    Ack,
    /// To be answered at once, with the same payload.
    Ping,
    /// The answer.
    Pong,
    /// A datagram of a channel, where the path has no datagrams of its own.
    Datagram,
    /// The path in use says nothing any more: the other end, which chooses, should choose this one.
    Doubt,
    /// A new channel; the payload says its kind.
    Open,
    /// Bytes of a channel.
    Data,
    /// No more bytes will come on this channel.
    Finish,
    /// Nobody reads this channel any more.
    Stop,
    /// That many bytes more may be sent on this channel.
    Window,
    /// The session is over: everything was said.
    Close,
    /// The number of the next numbered record on this path, where it is not the one after the last: others go other ways. The
    /// channel is [`TELL`](Self::TELL) where the other end is to say what comes.
    At,
    /// A datagram of a channel that goes other ways as well: its number, then its bytes.
    Twin,
    /// How many bytes of numbered records have come on this path.
    Came,
}

impl Kind {
    /// In the place of a channel in an [`At`](Self::At): what comes from now on is to be told by [`Came`](Self::Came).
    pub(crate) const TELL: u32 = 1;

    /// True for what is numbered, acknowledged and sent again on another path.
    pub(crate) fn is_numbered(self) -> bool {
        (Self::Open as u8..=Self::Close as u8).contains(&(self as u8))
    }

    fn from_byte(byte: u8) -> Option<Self> {
        const ALL: [Kind; 15] = [
            Kind::Hello,
            Kind::Ack,
            Kind::Ping,
            Kind::Pong,
            Kind::Datagram,
            Kind::Doubt,
            Kind::Open,
            Kind::Data,
            Kind::Finish,
            Kind::Stop,
            Kind::Window,
            Kind::Close,
            Kind::At,
            Kind::Twin,
            Kind::Came,
        ];
        ALL.get(usize::from(byte)).copied()
    }
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    pub(crate) channel: u32,
    /// At most [`MAX_PAYLOAD`] bytes.
    pub(crate) payload: Bytes,
}

impl Record {
    pub(crate) fn new(kind: Kind, channel: u32, payload: impl Into<Bytes>) -> Self {
        Self { kind, channel, payload: payload.into() }
    }

    pub(crate) fn header(&self) -> [u8; HEADER] {
        let [_, long @ ..] = u32::try_from(self.payload.len()).unwrap_or(u32::MAX).to_be_bytes();
        let mut header = [0; HEADER];
        header[0] = self.kind as u8;
        header[1..4].copy_from_slice(&long);
        header[4..].copy_from_slice(&self.channel.to_be_bytes());
        header
    }

    /// Bytes on the path.
    pub(crate) fn len(&self) -> usize {
        HEADER + self.payload.len()
    }

    /// The payload as one number.
    pub(crate) fn number(&self) -> Result<u64, ProtocolError> {
        let bytes = <[u8; 8]>::try_from(&self.payload[..]).map_err(|_| ProtocolError::Length(self.kind))?;
        Ok(u64::from_be_bytes(bytes))
    }
}

/// Takes whole records from the front of what was received.
///
/// # Errors
/// A kind that is not known, or a payload that is too long.
pub(crate) fn next_record(received: &mut BytesMut) -> Result<Option<Record>, ProtocolError> {
    let Some((kind, channel, len)) = next_header(received)? else { return Ok(None) };
    if received.len() < HEADER + len {
        return Ok(None);
    }
    received.advance(HEADER);
    let payload = if len < COPIED {
        let copy = Bytes::copy_from_slice(&received[..len]);
        received.advance(len);
        copy
    } else {
        received.split_to(len).freeze()
    };
    Ok(Some(Record { kind, channel, payload }))
}

/// Kind, channel and length of the payload of the record that begins there; nothing is taken.
///
/// # Errors
/// As [`next_record`].
pub(crate) fn next_header(received: &[u8]) -> Result<Option<(Kind, u32, usize)>, ProtocolError> {
    let Some((header, _)) = received.split_first_chunk::<HEADER>() else { return Ok(None) };
    let [kind, l2, l1, l0, channel @ ..] = *header;
    let kind = Kind::from_byte(kind).ok_or(ProtocolError::Kind(kind))?;
    let len = u32::from_be_bytes([0, l2, l1, l0]) as usize;
    if len > MAX_PAYLOAD {
        return Err(ProtocolError::TooLong(len));
    }
    Ok(Some((kind, u32::from_be_bytes(channel), len)))
}

/// The next record's header and payload, for the fuzz target.
///
/// # Errors
/// A kind that is not known, or a payload that is too long, as text.
#[doc(hidden)]
pub fn reread(received: &mut BytesMut) -> Result<Option<([u8; HEADER], Bytes)>, String> {
    let record = next_record(received).map_err(|error| error.to_string())?;
    Ok(record.map(|record| (record.header(), record.payload)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_comes_in_pieces_is_found_once_it_is_whole() {
        let record = Record::new(Kind::Data, 0x0102_0304, &b"payload"[..]);
        let mut wire = record.header().to_vec();
        wire.extend_from_slice(&record.payload);
        let mut received = BytesMut::new();
        for byte in &wire[..wire.len() - 1] {
            received.extend_from_slice(&[*byte]);
            assert_eq!(next_record(&mut received), Ok(None));
        }
        received.extend_from_slice(&wire[wire.len() - 1..]);
        assert_eq!(next_record(&mut received), Ok(Some(record)));
        assert!(received.is_empty());
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_bytes_come() {
        let mut received = BytesMut::from(&[Kind::Data as u8, 1, 0, 1, 0, 0, 0, 1][..]);
        assert_eq!(next_record(&mut received), Err(ProtocolError::TooLong(65_537)));
    }

    #[test]
    fn an_unknown_kind_is_refused() {
        let mut received = BytesMut::from(&[15, 0, 0, 0, 0, 0, 0, 1][..]);
        assert_eq!(next_record(&mut received), Err(ProtocolError::Kind(15)));
    }

    #[test]
    fn each_kind_is_read_as_what_it_was_written() {
        for byte in 0..15 {
            assert_eq!(Kind::from_byte(byte).map(|kind| kind as u8), Some(byte));
        }
        assert_eq!(Kind::from_byte(15), None);
    }
}
