//! Decides: the line that one person gives another so that their two ends punch a hole: who an end is, and its words.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use data_encoding::BASE32_NOPAD_NOCASE;
use ring::digest::{SHA256, digest};

use crate::key::PeerId;

/// What lines of this version begin with.
const PREFIX: &str = "nph1";

/// Bytes of the checksum at the end.
const CHECKSUM: usize = 4;

/// The longest text that is looked at, with room for white space in it.
const MAX_TEXT: usize = 8 * 1024;

/// One end of a punch that people arrange, as one word of lower-case letters and digits with a checksum: its public key, and what
/// [`punch::ByHand::words`](crate::punch::ByHand::words) says. Both lines have to be carried by someone whom both trust not to
/// change them; who only reads them can not be one of the ends.
#[derive(Clone, PartialEq, Eq)]
pub struct HandLine {
    peer: PeerId,
    words: Bytes,
}

/// Why a text is no line of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandLineError {
    /// It does not look like one.
    #[error("this is no line of `natpipe punch --manual`: those begin with {PREFIX}")]
    NotALine,
    /// It is cut off, or something in it was changed.
    #[error("the line was changed or cut off on the way: copy it again, all of it")]
    Damaged,
    /// Its key is none.
    #[error("the line names no valid peer")]
    Peer,
}

impl HandLine {
    /// The line of this peer.
    pub fn new(peer: PeerId, words: impl Into<Bytes>) -> Self {
        Self { peer, words: words.into() }
    }

    /// Who wrote it.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// What [`ByHand::punch`](crate::punch::ByHand::punch) wants of the other end.
    pub fn words(&self) -> &[u8] {
        &self.words
    }
}

impl fmt::Display for HandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut body = [self.peer.as_bytes(), &self.words[..]].concat();
        let check = digest(&SHA256, &body);
        body.extend_from_slice(&check.as_ref()[..CHECKSUM]);
        write!(f, "{PREFIX}{}", BASE32_NOPAD_NOCASE.encode(&body).to_ascii_lowercase())
    }
}

/// Its secrets do not show.
impl fmt::Debug for HandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandLine(of {:?})", self.peer)
    }
}

impl FromStr for HandLine {
    type Err = HandLineError;

    /// White space anywhere in it is passed over: it may have been wrapped.
    fn from_str(text: &str) -> Result<Self, HandLineError> {
        if text.len() > MAX_TEXT {
            return Err(HandLineError::NotALine);
        }
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let begins = text.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
        let rest = text.get(PREFIX.len()..).filter(|_| begins).ok_or(HandLineError::NotALine)?;
        let all = BASE32_NOPAD_NOCASE.decode(rest.as_bytes()).map_err(|_| HandLineError::Damaged)?;
        let (body, check) = all.split_last_chunk::<CHECKSUM>().ok_or(HandLineError::Damaged)?;
        if digest(&SHA256, body).as_ref()[..CHECKSUM] != check[..] {
            return Err(HandLineError::Damaged);
        }
        let (peer, words) = body.split_first_chunk::<32>().ok_or(HandLineError::Damaged)?;
        let peer = PeerId::from_bytes(*peer).map_err(|_| HandLineError::Peer)?;
        Ok(Self::new(peer, Bytes::copy_from_slice(words)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Identity;

    fn line() -> HandLine {
        HandLine::new(Identity::from_seed([7; 32]).peer_id(), &b"some words"[..])
    }

    #[test]
    fn a_line_is_read_in_either_case_and_wrapped() {
        let text = line().to_string();
        assert!(text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()), "{text}");
        let (one, other) = text.split_at(20);
        for text in [text.clone(), text.to_uppercase(), format!("  {one}\r\n  {other}\n")] {
            assert_eq!(text.parse(), Ok(line()));
        }
    }

    #[test]
    fn what_is_no_line_says_why() {
        let text = line().to_string();
        for wrong in ["", "np", "np1abc", "ärgerlich"] {
            assert_eq!(wrong.parse::<HandLine>(), Err(HandLineError::NotALine), "{wrong}");
        }
        assert_eq!("a".repeat(MAX_TEXT + 1).parse::<HandLine>(), Err(HandLineError::NotALine));
        assert!((PREFIX.len()..text.len()).all(|len| text[..len].parse::<HandLine>() == Err(HandLineError::Damaged)));
        let at = 30;
        let other = if text.as_bytes()[at] == b'a' { "b" } else { "a" };
        let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
        assert_eq!(changed.parse::<HandLine>(), Err(HandLineError::Damaged));
        assert!(!format!("{:?}", line()).contains(&text[60..]));
    }
}
