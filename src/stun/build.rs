//! Decides: how a message is written, attribute by attribute, into memory that the caller owns; allocates nothing.

use std::net::SocketAddr;

use super::address;
use super::attribute::{Change, Class, HEADER_LEN, MAX_MESSAGE_LEN, TransactionId, kind};
use super::integrity::{self, Key};
use super::message::join_type;

/// The message did not fit. Give a longer buffer or fewer attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message needs {needed} bytes, there is room for {room}")]
pub struct NoRoom {
    /// How long it would have become.
    pub needed: usize,
    /// How long it may become.
    pub room: usize,
}

/// Writes one message. What closes it goes in this order: integrity, integrity with SHA256, fingerprint, `finish`.
///
/// ```
/// use natpipe::stun::{BINDING, Class, Message, TransactionId, Writer, kind};
///
/// let mut buffer = [0; 64];
/// let mut writer = Writer::new(&mut buffer, Class::Request, BINDING, TransactionId::modern([1; 12]))?;
/// writer.attribute(kind::SOFTWARE, b"natpipe")?;
/// writer.fingerprint()?;
/// let len = writer.finish();
/// assert_eq!(Message::parse(&buffer[..len]).unwrap().fingerprint(), Some(true));
/// # Ok::<(), natpipe::stun::NoRoom>(())
/// ```
#[derive(Debug)]
pub struct Writer<'b> {
    out: &'b mut [u8],
    len: usize,
    id: TransactionId,
}

impl<'b> Writer<'b> {
    /// Begins a message at the start of `out`; of `method` the lower 12 bits count.
    ///
    /// # Errors
    /// [`NoRoom`] if `out` is shorter than a header.
    pub fn new(out: &'b mut [u8], class: Class, method: u16, id: TransactionId) -> Result<Self, NoRoom> {
        let room = out.len();
        let header = out.first_chunk_mut::<HEADER_LEN>().ok_or(NoRoom { needed: HEADER_LEN, room })?;
        header[..2].copy_from_slice(&join_type(class, method).to_be_bytes());
        header[2..4].fill(0);
        header[4..].copy_from_slice(&id.0);
        Ok(Self { out, len: HEADER_LEN, id })
    }

    /// Adds an attribute with this value, padded with zeros to whole words.
    ///
    /// # Errors
    /// [`NoRoom`], as for all the other attributes; the message stays as it was.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> Result<&mut Self, NoRoom> {
        self.reserve(kind, value.len())?[..value.len()].copy_from_slice(value);
        Ok(self)
    }

    /// Adds an address as it is.
    pub fn address(&mut self, kind: u16, address: SocketAddr) -> Result<&mut Self, NoRoom> {
        let mut value = [0; address::MAX_LEN];
        let len = address::write(address, &mut value);
        self.attribute(kind, &value[..len])
    }

    /// Adds an address XORed with the transaction id.
    pub fn xor_address(&mut self, kind: u16, address: SocketAddr) -> Result<&mut Self, NoRoom> {
        self.address(kind, address::xor(address, &self.id))
    }

    /// Adds CHANGE-REQUEST.
    pub fn change(&mut self, change: Change) -> Result<&mut Self, NoRoom> {
        self.attribute(kind::CHANGE_REQUEST, &change.to_value())
    }

    /// Adds RESPONSE-PORT.
    pub fn response_port(&mut self, port: u16) -> Result<&mut Self, NoRoom> {
        let [high, low] = port.to_be_bytes();
        self.attribute(kind::RESPONSE_PORT, &[high, low, 0, 0])
    }

    /// Adds PADDING of `len` zeros.
    pub fn padding(&mut self, len: usize) -> Result<&mut Self, NoRoom> {
        self.reserve(kind::PADDING, len)?;
        Ok(self)
    }

    /// Adds ERROR-CODE.
    pub fn error(&mut self, code: u16, reason: &str) -> Result<&mut Self, NoRoom> {
        let value = self.reserve(kind::ERROR_CODE, 4 + reason.len())?;
        value[2] = (code / 100) as u8;
        value[3] = (code % 100) as u8;
        value[4..4 + reason.len()].copy_from_slice(reason.as_bytes());
        Ok(self)
    }

    /// Adds UNKNOWN-ATTRIBUTES. For RFC 3489, which has no padding, an odd list repeats its last type.
    pub fn unknown_attributes(&mut self, kinds: &[u16]) -> Result<&mut Self, NoRoom> {
        let repeated = if self.id.is_classic() { kinds.len() % 2 } else { 0 };
        let value = self.reserve(kind::UNKNOWN_ATTRIBUTES, 2 * (kinds.len() + repeated))?;
        let kinds = kinds.iter().chain(kinds.last().filter(|_| repeated == 1));
        for (pair, kind) in value.chunks_exact_mut(2).zip(kinds) {
            pair.copy_from_slice(&kind.to_be_bytes());
        }
        Ok(self)
    }

    /// Adds MESSAGE-INTEGRITY over all that stands before it.
    pub fn integrity(&mut self, key: &Key) -> Result<&mut Self, NoRoom> {
        let at = self.len;
        self.reserve(kind::MESSAGE_INTEGRITY, integrity::SHA1_LEN)?;
        self.close(at, &integrity::sha1(key, self.out, at));
        Ok(self)
    }

    /// Adds MESSAGE-INTEGRITY-SHA256 over all that stands before it.
    pub fn integrity_sha256(&mut self, key: &Key) -> Result<&mut Self, NoRoom> {
        let at = self.len;
        self.reserve(kind::MESSAGE_INTEGRITY_SHA256, integrity::SHA256_LEN)?;
        self.close(at, &integrity::sha256(key, self.out, at));
        Ok(self)
    }

    /// Adds FINGERPRINT over all that stands before it; nothing may follow.
    pub fn fingerprint(&mut self) -> Result<&mut Self, NoRoom> {
        let at = self.len;
        self.reserve(kind::FINGERPRINT, integrity::FINGERPRINT_LEN)?;
        self.close(at, &integrity::fingerprint(self.out, at));
        Ok(self)
    }

    /// How long the message is so far, in bytes.
    #[allow(clippy::len_without_is_empty, reason = "it always has a header")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Ends the message and says how many bytes of the buffer it takes.
    pub fn finish(self) -> usize {
        self.len
    }

    fn close(&mut self, at: usize, value: &[u8]) {
        self.out[at + 4..self.len].copy_from_slice(value);
    }

    /// Writes an attribute's header and zeros for its value; hands out value and padding.
    fn reserve(&mut self, kind: u16, value_len: usize) -> Result<&mut [u8], NoRoom> {
        let room = self.out.len().min(MAX_MESSAGE_LEN);
        let needed = self.len + 4 + value_len.next_multiple_of(4);
        if needed > room {
            return Err(NoRoom { needed, room });
        }
        let at = std::mem::replace(&mut self.len, needed);
        let length = ((needed - HEADER_LEN) as u16).to_be_bytes();
        self.out[2..4].copy_from_slice(&length);
        self.out[at..at + 2].copy_from_slice(&kind.to_be_bytes());
        self.out[at + 2..at + 4].copy_from_slice(&(value_len as u16).to_be_bytes());
        let value = &mut self.out[at + 4..needed];
        value.fill(0);
        Ok(value)
    }
}
