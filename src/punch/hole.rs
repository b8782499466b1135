//! Waits: a hole as a pipe: the peer's datagrams, while ICE goes on beneath them.

use std::fmt;
use std::future::Future;
use std::io::{ErrorKind, Result};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use is::stun::{StunMessage, StunPacket};
use is::{IceAgent, IceAgentEvent};
use tokio::net::UdpSocket;
use tokio::time::{Sleep, sleep};

use super::assisted::{Assisted, Opening};
use super::udp::FIRST_RTO;
use super::{Hole, Punched};
use crate::net::socket::send_now;
use crate::pipe::transport::{Kind, Reader, Received, Transport};
use crate::pipe::{Addr, NetConf, OpenError, Pipe, Proto, pipe_open};
use crate::stun::is_stun;

/// How far apart checks are where it is not known how long bindings live.
pub(super) const OFTEN: Duration = Duration::from_secs(3);

/// Longer lives are taken for this: a peer that is gone is to be noticed.
const LONGEST: Duration = Duration::from_secs(600);

/// Where it is known, so many checks go out in that time: one may be lost.
const CHECKS_A_LIFETIME: u32 = 2;

/// Both ends have nominated by then, and checks may become rare.
const SETTLED: Duration = Duration::from_secs(10);

/// How long the peer may take to close the sockets that it does not use.
const SETTLING: Duration = Duration::from_secs(3);

/// After so long ICE rests where what runs in the hole proves by itself that the peer is there, as QUIC does: who has sent an
/// encrypted packet consents (RFC 7675 section 5), and keeps the mapping alive.
#[cfg(feature = "peer")]
const RESTS: Duration = Duration::from_secs(10);

impl Punched {
    /// What gateways have opened: the port of a UDP hole stays open with it. A TCP connection stands without.
    pub(super) fn hold(&mut self, assisted: Option<Assisted>) {
        if let (Hole::Udp(hole), Some(assisted)) = (&mut self.hole, assisted) {
            hole.opening = assisted.of_port(self.local.port());
        }
    }

    /// The hole as a pipe like any other. The bytes in it are plain: what is above has to encrypt them.
    ///
    /// # Errors
    /// [`OpenError`] outside a tokio runtime, or when the runtime does not take the socket.
    pub async fn into_pipe(self, conf: NetConf) -> std::result::Result<Pipe, OpenError> {
        match self.hole {
            Hole::Tcp { stream } => {
                let socket = stream.into_std().map_err(|source| OpenError::from(taken(self.local, source)))?;
                pipe_open(Proto::Tcp).sock(socket).conf(conf).await
            }
            Hole::Udp(hole) => Pipe::over(*hole, conf),
        }
    }
}

fn taken(local: SocketAddr, source: std::io::Error) -> crate::pipe::OpenFailure {
    let step = crate::net::SocketStep::Register;
    crate::net::SocketError { step, target: local.to_string(), source }.into()
}

/// A punched socket and the one peer that it is for. ICE goes on in it while it is read: the peer's checks are
/// answered, the mapping is kept alive, and sending ends when the peer has not been heard for long (RFC 7675).
pub struct UdpHole {
    socket: UdpSocket,
    local: SocketAddr,
    #[cfg(feature = "peer")]
    begun: Instant,
    ice: Mutex<Ice>,
    /// What its gateway keeps open.
    opening: Option<Opening>,
}

struct Ice {
    agent: IceAgent,
    peer: SocketAddr,
    /// Until then the end that controls hears nobody but the peer's nominated address: other sockets of the peer, which have hit
    /// ours as well, are about to be closed.
    settling: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    /// When checks become as rare as the NATs' bindings allow, and how far apart they then are.
    keeps: Option<(Instant, Duration)>,
}

impl fmt::Debug for UdpHole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpHole").field("local", &self.local).field("peer", &self.peer()).finish_non_exhaustive()
    }
}

impl UdpHole {
    pub(super) fn new(
        socket: UdpSocket,
        local: SocketAddr,
        peer: SocketAddr,
        agent: IceAgent,
        controlling: bool,
    ) -> Self {
        let timer = Box::pin(sleep(Duration::ZERO));
        let settling = controlling.then(|| Instant::now() + SETTLING);
        Self {
            socket,
            local,
            #[cfg(feature = "peer")]
            begun: Instant::now(),
            ice: Mutex::new(Ice { agent, peer, settling, timer, keeps: None }),
            opening: None,
        }
    }

    /// An idle binding on our side lives so long: checks need not be more often than keeps it.
    pub(super) fn binds_for(&mut self, lifetime: Duration) {
        let apart = lifetime.min(LONGEST) / CHECKS_A_LIFETIME;
        if apart > OFTEN {
            self.ice().keeps = Some((Instant::now() + SETTLED, apart));
        }
    }

