//! What must hold of any bytes that come to a smart socket: the frames are those of a plain reading, however the stream is
//! cut and whether they are read alone or in runs; what is decoded is written again as the same bytes; nothing counts before HELLO.

use std::time::Instant;

use bytes::Bytes;
use natpipe::smart::protocol::{Envelope, Frames, Incoming, MessageId, Session, Timing};

const LIMIT: usize = 5000;

#[derive(Debug, PartialEq)]
enum Said {
    Message(Bytes, Option<MessageId>),
    Other(Bytes),
    TooLong(usize),
}

/// The first byte of the input says how the rest is cut. Returns how many frames there were.
pub fn frames(input: &[u8]) -> usize {
    let Some((cut, bytes)) = input.split_first() else { return 0 };
    let said = read(bytes, 1 + usize::from(*cut) * 8);
    let plain = plain(bytes);
    assert_eq!(said, plain.iter().map(|frame| say(frame.clone())).collect::<Vec<_>>());
    again(&plain);
    converse(&plain);
    said.len()
}

fn read(bytes: &[u8], cut: usize) -> Vec<Said> {
    let (mut frames, mut said) = (Frames::new(LIMIT), Vec::new());
    for part in bytes.chunks(cut) {
        frames.push(Bytes::copy_from_slice(part));
        loop {
            while let Some(mut run) = frames.run() {
                let messages = run.messages();
                let before = said.len();
                while let Some((payload, id)) = run.next() {
                    said.push(Said::Message(payload, id));
                }
                assert_eq!(said.len() - before, messages);
            }
            match frames.next() {
                Ok(Some(frame)) => said.push(say(Ok(frame))),
                Ok(None) => break,
                Err(error) => {
                    said.push(Said::TooLong(error.announced));
                    return said;
                }
            }
        }
        assert!(frames.held() < LIMIT + 4);
    }
    said
}

/// The frames read in the plainest way, or a length that is too much.
fn plain(mut bytes: &[u8]) -> Vec<Result<Bytes, usize>> {
    let mut all = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk() {
        let len = u32::from_be_bytes(*head) as usize;
        if len > LIMIT {
            all.push(Err(len));
            break;
        }
        let Some((frame, rest)) = rest.split_at_checked(len) else { break };
        all.push(Ok(Bytes::copy_from_slice(frame)));
        bytes = rest;
    }
    all
}

fn say(frame: Result<Bytes, usize>) -> Said {
    match frame {
        Err(len) => Said::TooLong(len),
        Ok(frame) => match frame[..] {
            [3, ..] => Said::Message(frame.slice(1..), None),
            [4, ref rest @ ..] if rest.len() >= 16 => {
                Said::Message(frame.slice(17..), Some(rest[..16].try_into().expect("16 bytes")))
            }
            _ => Said::Other(frame),
        },
    }
}

fn again(frames: &[Result<Bytes, usize>]) {
    for frame in frames.iter().flatten() {
        let Ok(envelope) = Envelope::decode(frame.clone()) else { continue };
        // What another version says in its HELLO is not kept.
        if matches!(envelope, Envelope::Skipped | Envelope::Heartbeat)
            || matches!(envelope, Envelope::Hello { version, .. } if version != 1)
        {
            continue;
        }
        let mut bytes = Vec::new();
        envelope.encode(&mut bytes);
        assert_eq!(&bytes[4..], &frame[..], "{envelope:?}");
    }
}

fn converse(frames: &[Result<Bytes, usize>]) {
    let now = Instant::now();
    let mut session = Session::new(now, Timing::default());
    let mut greeted = false;
    for frame in frames.iter().flatten() {
        match session.handle_frame(now, frame.clone()) {
            Ok(Incoming::Greeted(identity)) => {
                assert!(!greeted && frame[..2] == [1, 1] && frame[2..] == identity.as_bytes()[..]);
                greeted = true;
            }
            Ok(_) => assert!(greeted, "{frame:?} counts before HELLO"),
            Err(_) => return,
        }
    }
}
