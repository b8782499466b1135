//! Waits: the channels of a session, as those see it who read and write them.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::{Ended, Inner, Outlet, PathId, Shared};
use crate::peer::session::channels::ChannelKind;
use crate::peer::session::outlet::AT_ONCE;
use crate::peer::session::record::{HEADER, Record};
use crate::peer::session::state::State;

impl Shared {
    /// A new channel; `None` when there are too many or the session is over.
    pub(crate) fn open(&self, kind: ChannelKind) -> Option<u32> {
        self.with(|inner| if inner.ended.is_some() { None } else { inner.state.open(kind) })
    }

    /// The next channel that the other end opens; an error when the session is over.
    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Result<(u32, ChannelKind), Ended>> {
        self.with(|inner| match (inner.state.accept(), inner.ended) {
            (Some(opened), _) => Poll::Ready(Ok(opened)),
            (None, Some(ended)) => Poll::Ready(Err(ended)),
            (None, None) => {
                inner.acceptors.push(cx.waker().clone());
                Poll::Pending
            }
        })
    }

    pub(in crate::peer::session) fn poll_read(&self, id: u32, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        self.with(|inner| {
            if let Some(data) = inner.state.read(id) {
                return Poll::Ready(Ok(Some(data)));
            }
            if inner.state.channel(id).is_none_or(|channel| channel.is_at_end()) {
                return Poll::Ready(Ok(None));
            }
            if let Some(ended) = inner.ended {
                return Poll::Ready(Err(ended.into()));
            }
            inner.readers.insert(id, cx.waker().clone());
            Poll::Pending
        })
    }

    pub(in crate::peer::session) fn poll_write(
        &self,
        id: u32,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outlet = if data.len() < AT_ONCE { None } else { self.outlet() };
        let path = outlet.as_ref().map(|(path, ..)| *path);
        let written = self.with_but(path, |inner| inner.poll_write(id, cx, data));
        if let Some((path, outlet, bell)) = outlet
            && !matches!(written, Poll::Ready(Err(_)))
            && !outlet.try_drain(self, path)
        {
            bell.notify_one();
        }
        written
    }

    /// Where what goes on the path in use can be written at once, and the bell of that path.
    fn outlet(&self) -> Option<(PathId, Arc<Outlet>, Arc<Notify>)> {
        let inner = self.lock();
        let path = inner.state.active()?;
        let line = inner.lines.get(&path)?;
        Some((path, line.outlet.clone()?, line.bell.clone()))
    }

    /// A datagram goes its own way where the path has one, else between the records; what does not fit now is dropped.
    pub(in crate::peer::session) fn send_datagram(&self, id: u32, data: &[u8]) -> io::Result<()> {
        self.with(|inner| {
            if let Some(ended) = inner.ended {
                return Err(ended.into());
            }
            let (record, ways) = inner.state.datagram(id, data);
            ways.into_iter().for_each(|way| inner.send_by(way, &record));
            Ok(())
        })
    }

    pub(in crate::peer::session) fn finish(&self, id: u32) {
        self.with(|inner| inner.state.finish(id));
    }

    pub(in crate::peer::session) fn release(&self, id: u32) {
        self.with(|inner| {
            inner.readers.remove(&id);
            inner.writers.remove(&id);
            inner.state.release(id);
        });
    }
}

impl Inner {
    fn poll_write(&mut self, id: u32, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(ended) = self.ended {
            return Poll::Ready(Err(ended.into()));
        }
        if self.state.channel(id).is_none_or(|channel| channel.is_stopped() || channel.is_finishing()) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        match self.state.write(id, data) {
            0 if !data.is_empty() => {
                self.writers.insert(id, cx.waker().clone());
                Poll::Pending
            }
            taken => Poll::Ready(Ok(taken)),
        }
    }

    /// A datagram by this path.
    fn send_by(&mut self, way: PathId, record: &Record) {
        let connection = self.lines.get(&way).and_then(|line| line.datagrams.as_ref());
        self.state.handle_datagram_sent(way, Instant::now());
        if let Some(connection) = connection.filter(|c| c.max_datagram_size() >= Some(record.payload.len() + HEADER)) {
            let mut packet = BytesMut::with_capacity(record.payload.len() + HEADER);
            State::write_record(record, &mut packet);
            if connection.send_datagram(packet.freeze()).is_ok() {
                return;
            }
        }
        if !self.state.send_datagram_in_order(way, record.clone()) {
            tracing::trace!("a datagram was dropped: the path is full");
        }
    }
}
