//! Waits: the conversations with a peer where it is met, and the strategies that need one.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::base::task::Nursery;
use crate::key::{PeerId, TicketAddress};
use crate::nat::Proto;
use crate::peer::PathKind;
use crate::peer::greeting::Topic;
use crate::peer::node::inner::Inner;
use crate::peer::node::meeting::{Meet, Meeting};
use crate::peer::node::news::{self, Back};
use crate::peer::node::relayed;
use crate::peer::node::secure::begin_stream;
use crate::peer::node::strategies::{Strategy, punch, relay, said};
use crate::peer::session::SessionId;
use crate::rendezvous::Signal;

use super::Race;
use super::race::STRATEGY;

/// How long a rendezvous server that was lost is waited for.
const RECONNECT: Duration = Duration::from_secs(2);

impl Race {
    /// Looks for the peer on this network and at the places of its ticket.
    pub(super) async fn look(
        &self,
        node: &Arc<Inner>,
        id: SessionId,
        again: bool,
        more: mpsc::Sender<(PathKind, Strategy)>,
    ) -> Vec<(PathKind, String)> {
        #[cfg(feature = "lan")]
        let near = crate::peer::node::near::seek(node, &self.ticket, self.greeting(PathKind::Direct, id), more.clone());
        #[cfg(not(feature = "lan"))]
        let near = async { Vec::new() };
        let (mut failures, unmet) = tokio::join!(near, self.meet(node, id, again, more));
        failures.extend(unmet);
        failures
    }

    /// Looks for the peer at all places of the ticket at once, and begins where it answers first what needs a conversation; a relay
    /// where there is one. What stays here are the conversations, as long as the strategies need them.
    async fn meet(
        &self,
        node: &Arc<Inner>,
        id: SessionId,
        again: bool,
        more: mpsc::Sender<(PathKind, Strategy)>,
    ) -> Vec<(PathKind, String)> {
        let mut failures = Vec::new();
        let places = Meet::places(&self.ticket);
        // With a choice, the peer has to show where it is; else there is nothing to wait for.
        let choice = places.len() > 1;
        let mut asking = Nursery::new(&Handle::current());
        for place in places {
            let (node, peer) = (node.clone(), self.ticket.peer());
            asking.begin(async move { (place.to_string(), ask(&node, &place, peer, choice, again).await) });
        }
        let mut begun = false;
        while !asking.is_empty() {
            let Some((place, met)) = asking.next().await else { continue };
            let at = match met {
                Ok((meeting, signal)) => {
                    self.meet_at(node, &meeting, signal, id, &more, !begun).await.map(|()| meeting)
                }
                Err(why) => Err(why),
            };
            match at {
                Ok(meeting) if meeting.relays() || !node.ways.relay => return failures,
                Ok(_) => begun = true,
                Err(why) => failures.push((PathKind::Relay, format!("{place}: {why}"))),
            }
        }
        if begun && node.turn.is_empty() {
            let why =
                "the places to meet are brokers, which relay nothing; a rendezvous server (--via natpipe://…) would";
            failures.push((PathKind::Relay, why.to_owned()));
        }
        failures
    }

