//! Waits: what is found, or said by the peer, after both have begun: more addresses of either end, each passed on at once.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::Channel;
use super::agree::Agreed;
use super::bases::Base;
use super::gather::{Found, Gathering};
use super::message::{CANDIDATES, Candidate, Message};

/// When nothing has come through for so long, fresh sockets are tried as well.
const ANEW: Duration = Duration::from_millis(2500);

/// For the peer's first packet, beyond the time that it takes.
const MARGIN: Duration = Duration::from_millis(10);

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
pub(super) struct Finder {
    tell: mpsc::Sender<Late>,
    /// How long a message takes to the peer.
    one_way: Duration,
    /// Addresses of the peer's so far.
    theirs: usize,
}

pub(super) fn later(agreed: &Agreed) -> (Finder, Later) {
    let (tell, rx) = mpsc::channel(CANDIDATES);
    (Finder { tell, one_way: agreed.round_trip / 2, theirs: agreed.candidates.len() }, Later(Some(rx)))
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
    /// Answers the peer and passes on what either end finds, for as long as it is polled. When nothing has come through for long,
    /// fresh sockets are made by `anew`, where that can help: a NAT that has heard the peer too early may have moved the port of the
    /// first ones for good.
    pub(super) async fn run<'a, T>(
        mut self,
        channel: &mut impl Channel,
        gathering: &mut Gathering<'a>,
        anew: Option<impl Fn() -> Gathering<'a>>,
    ) -> T {
        // The channel has served its purpose: that it ends now is no failure.
        let (mut heard, mut open, mut fresh) = (0, true, None);
        let mut renewing = pin!(async {
            sleep(ANEW).await;
            anew.map(|anew| anew())
        });
        let mut renewed = false;
        loop {
            tokio::select! {
                message = channel.recv(), if open => {
                    heard += 1;
                    open = heard < HEARD && match message.map(|bytes| Message::decode(&bytes)) {
                        Ok(Ok(Message::Ping)) => channel.send(Message::Pong.encode()).await.is_ok(),
                        Ok(Ok(Message::More { mut candidates })) => {
                            candidates.truncate(CANDIDATES.saturating_sub(self.theirs));
                            self.theirs += candidates.len();
                            candidates.is_empty() || self.tell.send(Late::Theirs(candidates)).await.is_ok()
                        }
                        Ok(_) => true,
                        Err(_) => false,
                    };
                }
                Some(found) = gathering.later(), if gathering.is_looking() => {
                    open &= self.pass_on(found, channel, open).await;
                }
                Some(found) = next(&mut fresh), if fresh.is_some() => {
                    open &= self.pass_on(found, channel, open).await;
                }
                sockets = &mut renewing, if !renewed => (fresh, renewed) = (sockets, true),
                // Nobody can say more.
                else => return std::future::pending().await,
            }
        }
    }

    /// The peer hears of it before anything comes from it: its NAT is to be opened from its own side first. False when the channel
    /// has ended.
    async fn pass_on(&self, found: Found, channel: &mut impl Channel, open: bool) -> bool {
        let candidates = match &found {
            Found::Base(base) => base.candidates(),
            Found::Assisted(candidate) => vec![*candidate],
        };
        let told = open && channel.send(Message::More { candidates }.encode()).await.is_ok();
        if let Found::Base(base) = found {
            if told {
                sleep(self.one_way + MARGIN).await;
            }
            // Who digs may have come through by now.
            let _ = self.tell.send(Late::Ours(base)).await;
        }
        told
    }
}

/// What fresh sockets there are; `None` when that were all.
async fn next(fresh: &mut Option<Gathering<'_>>) -> Option<Found> {
    let found = fresh.as_mut()?.later().await;
    if found.is_none() {
        *fresh = None;
    }
    found
}
