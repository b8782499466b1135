//! Decides: relayed streams at a client: what may be sent, what was received, what ends them.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};

use super::super::wire::{FIRST_WINDOW, Frame, MAX_DATA, RawPeer, Reason, Token};
use super::desk::Ended;
use crate::base::bell::Bell;

/// Bytes of one stream that wait to be sent before its writer has to wait.
const ROOM: usize = 256 * 1024;
/// The part of the window that is read before the other end is told.
const GRANT_PART: u32 = 4;

#[derive(Debug, Default)]
pub(super) struct Streams {
    streams: HashMap<u32, Stream>,
    /// Streams with something to send, each once, in the order of their turns.
    ready: VecDeque<u32>,
    /// What is granted to other ends, bytes.
    pub(super) window: u32,
    last: u32,
}

#[derive(Debug)]
struct Stream {
    out: BytesMut,
    credit: u32,
    finishing: Finishing,
    /// Nobody holds it any more: when all is sent it is closed.
    let_go: bool,
    received: VecDeque<Bytes>,
    /// Bytes in `received`, and bytes that were taken out and of which the other end was not told yet.
    unread: u32,
    taken: u32,
    window: u32,
    /// The other end has sent everything.
    complete: bool,
    ended: Option<Reason>,
    reader: Bell,
    writer: Bell,
    is_ready: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finishing {
    No,
    Asked,
    Said,
}

impl Streams {
    /// Asks for a stream to a peer. The frame is to be sent.
    pub(super) fn open(&mut self, peer: RawPeer, token: Token) -> (u32, Frame) {
        self.last = self.last.wrapping_add(1);
        let stream = Stream {
            out: BytesMut::new(),
            credit: FIRST_WINDOW,
            finishing: Finishing::No,
            let_go: false,
            received: VecDeque::new(),
            unread: 0,
            taken: 0,
            window: self.window,
            complete: false,
            ended: None,
            reader: Bell::default(),
            writer: Bell::default(),
            is_ready: false,
        };
        self.streams.insert(self.last, stream);
        (self.last, Frame::Open { channel: self.last, peer, token, window: self.window })
    }

    pub(super) fn has_output(&self) -> bool {
        !self.ready.is_empty()
    }

    fn make_ready(&mut self, number: u32) {
        if let Some(stream) = self.streams.get_mut(&number)
            && !std::mem::replace(&mut stream.is_ready, true)
        {
            self.ready.push_back(number);
        }
    }

    pub(super) fn poll_read(&mut self, number: u32, cx: &Context<'_>, most: usize) -> Poll<io::Result<Bytes>> {
        let Some(stream) = self.streams.get_mut(&number) else { return Poll::Ready(Err(gone(Reason::Gone))) };
        if let Some(first) = stream.received.front_mut() {
            let bytes = first.split_to(most.min(first.len()));
            if first.is_empty() {
                stream.received.pop_front();
            }
            stream.unread -= bytes.len() as u32;
            stream.taken += bytes.len() as u32;
            if stream.owes_grant() {
                self.make_ready(number);
            }
            return Poll::Ready(Ok(bytes));
        }
        match (stream.complete, stream.ended) {
            (true, _) => Poll::Ready(Ok(Bytes::new())),
            (false, Some(why)) => Poll::Ready(Err(gone(why))),
            (false, None) => {
                stream.reader.wait(cx);
                Poll::Pending
            }
        }
    }

