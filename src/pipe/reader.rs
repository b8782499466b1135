//! Holds: the buffer of a read, which an idle pipe does not have.

use std::cell::RefCell;
use std::io;
use std::task::{Poll, ready};

use bytes::buf::Limit;
use bytes::{BufMut, Bytes, BytesMut};

/// A read that is longer than this part of the limit makes the next one go to a buffer of its own
/// instead of being copied out of the thread's.
const BULK_PART: usize = 4;

thread_local! {
    /// One buffer for all pipes whose driver runs on this thread; it is used between two waits only.
    static SCRATCH: RefCell<BytesMut> = RefCell::default();
}

/// Gives each read a place to put bytes, and turns them into a message.
///
/// A pipe that waits holds no buffer: small messages are read into a buffer of the thread and
/// copied out in their own size, large ones into fresh memory that becomes the message.
#[derive(Debug)]
pub struct Reader {
    limit: usize,
    bulk: bool,
    /// Memory of the receiver's own, while it is lent for a read.
    lent: Option<BytesMut>,
}

impl Reader {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, bulk: false, lent: None }
    }

    /// Calls `read` with room for the most bytes that one read may yield; what it put there is
    /// the message.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn fill<E>(
        &mut self,
        read: impl FnOnce(&mut Limit<&mut BytesMut>) -> Result<E, io::Error>,
    ) -> io::Result<(Bytes, E)> {
        match self.poll_fill(|buf| Poll::Ready(read(buf))) {
            Poll::Ready(done) => done,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// The same for a read that may have to wait; it then keeps nothing.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn poll_fill<E>(
        &mut self,
        read: impl FnOnce(&mut Limit<&mut BytesMut>) -> Poll<io::Result<E>>,
    ) -> Poll<io::Result<(Bytes, E)>> {
        match self.lent.take() {
            Some(lent) => self.fill_lent(lent, read),
            None if self.bulk => self.fill_own(read),
            None => self.fill_scratch(read),
        }
    }

    /// Until it is taken back, what is read is appended to `buffer`, and messages are empty.
    pub(crate) fn lend(&mut self, buffer: BytesMut) {
        self.lent = Some(buffer);
    }

    pub(crate) fn take_back(&mut self) -> BytesMut {
        self.lent.take().unwrap_or_default()
    }

    fn fill_lent<E>(
        &mut self,
        mut lent: BytesMut,
        read: impl FnOnce(&mut Limit<&mut BytesMut>) -> Poll<io::Result<E>>,
    ) -> Poll<io::Result<(Bytes, E)>> {
        let room = lent.capacity() - lent.len();
        let done = read(&mut (&mut lent).limit(room));
        self.lent = Some(lent);
        done.map_ok(|extra| (Bytes::new(), extra))
    }

    fn fill_own<E>(
        &mut self,
        read: impl FnOnce(&mut Limit<&mut BytesMut>) -> Poll<io::Result<E>>,
    ) -> Poll<io::Result<(Bytes, E)>> {
        let mut own = BytesMut::with_capacity(self.limit);
        let extra = ready!(read(&mut (&mut own).limit(self.limit)))?;
        self.note(own.len());
        if self.bulk {
            return Poll::Ready(Ok((own.freeze(), extra)));
        }
        Poll::Ready(Ok((Bytes::copy_from_slice(&own), extra)))
    }

    fn fill_scratch<E>(
        &mut self,
        read: impl FnOnce(&mut Limit<&mut BytesMut>) -> Poll<io::Result<E>>,
    ) -> Poll<io::Result<(Bytes, E)>> {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            scratch.reserve(self.limit);
            let extra = ready!(read(&mut scratch.limit(self.limit)))?;
            self.note(scratch.len());
            Poll::Ready(Ok((Bytes::copy_from_slice(scratch), extra)))
        })
    }

    fn note(&mut self, len: usize) {
        self.bulk = len >= self.limit / BULK_PART && len > 0;
    }
}
