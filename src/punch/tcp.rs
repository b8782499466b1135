//! Waits: TCP simultaneous open: connects and accepts on one port until one connection is chosen by both ends.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::time::{sleep, sleep_until};

use super::Hole;
use super::agree::Agreed;
use super::bases::{Base, shared};
use super::choice::{Choice, PROOF, Proofs, Proved, prove};
use super::gather::Gathered;
use super::message::Candidate;
use super::plan::Plan;
use super::puncher::{Dug, Effort};
use super::trickle::{Late, Later};
use super::volley::{Shot, Volley};
use crate::base::task::Nursery;
use crate::nat::Proto;
use crate::net::{Local, socket};

/// After a refusal or a reset the same port connects again this much later: 10 ms gave 12 of 12 against rejecting
/// firewalls, 100 ms 5 of 12.
const AGAIN: Duration = Duration::from_millis(10);

/// How often it does so at once; from then on it may be late, and need not be met at the same instant.
const AT_ONCE: u32 = 100;

/// Between later attempts.
const LATER: Duration = Duration::from_millis(100);

/// All attempts from one port at one address: who does not answer may be a stranger at whom a hostile peer points us.
const MOST: u32 = 256;

/// Attempts from each of many ports, and how long after a refusal: they are many, so each has to be slower.
const MOST_OF_MANY: u32 = 32;
const AGAIN_OF_MANY: Duration = Duration::from_millis(25);

/// Between attempts where the peer begins at another time.
const BY_HAND: Duration = Duration::from_millis(250);

/// Connections that are being proved at once; more come from strangers.
const PROVING: usize = 32;

/// Connects and accepts until one connection is chosen; it is for the caller to give up.
pub(super) async fn dig(gathered: Gathered, agreed: Agreed, plan: &Plan, effort: &Effort, later: &mut Later) -> Dug {
    let pauses = if effort.by_hand { pause_by_hand } else { pause };
    let volley = Volley::of(Proto::Tcp, plan, Instant::now());
    let held = volley.as_ref().and_then(Volley::opened).filter(|_| gathered.row.is_some_and(|row| row.alone));
    let mut at = Places { locals: Vec::new(), theirs: Vec::new(), held, pauses };
    let mut making = Nursery::new(&Handle::current());
    gathered.tcp.iter().for_each(|base| at.from(&base.local, &mut making, effort));
    agreed.candidates.iter().for_each(|candidate| at.to(candidate, &mut making, effort));
    let many = Many { volley, plan, gathered: &gathered };
    let proofs = Arc::new(Proofs::new(&agreed.ours, &agreed.theirs));
    let (local, peer, stream) = choose(making, many, (at, later), proofs, agreed.controlling, effort).await;
    (Hole::Tcp { stream }, local, peer)
}

/// Ports of ours that listen and connect to every address of the peer's.
struct Places {
    locals: Vec<Local>,
    theirs: Vec<SocketAddr>,
    /// No port begins before.
    held: Option<Instant>,
    pauses: fn(u32) -> Option<Duration>,
}

impl Places {
    /// One more of ours.
    fn from(&mut self, local: &Local, making: &mut Nursery<Made>, effort: &Effort) {
        if let Ok(listener) = listen(local) {
            making.begin(accept(listener));
        }
        self.theirs.iter().for_each(|to| self.begin(local, *to, making, effort));
        self.locals.push(local.clone());
    }

    /// One more of the peer's.
    fn to(&mut self, candidate: &Candidate, making: &mut Nursery<Made>, effort: &Effort) {
        // However often, and as whatever, the peer names it.
        if candidate.may_be_called() && !self.theirs.contains(&candidate.addr) {
            self.locals.iter().for_each(|local| self.begin(local, candidate.addr, making, effort));
            self.theirs.push(candidate.addr);
        }
    }

    fn begin(&self, local: &Local, to: SocketAddr, making: &mut Nursery<Made>, effort: &Effort) {
        if local.addr.is_ipv4() != to.is_ipv4() {
            return;
        }
        let call = Call { local: local.clone(), to, tried: 0, pauses: self.pauses };
        let (held, connected) = (self.held, connect(call, effort.clone()));
        making.begin(async move {
            if let Some(held) = held {
                sleep_until(held.into()).await;
            }
            connected.await
        });
    }
}

/// From one port at one address, again and again.
struct Call {
    local: Local,
    to: SocketAddr,
    /// How often so far.
    tried: u32,
    /// How long to wait after one more attempt than these; `None` when they are enough.
    pauses: fn(u32) -> Option<Duration>,
}

/// What one task has come to, and how it goes on.
enum Made {
    Accepted(TcpListener, TcpStream),
    Connected(Call, TcpStream),
}

/// What the plan adds.
struct Many<'a> {
    volley: Option<Volley>,
    plan: &'a Plan,
    gathered: &'a Gathered,
}

