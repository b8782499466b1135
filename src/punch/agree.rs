//! Waits: what both ends say to each other before they punch: secrets, how far apart they are, and candidates.
//!
//! No end says "go". Each knows when it has sent its candidates, when the other's came, and how long a message takes, and so
//! the instant at which both have everything: that is when both begin. No clock is compared.

use std::time::{Duration, Instant};

use is::IceCreds;
use rand::Rng as _;
use tokio::time::{sleep_until, timeout};

use super::gather::{Gathered, Gathering};
use super::message::{CANDIDATES, Candidate, Message};
use super::shape::Shape;
use super::{Channel, PunchError};

/// Candidates that are older than this when the peer comes are found anew: a NAT may have forgotten them.
const FRESH: Duration = Duration::from_secs(10);

/// Between the instant at which both have everything and the first packet's coming to the other: what the other sends first, which
/// dies on its way, has to have passed its own NAT by then, on a machine that is busy as well.
const MARGIN: Duration = Duration::from_millis(30);

/// Where the way is long, most of that is spent on it; so much is waited for all the same.
const LEAST: Duration = Duration::from_millis(10);

/// Between that instant and the beginning, with a quarter of the channel's one way for the straight one, which may be shorter.
fn margin(one_way: Duration) -> Duration {
    MARGIN.saturating_sub(one_way / 4).max(LEAST)
}

/// How long a peer that has spoken may be silent, or its channel take no message.
pub(super) const SILENCE: Duration = Duration::from_secs(10);

/// A peer that asks how far away we are more often only wants to keep us waiting.
const PINGS: u8 = 8;

/// What both ends know when they begin.
#[derive(Clone, Debug)]
pub(super) struct Agreed {
    pub(super) controlling: bool,
    pub(super) tie: u64,
    pub(super) ours: IceCreds,
    pub(super) theirs: IceCreds,
    /// Of the peer.
    pub(super) candidates: Vec<Candidate>,
    /// Of the peer.
    pub(super) shape: Option<Shape>,
    /// It may find more candidates.
    pub(super) more: bool,
    /// Over the channel.
    pub(super) round_trip: Duration,
}

/// Where a conversation stands.
#[derive(Debug)]
struct Heard {
    tie: u64,
    /// With the time when it came.
    hello: Option<(u64, IceCreds, Instant)>,
    /// When our greeting or our question was sent, while it is not answered.
    asked: Option<Instant>,
    round_trip: Option<Duration>,
    /// When we answered last.
    answered: Option<Instant>,
    /// When ours was sent.
    offered: Option<Instant>,
    offer: Option<Offered>,
    pings: u8,
    /// Messages with more candidates.
    mores: usize,
}

/// What the peer has offered, and when that came.
#[derive(Debug)]
struct Offered {
    more: bool,
    candidates: Vec<Candidate>,
    shape: Option<Shape>,
    at: Instant,
}

/// Talks until both may begin, and returns then. `ready` is called when both ends' candidates are known, which is
/// before that.
pub(super) async fn agree<'a>(
    channel: &mut impl Channel,
    patience: Duration,
    gathering: &mut Gathering<'a>,
    anew: impl Fn() -> Gathering<'a>,
    ready: impl Fn(&Gathered, &[Candidate]),
) -> Result<(Gathered, Agreed), PunchError> {
    let (tie, ours) = (rand::rng().next_u64(), IceCreds::new());
    let hello = Message::Hello { tie, ufrag: ours.ufrag.clone(), password: ours.pass.clone() };
    say(channel, &hello, "greeting the peer").await?;
    let mut heard = Heard::new(tie, Instant::now());
    let (mut gathered, mut primed): (Option<Gathered>, bool) = (None, false);
    loop {
        if let Some(found) = gathered.as_ref().filter(|_| heard.hello.is_some() && heard.offered.is_none()) {
            if found.at.elapsed() > FRESH {
                gathered = None;
                *gathering = anew();
            } else {
                let more = gathering.is_looking();
                let offer = Message::Offer { more, candidates: found.offered(), shape: found.shape };
                say(channel, &offer, "sending candidates").await?;
                heard.offered = Some(Instant::now());
            }
        }
        if let (Some(found), Some(_), Some(Offered { candidates, .. }), false) =
            (&gathered, heard.offered, &heard.offer, primed)
        {
            ready(found, candidates);
            primed = true;
        }
        let begin = heard.begin();
        let (doing, limit) = heard.doing(patience, gathered.is_some());
        tokio::select! {
            biased;
            message = hear(channel, doing, limit) => {
                let message = match (message, begin) {
                    // The channel has served its purpose.
                    (Err(PunchError::Channel { .. }), Some(begin)) => {
                        sleep_until(begin.into()).await;
                        break;
                    }
                    (message, _) => message?,
                };
                match heard.take(message, doing, Instant::now())? {
                    Some(Next::Answer) => say(channel, &Message::Pong, doing).await?,
                    Some(Next::Ask) => {
                        say(channel, &Message::Ping, doing).await?;
                        heard.asked = Some(Instant::now());
                    }
                    None => {}
                }
            }
            found = gathering.first(), if gathered.is_none() => gathered = Some(found?),
            () = sleep_until(begin.unwrap_or_else(Instant::now).into()), if begin.is_some() => break,
        }
    }
    let agreed = heard.agreed(ours);
    gathered.zip(agreed).ok_or(PunchError::OutOfTurn("beginning"))
}

/// What is to be said at once.
enum Next {
    Answer,
    Ask,
}

impl Heard {
    fn new(tie: u64, greeted: Instant) -> Self {
        Self {
            tie,
            hello: None,
            asked: Some(greeted),
            round_trip: None,
            answered: None,
            offered: None,
            offer: None,
            pings: 0,
            mores: 0,
        }
    }