    pub(super) fn poll_write(&mut self, number: u32, cx: &Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let Some(stream) = self.streams.get_mut(&number) else { return Poll::Ready(Err(gone(Reason::Gone))) };
        if let Some(why) = stream.ended {
            return Poll::Ready(Err(gone(why)));
        }
        if stream.finishing != Finishing::No {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = ROOM.saturating_sub(stream.out.len()).min(data.len());
        if room == 0 && !data.is_empty() {
            stream.writer.wait(cx);
            return Poll::Pending;
        }
        stream.out.extend_from_slice(&data[..room]);
        if stream.credit > 0 {
            self.make_ready(number);
        }
        Poll::Ready(Ok(room))
    }

    /// Nothing more will be written.
    pub(super) fn shut(&mut self, number: u32) -> io::Result<()> {
        if let Some(stream) = self.streams.get_mut(&number) {
            if let Some(why) = stream.ended.filter(|_| stream.finishing == Finishing::No) {
                return Err(gone(why));
            }
            if stream.finishing == Finishing::No {
                stream.finishing = Finishing::Asked;
                self.make_ready(number);
            }
        }
        Ok(())
    }

    /// Nobody holds the stream any more: what was written is still sent.
    pub(super) fn let_go(&mut self, number: u32) {
        let Some(stream) = self.streams.get_mut(&number) else { return };
        stream.let_go = true;
        stream.received = VecDeque::new();
        if stream.ended.is_some() {
            self.streams.remove(&number);
        } else {
            self.make_ready(number);
        }
    }

    pub(super) fn data(&mut self, number: u32, bytes: Bytes) -> Result<(), Ended> {
        let Some(stream) = self.streams.get_mut(&number) else { return Ok(()) };
        let len = bytes.len() as u32;
        if stream.unread + stream.taken + len > stream.window {
            return Err(Ended::Violation("it sends more of a stream than it may"));
        }
        if stream.let_go {
            // Nobody reads it; the other end is about to hear that.
            stream.taken += len;
        } else {
            stream.unread += len;
            stream.received.push_back(bytes);
            stream.reader.ring();
        }
        Ok(())
    }

    pub(super) fn grant(&mut self, number: u32, more: u32) {
        if let Some(stream) = self.streams.get_mut(&number) {
            stream.credit = stream.credit.saturating_add(more);
            self.make_ready(number);
        }
    }

    pub(super) fn finish(&mut self, number: u32) {
        if let Some(stream) = self.streams.get_mut(&number) {
            stream.complete = true;
            stream.reader.ring();
        }
    }

    pub(super) fn end(&mut self, number: u32, why: Reason) {
        let Some(stream) = self.streams.get_mut(&number) else { return };
        stream.ended.get_or_insert(why);
        stream.reader.ring();
        stream.writer.ring();
        stream.out = BytesMut::new();
        if stream.let_go {
            self.streams.remove(&number);
        }
    }

    /// The connection to the server is gone.
    pub(super) fn fall(&mut self) {
        self.ready.clear();
        let all: Vec<u32> = self.streams.keys().copied().collect();
        for number in all {
            if let Some(stream) = self.streams.get_mut(&number) {
                stream.is_ready = false;
            }
            self.end(number, Reason::Silent);
        }
    }

    /// One turn for each stream that has something to send, and so on.
    pub(super) fn transmit(&mut self, out: &mut Vec<u8>, budget: usize) {
        while out.len() < budget
            && let Some(number) = self.ready.pop_front()
        {
            let Some(stream) = self.streams.get_mut(&number) else { continue };
            stream.is_ready = false;
            let over = stream.turn(number, out);
            if over {
                self.streams.remove(&number);
            } else if stream.can_send() {
                self.make_ready(number);
            }
        }
    }
}

impl Stream {
    fn owes_grant(&self) -> bool {
        self.taken >= self.window / GRANT_PART && !self.complete && self.ended.is_none()
    }

    fn can_send(&self) -> bool {
        self.ended.is_none() && !self.out.is_empty() && self.credit > 0
    }

    /// Sends one frame of data at most, and what else is due. True when the stream is over.
    fn turn(&mut self, number: u32, out: &mut Vec<u8>) -> bool {
        if self.ended.is_some() {
            return false;
        }
        if self.owes_grant() && !self.let_go {
            Frame::Window { channel: number, more: std::mem::take(&mut self.taken) }.write(out);
        }
        let len = self.out.len().min(self.credit as usize).min(MAX_DATA);
        if len > 0 {
            let bytes = Bytes::copy_from_slice(&self.out[..len]);
            Frame::Data { channel: number, bytes }.write(out);
            self.out.advance(len);
            self.credit -= len as u32;
            self.writer.ring();
        }
        if !self.out.is_empty() {
            return false;
        }
        if self.finishing == Finishing::Asked || (self.let_go && self.finishing == Finishing::No) {
            Frame::Finish { channel: number }.write(out);
            self.finishing = Finishing::Said;
        }
        if self.let_go {
            Frame::Close { channel: number, why: Reason::Done }.write(out);
        }
        self.let_go
    }
}

/// An error for those who use the stream.
fn gone(why: Reason) -> io::Error {
    let kind = match why {
        Reason::Done => io::ErrorKind::BrokenPipe,
        Reason::NotThere => io::ErrorKind::NotFound,
        Reason::Quota => io::ErrorKind::QuotaExceeded,
        Reason::Busy => io::ErrorKind::ResourceBusy,
        Reason::Silent => io::ErrorKind::ConnectionAborted,
        _ => io::ErrorKind::ConnectionReset,
    };
    let text = match why {
        Reason::Silent => "the connection to the rendezvous server is gone".to_owned(),
        why => format!("the relayed stream has ended: {why}"),
    };
    io::Error::new(kind, text)
}