    /// Begins what needs a conversation; only the relay, when the rest has begun elsewhere.
    async fn meet_at(
        &self,
        node: &Arc<Inner>,
        meeting: &Meeting,
        signal: Signal,
        id: SessionId,
        more: &mpsc::Sender<(PathKind, Strategy)>,
        first: bool,
    ) -> Result<(), String> {
        let peer = self.ticket.peer();
        let relayed = node.ways.relay && self.good_path().is_none();
        let relays = relayed && meeting.relays();
        if !first && !relays {
            return Ok(());
        }
        let kind = if relays { PathKind::Relay } else { PathKind::Reverse };
        let greeting = self.greeting(kind, id);
        let doors = node.doors.as_ref().filter(|_| node.ways.direct && first);
        let told = doors.map(|doors| doors.addresses(|i| node.wants(i))).unwrap_or_default();
        let addresses = told.iter().filter(|a| a.tcp).map(|a| a.addr).collect();
        let mut begun = None;
        if relays {
            begun = Some(begin_stream(&node.me, peer, signal.relay_stream().map_err(said)?).map_err(said)?);
        }
        let hello = begun.as_ref().map(|(hello, _)| hello.clone()).unwrap_or_default();
        let topic = Topic::Meet { greeting: greeting.clone(), hello, addresses };
        signal.send(topic.to_bytes()).await.map_err(said)?;
        let failed = self.hear(signal, first, &told);
        let send = |kind, strategy: Strategy| async move {
            // The race is over when nobody takes it.
            let _ = more.send((kind, strategy)).await;
        };
        if doors.is_some() {
            let (greeting, came) = (self.greeting(PathKind::Reverse, id), node.await_back(id));
            let back = Back { node: node.clone(), meeting: meeting.clone(), peer, greeting, told, came };
            send(PathKind::Reverse, Box::pin(back.reverse())).await;
        }
        if relayed && first {
            self.meet_at_turn(node, meeting, id, more).await?;
        }
        if let Some((_, begun)) = begun {
            let strategy: Strategy = Box::pin(async move { relay(begun, failed, &greeting).await });
            send(PathKind::Relay, strategy).await;
        }
        if node.ways.direct && first {
            let servers = self.ticket.servers().to_vec();
            for proto in [Proto::Udp, Proto::Tcp] {
                let kind = if proto == Proto::Udp { PathKind::UdpPunch } else { PathKind::TcpPunch };
                let signal = meeting.signal(peer).map_err(said)?;
                let (node, servers, greeting) = (node.clone(), servers.clone(), self.greeting(kind, id));
                let strategy: Strategy =
                    Box::pin(async move { punch(&node, &servers, peer, signal, proto, &greeting).await });
                send(kind, strategy).await;
            }
        }
        Ok(())
    }

    /// Goes on hearing what the peer says in a conversation; the receiver is told why it has failed.
    fn hear(&self, signal: Signal, first: bool, told: &[TicketAddress]) -> oneshot::Receiver<String> {
        if first {
            *self.told.lock().unwrap_or_else(PoisonError::into_inner) = told.to_vec();
        }
        let (fail, failed) = oneshot::channel();
        let mut hearing = self.hearing.lock().unwrap_or_else(PoisonError::into_inner);
        hearing.begin(news::hear(Arc::new(signal), self.elsewhere.clone(), fail));
        failed
    }

    /// At a TURN server of either end, which the place to meet has nothing to do with.
    async fn meet_at_turn(
        &self,
        node: &Arc<Inner>,
        meeting: &Meeting,
        id: SessionId,
        more: &mpsc::Sender<(PathKind, Strategy)>,
    ) -> Result<(), String> {
        let peer = self.ticket.peer();
        let mut signal = meeting.signal(peer).map_err(said)?;
        let (node, via, greeting) = (node.clone(), self.ticket.servers().to_vec(), self.greeting(PathKind::Relay, id));
        let strategy: Strategy =
            Box::pin(async move { relayed::call(&node, &via, peer, &mut signal, &greeting).await });
        // The race is over when nobody takes it.
        let _ = more.send((PathKind::Relay, strategy)).await;
        Ok(())
    }
}

/// Begins to talk with the peer at a place; with a choice of places, waits until it has shown that it is there.
async fn ask(node: &Inner, place: &Meet, peer: PeerId, choice: bool, again: bool) -> Result<(Meeting, Signal), String> {
    let meeting = node.meeting(place).await.map_err(said)?;
    meeting.ready().await.map_err(said)?;
    // A server that was lost without a word would lose ours.
    if again && timeout(RECONNECT, meeting.checked()).await.is_err() {
        tracing::debug!(%place, "not connected");
    }
    let signal = meeting.signal(peer).map_err(said)?;
    if choice {
        let live = timeout(STRATEGY, signal.live()).await;
        live.map_err(|_| format!("the peer did not answer in {STRATEGY:?}"))?.map_err(said)?;
    }
    Ok((meeting, signal))
}
