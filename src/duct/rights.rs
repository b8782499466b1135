//! Decides: which message the descriptors belong to that came beside the bytes.

use std::os::fd::OwnedFd;

use super::codec::Codec;
use super::error::RecvError;
use super::wire::Incoming;

/// Payloads from here on are taken out of the buffer instead of read in it.
pub(crate) const LARGE: usize = 4 << 10;

/// A message with the descriptors that came with it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Received<T> {
    /// The object.
    pub object: T,
    /// The descriptors, in the order in which they were sent; closed when dropped, and at `exec`.
    pub descriptors: Vec<OwnedFd>,
}

/// Descriptors that came and whose message was not yet taken.
///
/// The kernel ends a read behind the piece of a message that carries descriptors, and a sender writes such a message
/// by itself: so they belong to the message that the last byte of that read is in.
#[derive(Debug, Default)]
pub(crate) struct Rights {
    /// Where, counted in bytes from the beginning of the stream, and which.
    held: Vec<(u64, OwnedFd)>,
    /// Where some were lost.
    lost: Option<u64>,
}

impl Rights {
    /// A read ended at `come` and brought these; `lost`: and more, for which there was no room. `most` are held.
    pub(crate) fn handle_read(&mut self, come: u64, fds: Vec<OwnedFd>, lost: bool, most: usize) {
        let last = come.saturating_sub(1);
        if lost || self.held.len() + fds.len() > most {
            self.lost = Some(last);
            return;
        }
        self.held.extend(fds.into_iter().map(|fd| (last, fd)));
    }

    /// Those of a message that ended at `taken`, all messages before it having been taken.
    fn poll_message(&mut self, taken: u64) -> Result<Vec<OwnedFd>, ()> {
        let here = self.held.iter().take_while(|(at, _)| *at < taken).count();
        let fds = self.held.drain(..here).map(|(_, fd)| fd).collect();
        match self.lost.take_if(|at| *at < taken) {
            Some(_) => Err(()),
            None => Ok(fds),
        }
    }
}

/// Takes the first message, which has `len` bytes, as an object with its descriptors.
pub(crate) fn take<T>(
    incoming: &mut Incoming,
    rights: &mut Rights,
    len: usize,
    codec: &impl Codec<T>,
    most: usize,
) -> Result<Received<T>, RecvError> {
    let object = if len >= LARGE {
        let payload = incoming.take(len);
        codec.decode_bytes(payload)
    } else {
        codec.decode(incoming.first(len).payload())
    };
    let descriptors = match most {
        0 => Vec::new(),
        _ => rights.poll_message(incoming.taken()).map_err(|()| RecvError::Descriptors { limit: most })?,
    };
    let object = object.map_err(|source| RecvError::Decode { len, source })?;
    Ok(Received { object, descriptors })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fd() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn descriptors_belong_to_the_message_with_the_last_byte_of_their_read() {
        let mut rights = Rights::default();
        rights.handle_read(20, vec![fd(), fd()], false, 4);
        assert_eq!(rights.poll_message(10).unwrap().len(), 0, "a message before");
        assert_eq!(rights.poll_message(20).unwrap().len(), 2);
        assert_eq!(rights.poll_message(30).unwrap().len(), 0);
    }

    #[test]
    fn more_than_the_limit_are_closed_and_the_next_message_has_its_own() {
        let mut rights = Rights::default();
        rights.handle_read(10, vec![fd()], false, 1);
        rights.handle_read(15, vec![fd()], false, 1);
        assert!(rights.poll_message(15).is_err());
        rights.handle_read(30, vec![fd()], false, 1);
        assert_eq!(rights.poll_message(30).unwrap().len(), 1);
        rights.handle_read(40, vec![], true, 1);
        assert!(rights.poll_message(40).is_err());
    }
}
