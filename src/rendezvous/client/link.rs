//! Waits: the connection of a client to its server, made again whenever it is lost.

use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use tokio::io::{AsyncWriteExt, WriteHalf};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::client::TlsStream;

use super::super::wire::{Frame, Reason};
use super::attempt::Attempt;
use super::desk::Ended;
use super::dial::{Carried, ConnectError, Dialer, Line};
use super::{Shared, State};
use crate::base::backoff::Backoff;
use crate::net::{Interface, Scope};

/// Waits between attempts to connect again.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long the server may take to answer a ping.
const PONG: Duration = Duration::from_secs(10);
/// How long it may take when there is reason to doubt.
const CHECK: Duration = Duration::from_secs(1);
/// How long what is left may take to be sent at the end.
const PARTING: Duration = Duration::from_secs(5);
/// How late the last word of an attempt that came to nothing may reach the server.
const LATE: Duration = Duration::from_secs(30);
/// Bytes that are written at once.
const BATCH: usize = 64 * 1024;

/// Runs until the client is closed, or the server says that it must not come back.
pub(super) async fn run(shared: Arc<Shared>, dialer: Dialer, first: Line) {
    let mut line = first;
    let (mut backoff, mut vain) = (Backoff::new(FIRST_WAIT, LONGEST_WAIT), None);
    let ended = loop {
        let begun = Instant::now();
        let lost = connected(&shared, line).await;
        // A server that takes everybody and drops them at once is not asked at once again.
        if begun.elapsed() >= LONGEST_WAIT {
            backoff.reset();
        }
        shared.with(|desk, now| desk.fall(now));
        match lost {
            Lost::Closed => break None,
            // Unless it was an attempt of our own, which the server heard only now. That happens once for each.
            Lost::Ended(Ended::Goodbye(Reason::Replaced))
                if vain.take().is_none_or(|at: Instant| at.elapsed() >= LATE) =>
            {
                break Some(Arc::from(Ended::Goodbye(Reason::Replaced).to_string()));
            }
            lost => shared.tell(State::Connecting { why: Arc::from(lost.to_string()) }),
        }
        match again(&shared, &dialer, &mut backoff, &mut vain).await {
            Some(made) => line = made,
            None => break None,
        }
    };
    shared.with(|desk, _| desk.closing = true);
    shared.tell(State::Closed { why: ended });
}

/// Tries until there is a connection; `None` when the client is closed meanwhile. `vain` is when an attempt last came to nothing.
async fn again(shared: &Shared, dialer: &Dialer, backoff: &mut Backoff, vain: &mut Option<Instant>) -> Option<Line> {
    let mut wait = backoff.next(rand::rng().next_u64());
    loop {
        tokio::select! {
            () = shared.closing() => return None,
            () = shared.check.notified() => backoff.reset(),
            () = sleep(wait) => {}
        }
        tracing::debug!("connecting again");
        let tried = tokio::select! {
            () = shared.closing() => return None,
            tried = once(shared, dialer, backoff) => tried,
        };
        wait = match tried {
            Some(Ok(line)) => return Some(line),
            Some(Err(error)) => {
                tracing::debug!(%error, "not connected");
                shared.tell(State::Connecting { why: Arc::from(error.to_string()) });
                backoff.next(rand::rng().next_u64())
            }
            None => Duration::ZERO,
        };
        *vain = Some(Instant::now());
    }
}

/// One attempt; `None` when the network is doubted and it is hopeless.
async fn once(shared: &Shared, dialer: &Dialer, backoff: &mut Backoff) -> Option<Result<Line, ConnectError>> {
    let attempt = Attempt::begin(now(), here());
    let advance = || attempt.advance(now());
    let mut dialling = pin!(dialer.dial(&advance));
    loop {
        tokio::select! {
            made = &mut dialling => return Some(made),
            () = shared.check.notified() => {
                // The next one does not wait long, if this comes to nothing.
                backoff.reset();
                if attempt.is_hopeless(now(), &here()) {
                    return None;
                }
            }
        }
    }
}

fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// The addresses by which this machine leaves its networks.
pub(super) fn here() -> Vec<IpAddr> {
    let leads = |ip: &IpAddr| !matches!(Scope::of(*ip), Scope::Loopback | Scope::LinkLocal);
    let all = Interface::list().unwrap_or_default();
    let mut here: Vec<IpAddr> = all.iter().flat_map(Interface::addrs).map(|addr| addr.ip).filter(leads).collect();
    here.sort();
    here
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("the client was closed")]
    Closed,
    #[error("the connection to the rendezvous server broke: {0}")]
    Broken(#[from] io::Error),
    #[error("the rendezvous server has closed the connection")]
    Finished,
    #[error("the rendezvous server does not answer")]
    Silent,
    #[error("the rendezvous server has ended the connection: {0}")]
    Ended(#[from] Ended),
}

async fn connected(shared: &Shared, line: Line) -> Lost {
    shared.with(|desk, _| desk.rise(line.window, line.local));
    shared.prove();
    shared.tell(State::Connected);
    let Line { mut frames, writing, keepalive, .. } = line;
    let reading = async {
        loop {
            match frames.fill().await {
                Ok(true) => {}
                Ok(false) => return Lost::Finished,
                Err(error) => return error.into(),
            }
            let handled = shared.with(|desk, now| {
                let pinged = desk.pinged.is_some();
                while let Some(frame) = frames.take()? {
                    desk.handle(now, frame)?;
                }
                if pinged && desk.pinged.is_none() {
                    shared.prove();
                }
                Ok::<(), Ended>(())
            });
            if let Err(ended) = handled {
                return ended.into();
            }
        }
    };
    let mut writing = pin!(write(shared, writing));
    tokio::select! {
        lost = reading => lost,
        lost = &mut writing => lost,
        () = keep_alive(shared, keepalive) => Lost::Silent,
        () = async {
            shared.closing().await;
            sleep(PARTING).await;
        } => Lost::Closed,
    }
}

/// Pings, now and then and whenever the connection is doubted; returns when one is not answered.
async fn keep_alive(shared: &Shared, every: Duration) {
    for number in 1.. {
        let limit = tokio::select! {
            () = sleep(every) => PONG.min(every),
            () = shared.check.notified() => CHECK,
        };
        let moved = shared.with(|desk, _| {
            desk.pinged = Some(number);
            desk.out.push_front(Frame::Ping(number));
            desk.moved
        });
        if moved {
            return;
        }
        tokio::select! {
            () = sleep(limit) => {}
            () = async { shared.check.notified().await; sleep(CHECK).await } => {}
        }
        if shared.with(|desk, _| desk.pinged.is_some()) {
            return;
        }
    }
}

async fn write(shared: &Shared, mut writing: WriteHalf<TlsStream<Carried>>) -> Lost {
    let mut out = Vec::new();
    loop {
        let closing = shared.with_quietly(|desk| {
            desk.transmit(&mut out, BATCH);
            desk.closing
        });
        if !out.is_empty() {
            let sent = async {
                writing.write_all(&out).await?;
                writing.flush().await
            };
            if let Err(error) = sent.await {
                return error.into();
            }
            out.clear();
            continue;
        }
        if closing {
            return part(writing).await;
        }
        out = Vec::new();
        shared.bell.notified().await;
    }
}

async fn part(mut writing: WriteHalf<TlsStream<Carried>>) -> Lost {
    let mut out = Vec::new();
    Frame::Goodbye(Reason::Done).write(&mut out);
    let parting = async {
        writing.write_all(&out).await?;
        writing.shutdown().await
    };
    match timeout(PARTING, parting).await {
        Ok(Err(error)) => error.into(),
        _ => Lost::Closed,
    }
}