impl Many<'_> {
    /// Until something is due; for ever when nothing will be.
    async fn due(&self) {
        match self.volley.as_ref().and_then(Volley::poll_timeout) {
            Some(due) => sleep_until(due.into()).await,
            None => std::future::pending().await,
        }
    }

    /// The attempts that are due: each socket of many has a port of its own, and one that sprays has one for all.
    fn take(&mut self) -> Vec<Call> {
        let (now, at) = (Instant::now(), self.gathered.shaped);
        let shots = std::iter::from_fn(|| self.volley.as_mut().and_then(|volley| volley.poll_shot(now)));
        let shots: Vec<Shot> = shots.collect();
        let (Some(base), Some(fresh)) = (self.gathered.tcp.get(at), self.gathered.locals.get(at)) else {
            return Vec::new();
        };
        let call = |shot: Shot| {
            let (mut local, to) = match self.plan {
                Plan::Open { to, .. } => (fresh.clone(), *to),
                Plan::Cross { ip, ports, .. } => (fresh.clone(), (*ip, ports[shot.target]).into()),
                Plan::Spray { ip, ports } => (base.local.clone(), (*ip, ports[shot.target]).into()),
                // Over TCP it is no plan.
                Plan::Meet | Plan::Either { .. } | Plan::Hopeless { .. } => return None,
            };
            if let Some(row) = self.gathered.row.filter(|_| !shot.sprays) {
                local.addr.set_port(row.port(shot.target));
            }
            Some(Call { local, to, tried: 0, pauses: pause_many })
        };
        shots.into_iter().filter_map(call).collect()
    }
}

/// Proves each connection. The controlling end chooses the first, and another when the peer is not there; at the other end the
/// one that is chosen comes out.
async fn choose(
    mut making: Nursery<Made>,
    mut many: Many<'_>,
    (mut at, later): (Places, &mut Later),
    proofs: Arc<Proofs>,
    controlling: bool,
    effort: &Effort,
) -> (SocketAddr, SocketAddr, TcpStream) {
    let mut proving: Nursery<Proved> = Nursery::new(&Handle::current());
    let mut choice = Choice::default();
    // What holds the ports that were found later.
    let mut bases = Vec::new();
    loop {
        let made = tokio::select! {
            Some(made) = making.next(), if !making.is_empty() => made,
            Some(proved) = proving.next(), if !proving.is_empty() => {
                if let Some(stream) = choice.handle(proved).await
                    && let (Ok(local), Ok(peer)) = (stream.local_addr(), stream.peer_addr())
                {
                    return (local, peer, stream);
                }
                continue;
            }
            late = later.next() => {
                match late {
                    Late::Ours(Base::Tcp(base)) => {
                        at.from(&base.local, &mut making, effort);
                        bases.push(base);
                    }
                    // Of the other protocol there is none.
                    Late::Ours(Base::Udp(_)) => {}
                    Late::Theirs(candidates) => {
                        let tcp = candidates.iter().filter(|candidate| candidate.proto == Proto::Tcp);
                        tcp.for_each(|candidate| at.to(candidate, &mut making, effort));
                    }
                }
                continue;
            }
            () = many.due() => {
                for call in many.take() {
                    making.begin(connect(call, effort.clone()));
                }
                continue;
            }
        };
        let stream = match made {
            Made::Accepted(listener, stream) => {
                making.begin(accept(listener));
                stream
            }
            Made::Connected(call, stream) => {
                // Whoever is there may not be the peer, who may come to be there.
                let again = connect(call, effort.clone());
                making.begin(async move {
                    sleep(PROOF).await;
                    again.await
                });
                stream
            }
        };
        if proving.len() < PROVING {
            proving.begin(prove(stream, proofs.clone(), choice.says(controlling)));
        }
    }
}

fn listen(local: &Local) -> io::Result<TcpListener> {
    TcpListener::from_std(socket::listener(local, &shared())?.into())
}

async fn accept(listener: TcpListener) -> Made {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return Made::Accepted(listener, stream),
            Err(error) => {
                tracing::debug!(%error, "accepting on the punched port");
                sleep(AGAIN).await;
            }
        }
    }
}

/// Until it is connected; for ever when the attempts are used up. The first attempt settles the port where it is not given.
async fn connect(mut call: Call, effort: Effort) -> Made {
    loop {
        let Some(pause) = (call.pauses)(call.tried) else { return std::future::pending().await };
        call.tried += 1;
        if let Ok(socket) = socket::stream(&call.local, &shared()) {
            call.local.addr = socket.local_addr().ok().and_then(|addr| addr.as_socket()).unwrap_or(call.local.addr);
            effort.count();
            match TcpSocket::from_std_stream(socket.into()).connect(call.to).await {
                Ok(stream) => return Made::Connected(call, stream),
                // Refused, reset, or the port is busy with a connection to the same address: all pass.
                Err(error) => tracing::trace!(%error, "connecting"),
            }
        }
        sleep(pause).await;
    }
}

fn pause(tried: u32) -> Option<Duration> {
    match tried {
        ..AT_ONCE => Some(AGAIN),
        AT_ONCE..MOST => Some(LATER),
        _ => None,
    }
}

/// Where the peer begins at another time: who is silent is tried on and on, until the caller gives up.
fn pause_by_hand(_tried: u32) -> Option<Duration> {
    Some(BY_HAND)
}

/// For one of many. A refusal may be the peer's own, whose attempt has just ended.
fn pause_many(tried: u32) -> Option<Duration> {
    (tried < MOST_OF_MANY).then_some(AGAIN_OF_MANY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_never_proves_itself_is_tried_a_bounded_number_of_times() {
        let pauses: Vec<Duration> = (0..).map_while(pause).collect();
        assert_eq!(pauses.len(), MOST as usize);
        assert_eq!(pauses.iter().filter(|pause| **pause == AGAIN).count(), AT_ONCE as usize);
    }
}