    /// The peer's address, as nominated last.
    pub fn peer(&self) -> SocketAddr {
        self.ice().peer
    }

    fn ice(&self) -> MutexGuard<'_, Ice> {
        self.ice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what is due: checks go out, and a newly nominated address of the peer is taken.
    fn keep(&self, ice: &mut Ice, cx: &mut Context<'_>) {
        /// Timers that have come already: more wait for the next turn.
        const TURN: usize = 16;
        if let Some((_, apart)) = ice.keeps.take_if(|(from, _)| *from <= Instant::now()) {
            // A check that is not answered is sent again sooner, nine times at most, each after twice the time.
            ice.agent.set_initial_stun_rto((apart / 256).max(FIRST_RTO));
            ice.agent.set_max_stun_rto(apart);
        }
        for _ in 0..TURN {
            self.transmit(ice);
            let Some(due) = ice.agent.poll_timeout() else { return };
            ice.timer.as_mut().reset(due.into());
            if ice.timer.as_mut().poll(cx).is_pending() {
                return;
            }
            ice.agent.handle_timeout(Instant::now());
        }
        cx.waker().wake_by_ref();
    }

    fn transmit(&self, ice: &mut Ice) {
        while let Some(transmit) = ice.agent.poll_transmit() {
            if transmit.source == self.local {
                // A lost one is made up for by the next.
                let _ = send_now(&self.socket, &transmit.contents, transmit.destination);
            }
        }
        while let Some(event) = ice.agent.poll_event() {
            match event {
                IceAgentEvent::NominatedSend { source, destination, .. } if source == self.local => {
                    ice.peer = destination;
                }
                _ => {}
            }
        }
    }

    /// A check, or the answer to one.
    fn hear(&self, ice: &mut Ice, source: SocketAddr, bytes: &[u8]) {
        let Ok(message) = StunMessage::parse(bytes) else { return };
        let now = Instant::now();
        if source != ice.peer && ice.settling.is_some_and(|until| now < until) {
            return;
        }
        if ice.agent.accepts_message(&message) {
            let packet = StunPacket { proto: is::Protocol::Udp, source, destination: self.local, message };
            ice.agent.handle_packet(now, packet);
            ice.agent.handle_timeout(now);
        }
    }
}

/// For QUIC, which moves many datagrams at a time.
#[cfg(feature = "peer")]
impl UdpHole {
    /// The socket.
    pub(crate) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Our end's address.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Does what ICE has due, until it rests; called whenever there was nothing to receive, so that its timer wakes the task. The
    /// peer's checks are answered all the time.
    pub(crate) fn poll_keep(&self, cx: &mut Context<'_>) {
        if self.begun.elapsed() < RESTS {
            self.keep(&mut self.ice(), cx);
        }
    }

    /// Takes a packet of ICE; false when it is none, and so the program's.
    pub(crate) fn takes(&self, source: SocketAddr, bytes: &[u8]) -> bool {
        let taken = is_stun(bytes);
        if taken {
            let mut ice = self.ice();
            self.hear(&mut ice, source, bytes);
            self.transmit(&mut ice);
        }
        taken
    }
}

impl Transport for UdpHole {
    fn kind(&self) -> Kind {
        Kind::Datagram
    }

    fn local_addr(&self) -> Addr {
        self.local.into()
    }

    fn peer_addr(&self) -> Option<Addr> {
        Some(self.peer().into())
    }

    /// What strangers send, and checks that are still on their way, are no messages.
    fn poll_recv(&self, cx: &mut Context<'_>, reader: &mut Reader) -> Poll<Result<Received>> {
        let mut ice = self.ice();
        loop {
            if self.socket.poll_recv_ready(cx)?.is_pending() {
                self.keep(&mut ice, cx);
                return Poll::Pending;
            }
            match reader.fill(|buf| self.socket.try_recv_buf_from(buf)) {
                Ok((data, (_, from))) if is_stun(&data) => self.hear(&mut ice, from, &data),
                Ok((data, (_, from))) if from == ice.peer => return Poll::Ready(Ok(Received::Data(data, None))),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_send(&self, cx: &mut Context<'_>, data: &[u8], _to: Option<&Addr>) -> Poll<Result<usize>> {
        let peer = {
            let ice = self.ice();
            if ice.agent.state().is_disconnected() {
                return Poll::Ready(Err(ErrorKind::TimedOut.into()));
            }
            ice.peer
        };
        loop {
            if self.socket.poll_send_ready(cx)?.is_pending() {
                return Poll::Pending;
            }
            match self.socket.try_send_to(data, peer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_finish(&self, _cx: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
}
