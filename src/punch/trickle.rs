//! Waits: what is found, or said by the peer, after both have begun: more addresses of either end, each passed on at once.

use tokio::sync::mpsc;

use super::Channel;
use super::gather::{Base, Gathering};
use super::message::{CANDIDATES, Candidate, Message};

/// Messages that are heard of a peer while it digs: it may still measure how far away we are, and find more addresses.
const HEARD: usize = 24;

/// What comes later.
#[derive(Debug)]
pub(super) enum Late {
    /// One more socket of ours.
    Ours(Base),
    /// More addresses of the peer's.
    Theirs(Vec<Candidate>),
}

/// What comes later, for who digs.
#[derive(Debug)]
pub(super) struct Later(Option<mpsc::Receiver<Late>>);

/// For who listens meanwhile.
pub(super) struct Finder(mpsc::Sender<Late>);

pub(super) fn later() -> (Finder, Later) {
    let (tx, rx) = mpsc::channel(CANDIDATES);
    (Finder(tx), Later(Some(rx)))
}

impl Later {
    /// Where nobody can say more.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// The next; never, when no more can come. Cancel safe.
    pub(super) async fn next(&mut self) -> Late {
        loop {
            match &mut self.0 {
                Some(rx) => match rx.recv().await {
                    Some(late) => return late,
                    None => self.0 = None,
                },
                None => return std::future::pending().await,
            }
        }
    }
}

impl Finder {
    /// Answers the peer and passes on what either end finds, for as long as it is polled.
    pub(super) async fn run<T>(self, channel: &mut impl Channel, gathering: &mut Gathering<'_>, known: usize) -> T {
        // The channel has served its purpose: that it ends now is no failure.
        let (mut heard, mut theirs, mut open) = (0, known, true);
        while open || gathering.is_looking() {
            tokio::select! {
                message = channel.recv(), if open => {
                    heard += 1;
                    open = heard < HEARD && match message.map(|bytes| Message::decode(&bytes)) {
                        Ok(Ok(Message::Ping)) => channel.send(Message::Pong.encode()).await.is_ok(),
                        Ok(Ok(Message::More { mut candidates })) => {
                            candidates.truncate(CANDIDATES.saturating_sub(theirs));
                            theirs += candidates.len();
                            candidates.is_empty() || self.0.send(Late::Theirs(candidates)).await.is_ok()
                        }
                        Ok(_) => true,
                        Err(_) => false,
                    };
                }
                Some(base) = gathering.later(), if gathering.is_looking() => {
                    let more = Message::More { candidates: base.candidates() };
                    if self.0.send(Late::Ours(base)).await.is_ok() && open {
                        open = channel.send(more.encode()).await.is_ok();
                    }
                }
            }
        }
        std::future::pending().await
    }
}
