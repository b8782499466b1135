//! Waits: what the desk has to say, put into envelopes and given to all links.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::sleep_until;

use super::super::{Shared, State};
use super::link::Letter;
use super::topic::topic;
use crate::key::seal::Ephemeral;
use crate::key::{PeerId, envelope};
use crate::rendezvous::Frame;

/// How long what is left may take to be acknowledged at the end.
const PARTING: Duration = Duration::from_secs(2);
/// Frames that are taken out at once.
const BATCH: usize = 64;

/// Runs until the client is closed and everything is said.
pub(super) async fn run(shared: Arc<Shared>, me: PeerId, links: Vec<mpsc::Sender<Letter>>) {
    let mut ends: Option<Instant> = None;
    loop {
        let now = Instant::now();
        let (frames, due, closing, unsaid) = shared.with_quietly(|desk| {
            let again = desk.talks.handle_timeout(now);
            desk.out.extend(again);
            let most = desk.out.len().min(BATCH);
            let frames: Vec<Frame> = desk.out.drain(..most).collect();
            desk.room.ring();
            (frames, desk.talks.poll_timeout(), desk.closing, desk.talks.has_unsaid())
        });
        let more = frames.len() == BATCH;
        frames.into_iter().for_each(|frame| post(me, frame, &links));
        if more {
            tokio::task::yield_now().await;
            continue;
        }
        if closing && (!unsaid || now >= *ends.get_or_insert(now + PARTING)) {
            break;
        }
        let due = [due, ends].into_iter().flatten().min();
        tokio::select! {
            () = shared.bell.notified() => {}
            () = async {
                match due {
                    Some(due) => sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            } => {}
        }
    }
    // Whoever still holds a conversation hears its end.
    shared.with_quietly(|desk| desk.fall(Instant::now()));
    shared.tell(State::Closed { why: None });
}

fn post(me: PeerId, frame: Frame, links: &[mpsc::Sender<Letter>]) {
    let Frame::Signal { peer, sealed } = frame else { return };
    let Ok(to) = PeerId::from_bytes(peer) else { return };
    let enveloped = Ephemeral::random().ok().and_then(|fresh| envelope::close(me, to, &sealed, &fresh).ok());
    let Some(payload) = enveloped else { return tracing::warn!("a message can not be sealed") };
    let letter = Letter { topic: topic(to).into(), payload: payload.into() };
    for link in links {
        // A broker that is too slow has no part in it.
        if link.try_send(letter.clone()).is_err() {
            tracing::debug!("too much waits for a broker");
        }
    }
}
