//! Waits: TCP simultaneous open: connects and accepts on one port until one connection is chosen by both ends.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hmac::{Hmac, Mac};
use is::IceCreds;
use sha2::Sha256;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::time::{sleep, sleep_until, timeout};

use super::agree::Agreed;
use super::gather::{Base, Gathered, shared};
use super::message::Candidate;
use super::plan::Plan;
use super::trickle::{Late, Later};
use super::volley::{Shot, Volley};
use super::{Dug, Effort, Hole};
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

/// How long the other end has to prove itself on a connection.
const PROOF: Duration = Duration::from_secs(3);

/// The byte by which the controlling end chooses.
const CHOSEN: u8 = 0xC5;

/// Connections that are being proved at once; more come from strangers.
const PROVING: usize = 32;

/// Both ends' secrets, as what each says to prove itself.
struct Proofs {
    ours: [u8; 32],
    theirs: [u8; 32],
}

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
        if candidate.may_be_called() {
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

/// Which end says which connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    /// This one, and it says so before the peer has proved itself: no other is chosen while that may still come.
    Chosen,
    /// This one, if the one that is chosen already comes to nothing.
    Perhaps,
    /// The other.
    Peer,
}

/// A connection on which the peer has proved itself, or none; and what was said on it.
type Proved = (Says, io::Result<TcpStream>);

/// The connections of the end that chooses.
#[derive(Debug, Default)]
struct Choice {
    /// One is chosen, and the peer has not yet proved itself there.
    made: bool,
    /// Those on which it has.
    others: Vec<TcpStream>,
}

impl Choice {
    /// The one that comes out, if it is decided.
    async fn handle(&mut self, (says, stream): Proved) -> Option<TcpStream> {
        match (says, stream) {
            (Says::Chosen | Says::Peer, Ok(stream)) => return Some(stream),
            (Says::Chosen, Err(_)) => self.made = false,
            (Says::Perhaps, Ok(stream)) => self.others.push(stream),
            // It is closed by now.
            (Says::Perhaps | Says::Peer, Err(_)) => {}
        }
        while !self.made
            && let Some(stream) = self.others.pop()
        {
            if let Ok(Ok(stream)) = timeout(PROOF, tell_chosen(stream)).await {
                return Some(stream);
            }
        }
        None
    }

    /// What is said on one more.
    fn says(&mut self, controlling: bool) -> Says {
        match (controlling, self.made) {
            (true, false) => {
                self.made = true;
                Says::Chosen
            }
            (true, true) => Says::Perhaps,
            (false, _) => Says::Peer,
        }
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

impl Proofs {
    fn new(ours: &IceCreds, theirs: &IceCreds) -> Self {
        Self { ours: proof(ours, theirs), theirs: proof(theirs, ours) }
    }
}

/// Who knows both passwords can say this, and by it means the end whose name fragment comes first.
fn proof(sayer: &IceCreds, hearer: &IceCreds) -> [u8; 32] {
    let key = [sayer.pass.as_bytes(), b":", hearer.pass.as_bytes()].concat();
    let mut mac = match Hmac::<Sha256>::new_from_slice(&key) {
        Ok(mac) => mac,
        // HMAC takes keys of every length.
        Err(_) => return [0; 32],
    };
    mac.update(b"natpipe tcp punch:");
    mac.update(sayer.ufrag.as_bytes());
    mac.finalize().into_bytes().into()
}

/// Each end proves that it is the peer; the end that does not choose then waits for being chosen.
async fn prove(stream: TcpStream, proofs: Arc<Proofs>, says: Says) -> Proved {
    let proved = async {
        let mut stream =
            timeout(PROOF, introduce(stream, &proofs, says)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        match says {
            Says::Chosen => kept(&stream)?,
            Says::Perhaps => {}
            Says::Peer => expect_chosen(&mut stream).await?,
        }
        Ok(stream)
    };
    (says, proved.await)
}

/// The other end takes it: on this connection it has proved itself, and it waits for this.
async fn tell_chosen(mut stream: TcpStream) -> io::Result<TcpStream> {
    stream.write_all(&[CHOSEN]).await?;
    kept(&stream)?;
    Ok(stream)
}

async fn introduce(mut stream: TcpStream, proofs: &Proofs, says: Says) -> io::Result<TcpStream> {
    // A loser that is dropped leaves no address waiting that a later attempt would need.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    let chosen: &[u8] = if says == Says::Chosen { &[CHOSEN] } else { &[] };
    stream.write_all(&[&proofs.ours, chosen].concat()).await?;
    let mut said = [0; 32];
    stream.read_exact(&mut said).await?;
    if !same(&said, &proofs.theirs) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(stream)
}

async fn expect_chosen(stream: &mut TcpStream) -> io::Result<()> {
    if stream.read_u8().await? != CHOSEN {
        return Err(io::ErrorKind::InvalidData.into());
    }
    kept(stream)
}

/// It is a connection like any other from now on.
fn kept(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_linger(None)
}

/// In a time that does not tell where they differ.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    /// Both ends of a connection on loopback.
    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (one, other) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (one.unwrap(), other.unwrap().0)
    }

    fn both() -> [Arc<Proofs>; 2] {
        let (a, b) = (IceCreds::new(), IceCreds::new());
        [Proofs::new(&a, &b), Proofs::new(&b, &a)].map(Arc::new)
    }

    #[tokio::test]
    async fn the_first_connection_is_chosen_at_once_and_the_next_one_when_the_peer_is_not_there() {
        let (mut choice, [ours, theirs]) = (Choice::default(), both());
        let [(stranger, strange), (one, other)] = [connection().await, connection().await];
        let first = prove(stranger, ours.clone(), choice.says(true));
        let second = prove(one, ours.clone(), choice.says(true));
        let mut answers = pin!(prove(other, theirs, Choice::default().says(false)));
        let (second, answered) = tokio::join!(second, async { timeout(PROOF / 10, &mut answers).await });
        assert!(choice.handle(second).await.is_none(), "the first may still be the peer");
        assert!(answered.is_err(), "nobody was told");
        drop(strange);
        let (chosen, answered) = tokio::join!(async { choice.handle(first.await).await }, answers);
        assert!(chosen.is_some() && answered.1.is_ok(), "the second is, when the first was not");
    }

    #[tokio::test]
    async fn both_ends_have_the_one_connection_after_one_message_each_way() {
        let (mut choice, [ours, theirs]) = (Choice::default(), both());
        let (one, other) = connection().await;
        let chooses = prove(one, ours, choice.says(true));
        let answers = prove(other, theirs, Choice::default().says(false));
        let (chosen, answered) = tokio::join!(chooses, answers);
        assert!(choice.handle(chosen).await.is_some());
        assert!(Choice::default().handle(answered).await.is_some());
    }

    #[test]
    fn an_address_that_never_proves_itself_is_tried_a_bounded_number_of_times() {
        let pauses: Vec<Duration> = (0..).map_while(pause).collect();
        assert_eq!(pauses.len(), MOST as usize);
        assert_eq!(pauses.iter().filter(|pause| **pause == AGAIN).count(), AT_ONCE as usize);
    }
}
