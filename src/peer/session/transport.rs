//! Waits: a channel of a session as what a pipe is made of.

use std::io::Result;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::channels::ChannelKind;
use super::drive::Keep;
use super::record::MAX_PAYLOAD;
use crate::pipe::Addr;
use crate::pipe::transport::{Kind, Reader, Received, Transport};

/// One channel; dropping it ends it in both directions, after what was written.
pub(crate) struct ChannelPipe {
    keep: Arc<Keep>,
    id: u32,
    kind: ChannelKind,
}

impl ChannelPipe {
    pub(crate) fn new(keep: Arc<Keep>, id: u32, kind: ChannelKind) -> Self {
        Self { keep, id, kind }
    }
}

impl Transport for ChannelPipe {
    fn kind(&self) -> Kind {
        match self.kind {
            ChannelKind::Stream => Kind::Stream,
            ChannelKind::Datagram => Kind::Datagram,
        }
    }

    /// Of the path in use now.
    fn local_addr(&self) -> Addr {
        self.keep.0.path().and_then(|path| path.local).map_or(Addr::Unnamed, Addr::from)
    }

    fn peer_addr(&self) -> Option<Addr> {
        Some(self.keep.0.path().and_then(|path| path.remote).map_or(Addr::Unnamed, Addr::from))
    }

    fn poll_recv(&self, cx: &mut Context<'_>, _reader: &mut Reader) -> Poll<Result<Received>> {
        let data = ready!(self.keep.0.poll_read(self.id, cx))?;
        Poll::Ready(Ok(data.map_or(Received::End, |data| Received::Data(data, None))))
    }

    fn poll_send(&self, cx: &mut Context<'_>, data: &[u8], _to: Option<&Addr>) -> Poll<Result<usize>> {
        match self.kind {
            ChannelKind::Stream => self.keep.0.poll_write(self.id, cx, data),
            ChannelKind::Datagram if data.len() > MAX_PAYLOAD => {
                Poll::Ready(Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "the datagram is too long")))
            }
            ChannelKind::Datagram => Poll::Ready(self.keep.0.send_datagram(self.id, data).map(|()| data.len())),
        }
    }

    fn poll_finish(&self, _cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.keep.0.finish(self.id);
        Poll::Ready(Ok(()))
    }
}

impl Drop for ChannelPipe {
    fn drop(&mut self) {
        self.keep.0.release(self.id);
    }
}
