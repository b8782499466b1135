//! Waits: punching where people carry what both ends have to know: one line each way, and no channel, no server, no clock.

use std::time::{Duration, Instant};

use bytes::Bytes;
use is::IceCreds;
use rand::Rng as _;
use tokio::time::sleep;

use super::agree::Agreed;
use super::assisted::Assisted;
use super::gather::{Gathered, Gathering};
use super::message::{Message, read_words, words};
use super::puncher::Effort;
use super::trickle::Later;
use super::{PunchError, Punched, Puncher, ask, udp};
use crate::nat::Proto;

/// How often the STUN server is asked again while a person looks for the other's line: NATs forget after 30 s and more.
const KEEP: Duration = Duration::from_secs(10);

/// One end of a punch that people arrange: [`words`](Self::words) go to the other end, and its words come here.
///
/// Dropping it closes its sockets, and its words are worth nothing from then on.
#[derive(Debug)]
pub struct ByHand {
    puncher: Puncher,
    proto: Proto,
    gathered: Gathered,
    assisted: Option<Assisted>,
    tie: u64,
    creds: IceCreds,
    begun: Instant,
}

impl Puncher {
    /// Opens sockets and finds their external addresses, for a punch without a channel. Each end then tries for as long as the
    /// puncher's [`patience`](Puncher::patience), since nobody knows when the other begins.
    ///
    /// # Errors
    /// [`PunchError::NoRoute`] and [`PunchError::Socket`].
    pub async fn by_hand(&self, proto: Proto) -> Result<ByHand, PunchError> {
        let begun = Instant::now();
        let mut gathering = Gathering::new(proto, &self.routes, &self.servers, self.port_mapping);
        let gathered = gathering.all().await?;
        let (tie, creds) = (rand::rng().next_u64(), IceCreds::new());
        let assisted = gathering.assisted();
        Ok(ByHand { puncher: self.clone(), proto, gathered, assisted, tie, creds, begun })
    }
}

impl ByHand {
    /// What the other end has to know: secrets for this punch and the addresses of this end, a few hundred bytes.
    pub fn words(&self) -> Bytes {
        let hello =
            Message::Hello { tie: self.tie, ufrag: self.creds.ufrag.clone(), password: self.creds.pass.clone() };
        let offer = Message::Offer { more: false, candidates: self.gathered.offered(), shape: self.gathered.shape };
        words(&hello, &offer)
    }

    /// Keeps the NAT's mapping alive while it is polled; never returns. Over TCP the open connections to the servers do.
    pub async fn keep(&self) {
        loop {
            sleep(KEEP).await;
            // One that has sent nowhere yet has to stay so.
            for base in self.gathered.udp.iter().filter(|base| !base.fresh) {
                let of_family = |server: &&std::net::SocketAddr| server.is_ipv4() == base.local.is_ipv4();
                let Some(server) = self.puncher.servers.iter().find(of_family) else { continue };
                let seen = ask::udp(&base.socket, &[*server]).await;
                if seen.first().map(|(_, mapped)| *mapped) != base.mapped {
                    tracing::debug!(?seen, before = ?base.mapped, "the mapping was not kept, or nobody answered");
                }
            }
        }
    }

    /// Punches, with the other end's words.
    ///
    /// # Errors
    /// [`PunchError::Message`] when they are none, [`PunchError::OutOfTurn`] when they are our own,
    /// [`PunchError::NothingInCommon`], and [`PunchError::Closed`] when patience has ended. Dropping the future closes all
    /// sockets.
    pub async fn punch(self, theirs: &[u8]) -> Result<Punched, PunchError> {
        let (hello, offer) = read_words(theirs)?;
        let (Message::Hello { tie, ufrag, password }, Message::Offer { candidates, shape, .. }) = (hello, offer) else {
            return Err(PunchError::OutOfTurn("reading the other's words"));
        };
        if tie == self.tie {
            return Err(PunchError::OutOfTurn("reading the other's words: they are our own"));
        }
        let effort = Effort::new(true);
        if self.proto == Proto::Udp {
            udp::prime(&self.gathered, &candidates, &effort);
        }
        let agreed = Agreed {
            controlling: self.tie > tie,
            tie: self.tie,
            ours: self.creds,
            theirs: IceCreds { ufrag, pass: password },
            candidates,
            shape,
            more: false,
            round_trip: Duration::ZERO,
        };
        let plan = self.puncher.plan(self.proto, &self.gathered, &agreed);
        let mut punched =
            self.puncher.dig(self.proto, self.gathered, agreed, plan, &effort, &mut Later::none()).await?;
        punched.hold(self.assisted);
        Ok(Punched { total: self.begun.elapsed(), ..punched })
    }
}
