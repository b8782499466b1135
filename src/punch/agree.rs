//! Waits: what both ends say to each other before they punch: secrets, candidates, how far apart they are, and "go".

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use is::IceCreds;
use rand::Rng as _;
use tokio::time::{sleep, timeout};

use super::gather::Gathered;
use super::message::{Candidate, Message};
use super::shape::Shape;
use super::{Channel, PunchError, SILENCE};

/// Candidates that are older than this when the peer comes are found anew: a NAT may have forgotten them.
const FRESH: Duration = Duration::from_secs(10);

/// A peer that asks how far away we are more often only wants to keep us waiting.
const PINGS: u8 = 8;

/// What both ends know when they begin.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) controlling: bool,
    pub(super) tie: u64,
    pub(super) ours: IceCreds,
    pub(super) theirs: IceCreds,
    /// Of the peer.
    pub(super) candidates: Vec<Candidate>,
    /// Of the peer.
    pub(super) shape: Option<Shape>,
    /// Over the channel, as the end that controls has measured it.
    pub(super) round_trip: Duration,
}

/// Where a conversation stands.
#[derive(Debug, Default)]
struct Heard {
    hello: Option<(u64, IceCreds)>,
    asked: Option<Instant>,
    round_trip: Option<Duration>,
    offer: Option<(Vec<Candidate>, Option<Shape>)>,
    /// Both ends' candidates are known.
    ready: bool,
    pings: u8,
    go: bool,
}

/// Talks until both may begin: the end that controls waits half a round trip after it has said "go", so that both begin at one
/// instant though no clock is compared. `ready` is called when both ends' candidates are known and "go" is not said yet.
pub(super) async fn agree<G: Future<Output = Result<Gathered, PunchError>>>(
    channel: &mut impl Channel,
    patience: Duration,
    gather: impl Fn() -> G,
    ready: impl Fn(&Gathered, &[Candidate]),
) -> Result<(Gathered, Agreed), PunchError> {
    let (tie, ours) = (rand::rng().next_u64(), IceCreds::new());
    let hello = Message::Hello { tie, ufrag: ours.ufrag.clone(), password: ours.pass.clone() };
    say(channel, &hello, "greeting the peer").await?;
    let mut heard = Heard::default();
    let mut gathering = pin!(gather());
    let (mut gathered, mut offered): (Option<Gathered>, bool) = (None, false);
    while !heard.go {
        let (doing, limit) = heard.doing(patience, gathered.is_some());
        tokio::select! {
            found = &mut gathering, if gathered.is_none() => gathered = Some(found?),
            message = hear(channel, doing, limit) => {
                let message = message?;
                if message == Message::Ping && heard.pings < PINGS {
                    heard.pings += 1;
                    say(channel, &Message::Pong, doing).await?;
                } else if heard.take(message, tie, doing)? {
                    heard.asked = Some(Instant::now());
                    say(channel, &Message::Ping, doing).await?;
                }
            }
        }
        if heard.hello.is_some() && !offered && gathered.as_ref().is_some_and(|found| found.at.elapsed() > FRESH) {
            gathered = None;
            gathering.set(gather());
        }
        let Some(found) = &gathered else { continue };
        if heard.hello.is_some() && !offered {
            let offer = Message::Offer { candidates: found.offered(), shape: found.shape };
            say(channel, &offer, "sending candidates").await?;
            offered = true;
        }
        if let (true, Some((candidates, _))) = (offered, &heard.offer) {
            if !std::mem::replace(&mut heard.ready, true) {
                ready(found, candidates);
            }
            if let (true, Some(round_trip)) = (heard.controls(tie), heard.round_trip) {
                say(channel, &Message::Go { round_trip }, "saying go").await?;
                sleep(round_trip / 2).await;
                heard.go = true;
            }
        }
    }
    let controlling = heard.controls(tie);
    let (Some(gathered), Some((_, theirs)), Some((candidates, shape))) = (gathered, heard.hello, heard.offer) else {
        return Err(PunchError::OutOfTurn("beginning"));
    };
    let round_trip = heard.round_trip.unwrap_or_default();
    Ok((gathered, Agreed { controlling, tie, ours, theirs, candidates, shape, round_trip }))
}

impl Heard {
    fn controls(&self, tie: u64) -> bool {
        self.hello.as_ref().is_some_and(|(theirs, _)| tie > *theirs)
    }

    /// What is waited for, and how long.
    fn doing(&self, patience: Duration, gathered: bool) -> (&'static str, Duration) {
        match (&self.hello, &self.offer) {
            (None, _) => ("awaiting the peer", patience),
            _ if !gathered => ("finding our own addresses", patience),
            (Some(_), None) => ("awaiting candidates", SILENCE),
            (Some(_), Some(_)) => ("agreeing on the instant", SILENCE),
        }
    }

    /// Notes what the peer said, each thing once and in its turn. True when it is now to be asked how far away it is.
    fn take(&mut self, message: Message, tie: u64, doing: &'static str) -> Result<bool, PunchError> {
        let controls = self.controls(tie);
        match message {
            Message::Hello { tie: theirs, ufrag, password } if self.hello.is_none() && theirs != tie => {
                self.hello = Some((theirs, IceCreds { ufrag, pass: password }));
                return Ok(tie > theirs);
            }
            Message::Pong if self.round_trip.is_none() => {
                self.round_trip = self.asked.map(|asked| asked.elapsed());
                if self.asked.is_none() {
                    return Err(PunchError::OutOfTurn(doing));
                }
            }
            Message::Offer { candidates, shape } if self.hello.is_some() && self.offer.is_none() => {
                self.offer = Some((candidates, shape));
            }
            Message::Go { round_trip } if !controls && self.offer.is_some() => {
                (self.go, self.round_trip) = (true, Some(round_trip.min(SILENCE)));
            }
            _ => return Err(PunchError::OutOfTurn(doing)),
        }
        Ok(false)
    }
}

async fn say(channel: &mut impl Channel, message: &Message, doing: &'static str) -> Result<(), PunchError> {
    match timeout(SILENCE, channel.send(message.encode())).await {
        Ok(sent) => sent.map_err(|source| PunchError::Channel { doing, source }),
        Err(_) => Err(PunchError::Silent { doing, limit: SILENCE }),
    }
}

async fn hear(channel: &mut impl Channel, doing: &'static str, limit: Duration) -> Result<Message, PunchError> {
    let received = timeout(limit, channel.recv()).await.map_err(|_| PunchError::Silent { doing, limit })?;
    let bytes = received.map_err(|source| PunchError::Channel { doing, source })?;
    Ok(Message::decode(&bytes)?)
}
