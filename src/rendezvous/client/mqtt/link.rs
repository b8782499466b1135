//! Waits: the connection to one broker, made again whenever it is lost.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng as _;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::super::Shared;
use super::super::attempt::Attempt;
use super::super::link::here;
use super::dialect::{self, Heard, Mouth, Version, Way};
use super::handle::Standing;
use crate::base::backoff::Backoff;
use crate::base::bucket::Bucket;
use crate::base::task::Nursery;
use crate::key::{Identity, envelope};
use crate::rendezvous::RawPeer;

/// Waits between attempts to connect.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Events that wait to be looked at; the connection is read no further meanwhile.
const EVENTS: usize = 64;
/// How long the broker may take no message at all.
const STUCK: Duration = Duration::from_secs(15);
/// How long it may take to take the subscription.
const SUBSCRIBE: Duration = Duration::from_secs(10);
/// How long it may take to answer when the connection is doubted.
const CHECK: Duration = Duration::from_secs(1);
/// Messages that are opened each second in the long run, and at once: each costs a Diffie-Hellman, and anybody may send some.
const MESSAGES: (u64, u64) = (200, 500);
/// Letters that wait for a broker; more are dropped, and said again later.
pub(super) const LETTERS: usize = 256;

/// A message on its way out.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub(super) to: RawPeer,
    pub(super) topic: Arc<str>,
    pub(super) payload: Bytes,
}

pub(super) struct Link {
    pub(super) shared: Arc<Shared>,
    pub(super) identity: Identity,
    pub(super) topic: Arc<str>,
    pub(super) way: Way,
    pub(super) standing: Standing,
}

/// What has become of a connection.
enum Over {
    /// There will be no more letters.
    Done,
    Lost(String),
    /// It was not made yet when the network was doubted, and is hopeless.
    Anew,
}

fn lost(why: &str) -> Over {
    Over::Lost(why.to_owned())
}

impl Link {
    /// Runs until no letters can come any more.
    pub(super) async fn run(self, mut letters: mpsc::Receiver<Letter>, mut checks: watch::Receiver<u64>) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut version = Version::V5;
        let mut bucket = Bucket::new(MESSAGES.0, MESSAGES.1, std::time::Instant::now());
        loop {
            let (begun, mut was_up) = (Instant::now(), false);
            // What is doubted while an attempt goes on ends the wait after it, if nothing comes of it.
            let mut doubts = checks.clone();
            let over = self.connected(version, &mut letters, &mut doubts, &mut bucket, &mut was_up).await;
            let why = match over {
                Over::Done => return,
                Over::Anew => continue,
                Over::Lost(why) => why,
            };
            tracing::debug!(broker = %self.way.broker, %version, %why, "not connected");
            if was_up {
                checks.mark_unchanged();
            } else {
                // It may speak the other version only.
                version = version.other();
                if version == Version::V311 {
                    continue;
                }
            }
            self.standing.lost(&why);
            if was_up && begun.elapsed() >= LONGEST_WAIT {
                backoff.reset();
            }
            let wait = sleep(backoff.next(rand::rng().next_u64()));
            tokio::pin!(wait);
            loop {
                tokio::select! {
                    () = &mut wait => break,
                    // It may have been the network.
                    Ok(()) = checks.changed() => {
                        backoff.reset();
                        break;
                    }
                    // What is not sent now is said again later.
                    letter = letters.recv() => if letter.is_none() { return },
                }
            }
        }
    }

    /// One connection, until it is over.
    async fn connected(
        &self,
        version: Version,
        letters: &mut mpsc::Receiver<Letter>,
        checks: &mut watch::Receiver<u64>,
        bucket: &mut Bucket,
        was_up: &mut bool,
    ) -> Over {
        let (tell, mut heard) = mpsc::channel(EVENTS);
        let (mouth, ear) = dialect::open(&self.way, version, tell);
        let mut listening = Nursery::new(&Handle::current());
        listening.begin(ear.listen());
        let (mut full_since, mut welcome, mut doubted) = (None, None, None);
        let attempt = Attempt::begin(std::time::Instant::now(), here());
        loop {
            let late = welcome.filter(|_| !*was_up).map(|at: Instant| at + SUBSCRIBE);
            tokio::select! {
                event = heard.recv() => match event {
                    Some(Heard::Welcome) => {
                        welcome = Some(Instant::now());
                        attempt.advance(std::time::Instant::now());
                        mouth.subscribe(&self.topic);
                    }
                    Some(Heard::Subscribed(true)) => {
                        *was_up = true;
                        doubted = None;
                        self.standing.up();
                        self.shared.prove();
                    }
                    Some(Heard::Subscribed(false)) => return lost("the broker does not let us subscribe"),
                    Some(Heard::Message { payload, retained }) => self.receive(&payload, retained, bucket),
                    Some(Heard::Nobody(peer)) => {
                        let (at, up) = self.standing.place();
                        self.shared.with(|desk, now| desk.talks.be_absent(now, peer, at, up));
                    }
                    Some(Heard::Lost(why)) => return Over::Lost(why),
                    None => return lost("the connection to the broker failed"),
                },
                Ok(()) = checks.changed() => {
                    if !*was_up {
                        match attempt.is_hopeless(std::time::Instant::now(), &here()) {
                            true => return Over::Anew,
                            false => continue,
                        }
                    }
                    // To subscribe once more changes nothing, and has to be answered.
                    mouth.subscribe(&self.topic);
                    doubted.get_or_insert(Instant::now() + CHECK);
                }
                () = until(doubted) => return lost("the broker does not answer since the network has changed"),
                letter = letters.recv() => {
                    let Some(letter) = letter else {
                        mouth.part();
                        // What waits is sent before the goodbye.
                        let _ = timeout(SUBSCRIBE / 5, async { while heard.recv().await.is_some() {} }).await;
                        return Over::Done;
                    };
                    if *was_up && !send(&mouth, letter, &mut full_since) {
                        return lost("the broker acknowledges nothing");
                    }
                }
                () = until(late) => return lost("the broker does not answer the subscription"),
            }
        }
    }

    /// What can not be opened is of nobody who knows us.
    fn receive(&self, payload: &[u8], retained: bool, bucket: &mut Bucket) {
        if retained {
            // natpipe lets brokers keep nothing: it is old, or somebody's trick.
            return tracing::debug!("a message that the broker had kept is left out");
        }
        if payload.len() > envelope::MAX_LEN || !bucket.take(1, std::time::Instant::now()) {
            return tracing::debug!("a message too long or one too many is left out");
        }
        match envelope::open(&self.identity, payload) {
            Ok((from, sealed)) => self.shared.with(|desk, now| desk.be_told(now, from, &sealed)),
            Err(error) => tracing::debug!(%error, "a message that is not for us is left out"),
        }
    }
}

/// False when the broker has taken nothing for too long.
fn send(mouth: &Mouth, letter: Letter, full_since: &mut Option<Instant>) -> bool {
    if mouth.publish(letter) {
        *full_since = None;
        return true;
    }
    full_since.get_or_insert_with(Instant::now).elapsed() < STUCK
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
