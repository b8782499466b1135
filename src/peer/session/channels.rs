//! Decides: one channel of a session: the bytes that wait in it, both ways, and how many more may come.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::ProtocolError;
use super::buffers::Buffers;
use super::record::MAX_PAYLOAD;
use crate::base::queue::{Limits, Queue};

/// Bytes that a new channel may send before the other end's program has read some. It bounds what a peer
/// can make us hold in channels that nobody reads.
pub(crate) const FIRST_WINDOW: u64 = 256 << 10;

/// What the window grows to while the program reads. With it one channel carries 1 Gbit/s over a round
/// trip of 60 ms.
const LARGEST_WINDOW: u64 = 8 << 20;

/// A window is renewed, and doubled, when this part of it was read.
const RENEW_PART: u64 = 4;

/// Bytes that a channel holds for a path that does not take them yet.
const SEND_BUFFER: usize = 512 << 10;

/// Bytes that come in shorter pieces than this are put together while others wait before them: each piece costs memory of its own,
/// which the window does not count.
const SHORT: usize = 1 << 10;

/// They make pieces of no more than this.
const TOGETHER: usize = 16 << 10;

/// Datagrams that wait to be received; older ones go first when more come.
const DATAGRAMS: Limits = Limits { messages: 512, bytes: 1 << 20 };

/// What a channel carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChannelKind {
    /// Bytes in order, each way until finished.
    Stream,
    /// Datagrams; each may be lost.
    Datagram,
}

impl ChannelKind {
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Stream => 0,
            Self::Datagram => 1,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Stream, Self::Datagram].into_iter().find(|kind| kind.to_byte() == byte)
    }
}

/// What a channel has to say next on the lane.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Data(Bytes),
    Finish,
    Nothing,
}

/// The sending side of a stream.
#[derive(Debug)]
struct Sending {
    queue: VecDeque<Bytes>,
    bytes: usize,
    /// Bytes that the other end still takes.
    credit: u64,
    finishing: bool,
    /// The finish was said.
    finished: bool,
    /// The other end reads no more.
    stopped: bool,
}

/// The receiving side.
#[derive(Debug)]
struct Receiving {
    queue: VecDeque<Bytes>,
    /// Short pieces that came after those.
    short: BytesMut,
    /// Bytes that the other end may still send.
    credit: u64,
    window: u64,
    /// Bytes read since the window was last renewed.
    read: u64,
    finished: bool,
    /// Nobody reads here any more.
    stopped: bool,
    datagrams: Queue<Bytes>,
}

impl Receiving {
    fn push(&mut self, data: Bytes) {
        if data.len() < SHORT && !self.is_empty() {
            self.short.extend_from_slice(&data);
            if self.short.len() >= TOGETHER {
                let short = self.take_short();
                self.queue.extend(short);
            }
            return;
        }
        let short = self.take_short();
        self.queue.extend(short.into_iter().chain([data]));
    }

    fn pop(&mut self) -> Option<Bytes> {
        self.queue.pop_front().or_else(|| self.take_short())
    }

    fn take_short(&mut self) -> Option<Bytes> {
        Some(std::mem::take(&mut self.short).freeze()).filter(|short| !short.is_empty())
    }

    fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.short.is_empty()
    }
}

#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) kind: ChannelKind,
    buffers: Buffers,
    sending: Sending,
    receiving: Receiving,
    /// The pipe is gone.
    released: bool,
}

impl Channel {
    pub(crate) fn new(kind: ChannelKind, buffers: Buffers) -> Self {
        let sending = Sending {
            queue: VecDeque::new(),
            bytes: 0,
            credit: FIRST_WINDOW,
            finishing: false,
            finished: false,
            stopped: false,
        };
        let receiving = Receiving {
            queue: VecDeque::new(),
            short: BytesMut::new(),
            credit: FIRST_WINDOW,
            window: FIRST_WINDOW,
            read: 0,
            finished: false,
            stopped: false,
            datagrams: Queue::new(DATAGRAMS),
        };
        Self { kind, buffers, sending, receiving, released: false }
    }

    /// Takes as much of `data` as fits now; 0 where the caller has to wait.
    pub(crate) fn write(&mut self, data: &[u8]) -> usize {
        let room = SEND_BUFFER.saturating_sub(self.sending.bytes).min(data.len());
        for piece in data[..room].chunks(MAX_PAYLOAD) {
            self.sending.queue.push_back(self.buffers.copy(piece));
        }
        self.sending.bytes += room;
        room
    }

