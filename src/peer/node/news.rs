//! Waits: what two ends tell each other while they look for ways: where else they are reached since the ticket was made, or
//! since they began to talk. Ports that gateways open may take some seconds to come about.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::inner::{Inner, tcp_path};
use super::meeting::Meeting;
use super::ports::Ports;
use super::secure::call_stream;
use crate::base::bucket::Bucket;
use crate::base::task::Nursery;
use crate::key::{PeerId, Ticket, TicketAddress};
use crate::net::is_elsewhere;
use crate::peer::PathInfo;
use crate::peer::greeting::{Greeting, Topic};
use crate::peer::session::Carrier;
use crate::rendezvous::{Signal, SignalError};

/// Addresses that are taken of a peer beside those of its ticket.
const ADDRESSES: usize = 16;

/// And how many of them in a time, where they change.
const MOST: u64 = 64;
const IN: Duration = Duration::from_secs(600);

/// How long gateways are waited for with something to tell: UPnP takes some seconds.
const GATEWAYS: Duration = Duration::from_secs(20);

/// How long a place to meet is waited for when the network is another one.
const PLACES: Duration = Duration::from_secs(20);

/// How long the peer has to connect back: it tries for four seconds.
const BACK: Duration = Duration::from_secs(6);

/// How long what was said before the last word may still be on its way, through a relay.
const LAST: Duration = Duration::from_secs(2);

/// Where a peer has said that it is reached, beside what its ticket says.
#[derive(Debug)]
pub(super) struct Elsewhere {
    /// Of its ticket.
    known: Vec<TicketAddress>,
    addresses: Mutex<Vec<TicketAddress>>,
    /// How many more may come: each is knocked at.
    more: Mutex<Bucket>,
    /// Rung when there are more.
    pub(super) bell: Notify,
}

impl Elsewhere {
    pub(super) fn than(ticket: &Ticket) -> Self {
        let more = Mutex::new(Bucket::per(MOST, IN, std::time::Instant::now()));
        Self { known: ticket.addresses().to_vec(), addresses: Mutex::default(), more, bell: Notify::new() }
    }

    /// It is here now, and not where it was.
    pub(super) fn replace(&self, told: Vec<TicketAddress>) {
        let mut known = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that it still has cost nothing.
        known.retain(|address| told.contains(address));
        drop(known);
        self.add(told);
    }

    pub(super) fn addresses(&self) -> Vec<TicketAddress> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, told: Vec<TicketAddress>) {
        let mut known = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let mut more = self.more.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, now) = (known.len(), std::time::Instant::now());
        for address in told {
            let is_known = known.contains(&address) || self.known.contains(&address);
            if !is_known && is_elsewhere(address.addr) && known.len() < ADDRESSES && more.take(1, now) {
                known.push(address);
            }
        }
        if known.len() > before {
            self.bell.notify_one();
        }
    }
}

/// At the caller: hears what the answerer has to tell until the conversation ends; `failed` is told why. An answerer ends it when the
/// relay stands, or at once when it turns us away.
pub(super) async fn hear(signal: Arc<Signal>, elsewhere: Arc<Elsewhere>, failed: oneshot::Sender<String>) {
    let why = loop {
        match signal.recv().await {
            Ok(word) => match Topic::from_bytes(&word) {
                Ok(Topic::Here { addresses }) => elsewhere.add(addresses),
                _ => tracing::debug!("the peer answers what was not asked"),
            },
            Err(why) => break why,
        }
    };
    if why == SignalError::Ended {
        sleep(LAST).await;
    }
    // The relay may have come about already.
    let _ = failed.send(why.to_string());
}

/// At the answerer: tells where gateways let others in, now and as long as some have yet to answer.
pub(super) async fn tell(ports: &Ports, signal: &Signal) {
    let (mut told, mut found) = (Vec::new(), ports.found());
    let telling = async {
        loop {
            let settled = ports.are_settled();
            let fresh: Vec<_> = ports.addresses().into_iter().filter(|address| !told.contains(address)).collect();
            told.extend_from_slice(&fresh);
            let here = Topic::Here { addresses: fresh };
            let is_empty = matches!(&here, Topic::Here { addresses } if addresses.is_empty());
            let lost = !is_empty && signal.send(here.to_bytes()).await.is_err();
            if settled || lost || !found.changed().await {
                return;
            }
        }
    };
    // Later ones are told to who asks again.
    let _ = timeout(GATEWAYS, telling).await.is_ok();
}

/// At the answerer, when its network is another one: tells those who have called it, at every place where both are, so that they
/// do not find out by silence. Their paths may all be gone, and only they can begin a race.
pub(super) async fn tell_callers(node: Arc<Inner>, number: u64) {
    let mut telling = Nursery::new(&node.runtime);
    for meeting in node.meetings() {
        let node = node.clone();
        telling.begin(async move {
            if timeout(PLACES, meeting.checked()).await.is_err() {
                return tracing::debug!("callers are not told at a place that does not answer");
            }
            for (peer, word) in node.moved(number) {
                let said = match meeting.signal(peer) {
                    Ok(signal) => signal.send(word).await,
                    Err(why) => Err(why),
                };
                if let Err(error) = said {
                    tracing::debug!(%error, %peer, "a caller is not told that we are elsewhere");
                }
            }
        });
    }
    while !telling.is_empty() {
        telling.next().await;
    }
}

/// What a caller needs to be connected back to.
pub(super) struct Back {
    pub(super) node: Arc<Inner>,
    pub(super) meeting: Meeting,
    pub(super) peer: PeerId,
    pub(super) greeting: Greeting,
    /// Where the peer was told that we are.
    pub(super) told: Vec<TicketAddress>,
    pub(super) came: mpsc::Receiver<tokio::net::TcpStream>,
}

impl Back {
    /// The peer has been told our addresses, and is told of more as soon as there are some; it may connect back.
    pub(super) async fn reverse(mut self) -> Result<(Carrier, PathInfo), String> {
        let begun = Instant::now();
        let (mut due, mut telling) = (begun + BACK, None);
        let mut last = "the peer did not connect back".to_owned();
        loop {
            tokio::select! {
                came = self.came.recv() => {
                    let Some(stream) = came else { return Err(last) };
                    let info = tcp_path(self.greeting.kind, &stream);
                    // It may be anybody who connects: only the peer can prove its key.
                    match call_stream(&self.node.me, self.peer, stream, &self.greeting).await {
                        Ok(carrier) => return Ok((carrier, info)),
                        Err(error) => last = error.to_string(),
                    }
                }
                fresh = self.node.more_addresses(&self.told) => {
                    tracing::debug!("a gateway has opened a port: the peer is told");
                    telling = self.tell(&fresh).await.map_err(|error| tracing::debug!(%error, "telling it")).ok();
                    self.told.extend(fresh);
                    due = Instant::now() + BACK;
                }
                () = sleep_until(due) => {
                    if self.node.gateways_have_answered() || begun.elapsed() >= GATEWAYS {
                        drop(telling);
                        return Err(last);
                    }
                    due += BACK;
                }
            }
        }
    }

    /// In a conversation of its own, since the first may be over.
    async fn tell(&self, fresh: &[TicketAddress]) -> Result<Signal, SignalError> {
        let signal = self.meeting.signal(self.peer)?;
        let addresses = fresh.iter().filter(|address| address.tcp).map(|address| address.addr).collect();
        let meet = Topic::Meet { greeting: self.greeting.clone(), hello: Default::default(), addresses };
        signal.send(meet.to_bytes()).await?;
        Ok(signal)
    }
}
