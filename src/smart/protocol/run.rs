//! Decides: messages one after another in one piece of memory, taken apart only where they are received.

use bytes::{Buf, Bytes, BytesMut};

use super::envelope::{CONTROL_HEAD, Head, MessageId};

/// Whole frames that carry messages.
#[derive(Clone, Debug)]
pub struct Run {
    frames: Bytes,
    messages: usize,
}

impl Run {
    /// Splits off the messages that `bytes` begin with, of frames up to `limit`.
    pub(super) fn split(bytes: &mut BytesMut, limit: usize) -> Option<Self> {
        let (mut at, mut messages) = (0, 0);
        while let Some(left) = bytes.get(at..)
            && let Some(whole) = Head::measure(left)
            && whole <= left.len()
            && whole - 4 <= limit
        {
            at += whole;
            messages += 1;
        }
        (messages > 0).then(|| Self { frames: bytes.split_to(at).freeze(), messages })
    }

    /// Messages that are left.
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// Bytes that are left, what stands around the payloads included.
    pub fn bytes(&self) -> usize {
        self.frames.len()
    }

    /// The next message, with its id where it is to be acknowledged. It shares the run's memory.
    #[allow(clippy::should_implement_trait, reason = "as the frames have it")]
    pub fn next(&mut self) -> Option<(Bytes, Option<MessageId>)> {
        let whole = Head::measure(&self.frames)?;
        self.messages = self.messages.saturating_sub(1);
        let mut frame = self.frames.split_to(whole.min(self.frames.len()));
        let asks = Head::asks_ack(&frame);
        frame.advance(CONTROL_HEAD);
        let id = if asks { frame.first_chunk().copied() } else { None };
        if id.is_some() {
            frame.advance(16);
        }
        Some((frame, id))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Envelope, Frames};
    use super::*;

    #[test]
    fn messages_come_as_runs_and_everything_else_one_by_one() {
        let data = |text: &'static str| Envelope::Data(Bytes::from_static(text.as_bytes()));
        let asked = Envelope::DataReq([7; 16], Bytes::from_static(b"asked"));
        let mut stream = Vec::new();
        for envelope in [data("a"), asked, data(""), Envelope::Heartbeat, data("b"), data("cut")] {
            envelope.encode(&mut stream);
        }
        stream.truncate(stream.len() - 1);
        let mut frames = Frames::new(100);
        frames.push(stream.into());
        let mut run = frames.run().unwrap();
        assert_eq!(run.messages(), 3);
        assert_eq!(run.next(), Some((Bytes::from_static(b"a"), None)));
        assert_eq!(run.next(), Some((Bytes::from_static(b"asked"), Some([7; 16]))));
        assert_eq!(run.next(), Some((Bytes::new(), None)));
        assert!(run.next().is_none() && run.messages() == 0);
        assert!(frames.run().is_none());
        assert_eq!(frames.next(), Ok(Some(Bytes::from_static(b"\x02"))));
        assert_eq!(frames.run().map(|run| run.messages()), Some(1));
        assert!(frames.run().is_none());
        assert_eq!(frames.next(), Ok(None));
    }

    #[test]
    fn what_is_too_long_or_malformed_ends_a_run() {
        for stream in [&b"\0\0\0\x65\x03"[..], b"\0\0\0\x02\x04a", b"\0\0\0\0", b"\0\0", b"\0\0\0\x05\x03abc"] {
            let mut frames = Frames::new(100);
            frames.push(Bytes::from_static(stream));
            assert!(frames.run().is_none(), "{stream:?}");
        }
    }
}