    /// True when so much may be written that it is worth waking the writer.
    pub(crate) fn has_room(&self) -> bool {
        self.sending.bytes <= SEND_BUFFER / 2
    }

    /// True when the other end will read nothing more.
    pub(crate) fn is_stopped(&self) -> bool {
        self.sending.stopped
    }

    pub(crate) fn is_finishing(&self) -> bool {
        self.sending.finishing
    }

    pub(crate) fn finish(&mut self) {
        self.sending.finishing = true;
    }

    /// True while [`next`](Self::next) would say something.
    pub(crate) fn has_something_to_say(&self) -> bool {
        if self.sending.stopped && !self.sending.finished {
            return true;
        }
        match self.sending.queue.front() {
            Some(front) => self.sending.credit >= front.len() as u64,
            None => self.sending.finishing && !self.sending.finished,
        }
    }

    /// True when something is yet to be said, though it may have to wait for the other end to read.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.sending.queue.is_empty() || (self.sending.finishing && !self.sending.finished)
    }

    /// The next thing to send, within the other end's window.
    pub(crate) fn next(&mut self) -> Next {
        let sending = &mut self.sending;
        if sending.stopped {
            // What nobody reads need not be sent; that it ends must still be said.
            sending.queue.clear();
            sending.bytes = 0;
            sending.finishing = true;
        }
        match sending.queue.front() {
            Some(front) if sending.credit < front.len() as u64 => Next::Nothing,
            Some(_) => {
                let Some(data) = sending.queue.pop_front() else { return Next::Nothing };
                sending.bytes -= data.len();
                sending.credit -= data.len() as u64;
                Next::Data(data)
            }
            None if sending.finishing && !sending.finished => {
                sending.finished = true;
                Next::Finish
            }
            None => Next::Nothing,
        }
    }

    /// The other end's program has read that much.
    pub(crate) fn handle_window(&mut self, more: u64) {
        self.sending.credit = self.sending.credit.saturating_add(more).min(LARGEST_WINDOW);
    }

    pub(crate) fn handle_stop(&mut self) {
        self.sending.stopped = true;
    }

    /// Bytes from the other end. `Ok(true)` when somebody may be waiting for them.
    pub(crate) fn handle_data(&mut self, id: u32, data: Bytes) -> Result<bool, ProtocolError> {
        let receiving = &mut self.receiving;
        let Some(left) = receiving.credit.checked_sub(data.len() as u64).filter(|_| !receiving.finished) else {
            return Err(ProtocolError::Window(id));
        };
        receiving.credit = left;
        if receiving.stopped || data.is_empty() {
            return Ok(false);
        }
        receiving.push(data);
        Ok(true)
    }

    pub(crate) fn handle_finish(&mut self) {
        self.receiving.finished = true;
    }

    /// A datagram from the other end; returns how many were dropped for it.
    pub(crate) fn handle_datagram(&mut self, data: Bytes) -> usize {
        let len = data.len();
        if self.receiving.stopped { 0 } else { self.receiving.datagrams.push_dropping_oldest(data, len) }
    }

    /// The next bytes, or datagram.
    pub(crate) fn read(&mut self) -> Option<Bytes> {
        match self.kind {
            ChannelKind::Datagram => self.receiving.datagrams.pop(),
            ChannelKind::Stream => {
                let data = self.receiving.pop()?;
                self.receiving.read += data.len() as u64;
                Some(data)
            }
        }
    }

    /// True when everything was read that will ever come.
    pub(crate) fn is_at_end(&self) -> bool {
        self.receiving.finished && self.receiving.is_empty() && self.receiving.datagrams.is_empty()
    }

    /// How much the other end may send beyond what it was told, when that is worth a record.
    pub(crate) fn take_window(&mut self) -> Option<u64> {
        let receiving = &mut self.receiving;
        if receiving.read < receiving.window / RENEW_PART || receiving.finished {
            return None;
        }
        let growth = receiving.window.min(LARGEST_WINDOW - receiving.window);
        receiving.window += growth;
        let more = std::mem::take(&mut receiving.read) + growth;
        receiving.credit += more;
        Some(more)
    }

    /// The pipe is gone: what it wrote still goes out, what comes is dropped. True when the other end
    /// should be told that nobody reads.
    pub(crate) fn release(&mut self) -> bool {
        self.released = true;
        self.sending.finishing = true;
        self.receiving.stopped = true;
        (self.receiving.queue, self.receiving.short) = (VecDeque::new(), BytesMut::new());
        !self.receiving.finished
    }

    /// True when nothing more will be said on it by anybody.
    pub(crate) fn is_over(&self) -> bool {
        self.released && self.sending.finished && self.receiving.finished
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Channel {
        Channel::new(ChannelKind::Stream, Buffers::default())
    }

    #[test]
    fn a_writer_waits_when_the_buffer_is_full_and_goes_on_when_it_is_sent() {
        let mut channel = stream();
        let data = vec![1; SEND_BUFFER + 10];
        assert_eq!(channel.write(&data), SEND_BUFFER);
        assert_eq!(channel.write(&data), 0);
        assert!(matches!(channel.next(), Next::Data(piece) if piece.len() == MAX_PAYLOAD));
        assert_eq!(channel.write(&data), MAX_PAYLOAD);
    }

    #[test]
    fn no_more_is_sent_than_the_window_and_more_after_it_was_read() {
        let (mut from, mut to) = (stream(), stream());
        let mut sent = 0;
        loop {
            from.write(&[7; MAX_PAYLOAD]);
            let Next::Data(data) = from.next() else { break };
            sent += data.len() as u64;
            assert!(to.handle_data(1, data).unwrap());
        }
        assert_eq!(sent, FIRST_WINDOW);
        assert!(!from.has_something_to_say());
        let mut told = 0;
        while to.read().is_some() {
            if let Some(more) = to.take_window() {
                from.handle_window(more);
                told += more;
            }
        }
        assert!(told > FIRST_WINDOW, "it grows while it is read: {told}");
        assert!(from.has_something_to_say());
    }

    #[test]
    fn a_sender_that_ignores_the_window_is_caught() {
        let mut channel = stream();
        let piece = Bytes::from(vec![0; MAX_PAYLOAD]);
        let taken = (0..).take_while(|_| channel.handle_data(5, piece.clone()).is_ok()).count();
        assert_eq!(taken as u64, FIRST_WINDOW / MAX_PAYLOAD as u64);
        assert_eq!(channel.handle_data(5, piece), Err(ProtocolError::Window(5)));
    }

    #[test]
    fn short_pieces_that_nobody_reads_cost_little_more_than_their_bytes() {
        let mut channel = stream();
        for at in 0..FIRST_WINDOW {
            // A longer one now and then, which is not copied.
            let len = if at % 9000 == 0 { SHORT } else { 1 };
            if channel.handle_data(1, Bytes::from(vec![at as u8; len])).is_err() {
                break;
            }
        }
        let pieces = channel.receiving.queue.len();
        assert!(pieces < 100, "{pieces}");
        let (mut got, mut at) = (Vec::new(), 0);
        while let Some(data) = channel.read() {
            got.extend_from_slice(&data);
        }
        let mut sent = Vec::new();
        while sent.len() < got.len() {
            sent.resize(sent.len() + if at % 9000 == 0 { SHORT } else { 1 }, at as u8);
            at += 1;
        }
        assert!(got == sent && got.len() as u64 > FIRST_WINDOW - SHORT as u64);
    }

    #[test]
    fn bytes_after_the_end_are_an_error() {
        let mut channel = stream();
        channel.handle_finish();
        assert_eq!(channel.handle_data(3, Bytes::from_static(b"x")), Err(ProtocolError::Window(3)));
    }

    #[test]
    fn what_was_written_before_the_pipe_was_dropped_still_goes_out() {
        let mut channel = stream();
        channel.write(b"last words");
        assert!(channel.release());
        assert_eq!(channel.next(), Next::Data(Bytes::from_static(b"last words")));
        assert_eq!(channel.next(), Next::Finish);
        assert!(!channel.is_over());
        channel.handle_finish();
        assert!(channel.is_over());
    }

    #[test]
    fn what_nobody_reads_is_not_sent_but_its_end_is() {
        let mut channel = stream();
        channel.write(b"in vain");
        channel.handle_stop();
        assert_eq!(channel.next(), Next::Finish);
    }
}