    /// When both ends have had everything for a moment: both candidates, and the length of a round trip.
    fn begin(&self) -> Option<Instant> {
        let one_way = self.round_trip? / 2;
        let there = |sent: Instant| sent + one_way;
        let known = [Some(there(self.offered?)), Some(self.offer.as_ref()?.at), self.answered.map(there)];
        Some(known.into_iter().flatten().max()? + margin(one_way))
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

    /// Notes what the peer said, each thing once and in its turn.
    fn take(&mut self, message: Message, doing: &'static str, now: Instant) -> Result<Option<Next>, PunchError> {
        match message {
            Message::Hello { tie, ufrag, password } if self.hello.is_none() && tie != self.tie => {
                self.hello = Some((tie, IceCreds { ufrag, pass: password }, now));
                self.answered = Some(now);
                return Ok(Some(Next::Answer));
            }
            Message::Ping if self.hello.is_some() && self.pings < PINGS => {
                self.pings += 1;
                self.answered = Some(now);
                return Ok(Some(Next::Answer));
            }
            Message::Pong => {
                let Some((asked, (.., greeted))) = self.asked.take().zip(self.hello.as_ref()) else {
                    return Err(PunchError::OutOfTurn(doing));
                };
                let took = now.saturating_duration_since(asked);
                // A greeting that had to wait for the peer to start is answered together with the peer's own.
                let waited = now.saturating_duration_since(*greeted) < took / 4;
                if asked < *greeted && waited {
                    return Ok(Some(Next::Ask));
                }
                self.round_trip = Some(took);
            }
            Message::Offer { more, candidates, shape } if self.hello.is_some() && self.offer.is_none() => {
                self.offer = Some(Offered { more, candidates, shape, at: now });
            }
            // Those that are found before both begin.
            Message::More { candidates } if self.mores < CANDIDATES => {
                let offered = self.offer.as_mut().filter(|offered| offered.more);
                let Some(offered) = offered else { return Err(PunchError::OutOfTurn(doing)) };
                self.mores += 1;
                offered.candidates.extend(candidates);
                offered.candidates.truncate(CANDIDATES);
            }
            _ => return Err(PunchError::OutOfTurn(doing)),
        }
        Ok(None)
    }

    fn agreed(self, ours: IceCreds) -> Option<Agreed> {
        let ((theirs_tie, theirs, _), Offered { more, candidates, shape, .. }) = self.hello.zip(self.offer)?;
        let (tie, round_trip) = (self.tie, self.round_trip?);
        Some(Agreed { controlling: tie > theirs_tie, tie, ours, theirs, candidates, shape, more, round_trip })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(tie: u64) -> Message {
        Message::Hello { tie, ufrag: "abcd".into(), password: "p".repeat(22) }
    }

    fn offer() -> Message {
        Message::Offer { more: false, candidates: Vec::new(), shape: None }
    }

    /// Two ends at a distance, one of which starts later; how long each takes to find its addresses. When each begins.
    fn begins(one_way: u64, later: u64, gathers: [u64; 2]) -> [u64; 2] {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let starts = [0, later];
        let mut ends = [Heard::new(1, at(0)), Heard::new(2, at(later))];
        // On the way: when it arrives, at whom, and what.
        let mut way: Vec<(u64, usize, Message)> = vec![(one_way, 1, hello(1)), (later + one_way, 0, hello(2))];
        let mut begun = [None; 2];
        for now in 0..60_000 {
            for end in [0, 1] {
                if now < starts[end] {
                    continue;
                }
                let (due, rest) = way.into_iter().partition(|(due, to, _)| *due <= now && *to == end);
                way = rest;
                let due: Vec<(u64, usize, Message)> = due;
                for (_, _, message) in due {
                    let reply = match ends[end].take(message, "testing", at(now)).unwrap() {
                        Some(Next::Answer) => Message::Pong,
                        Some(Next::Ask) => {
                            ends[end].asked = Some(at(now));
                            Message::Ping
                        }
                        None => continue,
                    };
                    way.push((now + one_way, 1 - end, reply));
                }
                if ends[end].hello.is_some() && ends[end].offered.is_none() && now >= starts[end] + gathers[end] {
                    ends[end].offered = Some(at(now));
                    way.push((now + one_way, 1 - end, offer()));
                }
                if begun[end].is_none() && ends[end].begin().is_some_and(|begin| begin <= at(now)) {
                    begun[end] = Some(now);
                }
            }
        }
        begun.map(|begun| begun.expect("it begins"))
    }

    #[test]
    fn both_begin_at_one_instant_when_they_start_together() {
        for (one_way, gathers) in [(50, [100, 100]), (100, [100, 100]), (5, [300, 20]), (50, [10, 10])] {
            let [a, b] = begins(one_way, 0, gathers);
            assert!(a.abs_diff(b) <= 1, "{one_way} {gathers:?}: {a} and {b}");
            let margin = margin(Duration::from_millis(one_way)).as_millis() as u64;
            let least = one_way + one_way.max(gathers[0]).max(gathers[1]) + margin;
            assert!(a <= least + 2, "{one_way} {gathers:?}: {a} where {least} would do");
        }
    }

    #[test]
    fn neither_begins_before_the_other_has_its_candidates_whoever_is_late() {
        for later in [1, 30, 49, 51, 80, 99, 101, 500, 5000] {
            let [a, b] = begins(50, later, [100, 100]);
            assert!(a.abs_diff(b) <= 50, "{later}: {a} and {b}");
            assert!(a >= later + 150 && b >= later + 150, "{later}: {a} and {b}");
            assert!(a.max(b) <= later + 4 * 50 + 31, "{later}: {a} and {b}");
        }
    }
}
