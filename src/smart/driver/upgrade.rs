//! Waits: WebSockets: what an accepted connection speaks by its first byte, and the byte stream within.

use std::fmt;
use std::time::Duration;

use crate::frame::sniff::{self, First};
use crate::frame::ws::{self, Conf};
use crate::pipe::transport::OverIo;
use crate::pipe::{Addr, NetConf, Pipe, RecvError};
use crate::smart::Cause;
use crate::smart::protocol::Fault;

/// The longest request that is read, as the protocol's other implementations have it.
const REQUEST: usize = 8 << 10;

fn conf(patience: Duration, longest: usize) -> Conf {
    Conf::default().handshake(patience).max_head(REQUEST).max_message(longest).read_buffer(64 << 10)
}

/// The pipe as it is, or the byte stream within the WebSocket that it begins.
pub(super) async fn accepted(pipe: Pipe, patience: Duration, longest: usize) -> Result<Pipe, Cause> {
    match sniff::pipe(&pipe, patience).await {
        Ok(First::Http) => {}
        Ok(_) => return Ok(pipe),
        Err(RecvError::Ended(end)) => return Err(Cause::Ended(end)),
        Err(_) => return Err(Fault::Silent(patience).into()),
    }
    let (local, peer) = ends(&pipe);
    let shown = pipe.peer_certificate();
    let upgraded = ws::accept(pipe.into_stream().await, &conf(patience, longest)).await;
    let stream = upgraded.map_err(failed)?.socket.into_bytes();
    Pipe::over(OverIo::new(stream, local, peer).certified(shown), inner()).map_err(failed)
}

/// The byte stream within the WebSocket that this end asks for.
pub(super) async fn asked(pipe: Pipe, url: &str, patience: Duration, longest: usize) -> Result<Pipe, String> {
    let (local, peer) = ends(&pipe);
    let shown = pipe.peer_certificate();
    let upgraded = ws::connect(pipe.into_stream().await, url, &conf(patience, longest)).await;
    let stream = upgraded.map_err(|error| error.to_string())?.socket.into_bytes();
    Pipe::over(OverIo::new(stream, local, peer).certified(shown), inner()).map_err(|error| error.to_string())
}

fn ends(pipe: &Pipe) -> (Addr, Addr) {
    (pipe.local_addr().clone(), pipe.peer_addr().cloned().unwrap_or(Addr::Unnamed))
}

fn inner() -> NetConf {
    NetConf::default().recv_timeout(None)
}

fn failed(error: impl fmt::Display) -> Cause {
    Cause::Upgrade(error.to_string())
}
