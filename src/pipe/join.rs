//! Waits: pipes linked to pipes: whose end is told to whom, and bytes that never leave the kernel.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::core::Core;
use super::hub::Listeners;
use super::transport::Transport;
use super::{Counters, End, Pipe};
#[cfg(target_os = "linux")]
use crate::net::sys::KernelPipe;

impl Core {
    /// Makes `other` a listener, once.
    pub(crate) fn link(&self, other: &Pipe) {
        self.change_listeners(|listeners| {
            if listeners.links.iter().any(|link| link.is_same(other)) {
                return;
            }
            // Counted before it can be seen: the driver may end at once, and tells whom it sees.
            other.core().sources.fetch_add(1, Ordering::AcqRel);
            listeners.links.push(other.clone());
        });
    }

    /// Takes a link away. False when it is not there.
    pub(crate) fn unlink(&self, other: &Pipe) -> bool {
        let (mut removed, mut told) = (None, None);
        let take = |pipes: &mut Vec<Pipe>| pipes.iter().position(|link| link.is_same(other)).map(|at| pipes.remove(at));
        self.change_listeners(|listeners| {
            removed = take(&mut listeners.links);
            told = take(&mut listeners.told);
        });
        // One that was told of the end counts this source no more.
        if removed.is_some() && told.is_none() {
            other.core().sources.fetch_sub(1, Ordering::AcqRel);
        }
        removed.is_some()
    }

    /// A pipe that is linked to this one has ended. When it was the last, this one has nothing
    /// more to send: a stream is half-closed, and closed where the source broke.
    pub(crate) async fn source_ended(&self, end: End) {
        if self.sources.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        match end {
            End::Broken(_) => self.begin_close(),
            End::Finished | End::Closed => {
                if let Err(error) = self.finish().await {
                    tracing::debug!(pipe = self.id, %error, "the end was not passed on");
                }
            }
        }
    }
}

/// The linked pipe whose socket can take this one's bytes inside the kernel: both are plain stream
/// sockets, and nobody wants to see the bytes.
pub(crate) fn target(core: &Core, transport: &dyn Transport, listeners: &Listeners) -> Option<Pipe> {
    let link = listeners.only_link()?;
    let watched =
        core.hub.is_claimed() || core.conf.enable_msg_ids || core.parent.as_ref().is_some_and(|p| p.listens());
    let plain = |transport: &dyn Transport| cfg!(target_os = "linux") && transport.plain_socket().is_some();
    (!watched && plain(transport) && plain(&**link.core().transport()?)).then(|| link.clone())
}

/// Moves bytes from a pipe to the linked one inside the kernel, until the end (`Some`) or until the
/// listeners change (`None`).
#[cfg(target_os = "linux")]
pub(crate) async fn splice(core: &Arc<Core>, transport: &dyn Transport, link: &Pipe) -> Option<End> {
    let sink = link.core();
    let result = match KernelPipe::new() {
        Ok(held) => run(core, transport, sink, held).await,
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(end) => end,
        Err(Failure { error, of_source: true }) => Some(End::Broken(error.kind())),
        Err(Failure { error, .. }) => {
            tracing::debug!(pipe = core.id, %error, "a linked pipe takes no more");
            sink.send_failed();
            core.unlink(link);
            None
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) async fn splice(_core: &Arc<Core>, _transport: &dyn Transport, _link: &Pipe) -> Option<End> {
    None
}

/// Which side of a join failed.
#[cfg(target_os = "linux")]
struct Failure {
    error: io::Error,
    of_source: bool,
}

#[cfg(target_os = "linux")]
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self { error, of_source: false }
    }
}

#[cfg(target_os = "linux")]
async fn run(
    core: &Arc<Core>,
    transport: &dyn Transport,
    sink: &Arc<Core>,
    mut held: KernelPipe,
) -> Result<Option<End>, Failure> {
    let Some(source) = transport.plain_socket() else { return Ok(None) };
    let Some(sink_transport) = sink.transport() else { return Err(io::Error::from(io::ErrorKind::BrokenPipe).into()) };
    let Some(dest) = sink_transport.plain_socket() else { return Ok(None) };
    loop {
        let filled = tokio::select! {
            biased;
            filled = source.read_with(|| held.fill(&source)) => filled,
            () = core.hub.attention.wait() => return Ok(None),
        };
        let n = filled.map_err(|error| Failure { error, of_source: true })?;
        if n == 0 {
            return Ok(Some(End::Finished));
        }
        core.count_in(n);
        let _turn = sink.writing().await;
        if sink.is_write_finished() {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
        }
        while held.held() > 0 {
            sink.unless_closed(dest.write_with(|| held.drain(&dest))).await?;
        }
        sink.count_out(n);
    }
}

/// Two pipes linked both ways, owned together. Dropping it closes both.
#[derive(Debug)]
pub struct Relay {
    ends: (Pipe, Pipe),
}

impl Relay {
    /// Links `a` and `b` both ways.
    pub fn new(a: Pipe, b: Pipe) -> Self {
        a.add_pipe(&b);
        b.add_pipe(&a);
        Self { ends: (a, b) }
    }

    /// What each end has carried so far.
    pub fn counters(&self) -> (Counters, Counters) {
        (self.ends.0.counters(), self.ends.1.counters())
    }

    /// Waits until both directions have ended, or one pipe can neither send nor receive, closes both pipes, and tells what each carried.
    ///
    /// Datagrams have no end: beside a stream that has ended, they end when none came for half a second.
    ///
    /// Dropping the future closes both pipes.
    pub async fn wait(self) -> (Counters, Counters) {
        let (a, b) = &self.ends;
        tokio::select! {
            _ = async { tokio::join!(carried(a), carried(b)) } => {}
            () = a.core().done() => {}
            () = b.core().done() => {}
            () = silent_after(a, b) => {}
            () = silent_after(b, a) => {}
        }
        tokio::join!(a.close(), b.close());
        self.counters()
    }
}

/// The pipe has ended, and what it is linked to has heard of it after the last byte.
async fn carried(pipe: &Pipe) {
    pipe.ended().await;
    pipe.core().when(|life| life.links_told > 0 || life.closing || life.done).await;
}

/// How long a datagram pipe is silent, after the stream beside it has ended, before it counts as ended.
const SILENCE: Duration = Duration::from_millis(500);

/// Ready when `stream` has ended and `datagrams`, if that is what it carries, have ceased.
async fn silent_after(stream: &Pipe, datagrams: &Pipe) {
    if !datagrams.is_datagram() {
        return std::future::pending().await;
    }
    stream.ended().await;
    loop {
        let before = datagrams.counters().messages_in;
        tokio::time::sleep(SILENCE).await;
        if datagrams.counters().messages_in == before {
            return;
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ends.0.core().begin_close();
        self.ends.1.core().begin_close();
    }
}
