//! Waits: ICE over our sockets, by the crate `is`, until both ends have nominated a pair.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use is::stun::{StunMessage, StunPacket};
use is::{Candidate as IceCandidate, IceAgent, IceAgentEvent};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use tokio::time::sleep_until;

use super::gather::UdpBase;
use super::hole::UdpHole;
use super::{Agreed, Hole};
use crate::net::socket::send_now;
use crate::stun::is_stun;

/// Room for a check.
const ROOM: usize = 2048;

/// Between the first checks of a pair: a NAT may let in only what comes after its own host's packet, and each end's
/// first one may come too early (RFC 8445 leaves the timer to the implementation).
const FIRST_RTO: Duration = Duration::from_millis(50);

/// Where the agent names no instant of its own: it is looked at again then.
const IDLE: Duration = Duration::from_millis(500);

/// Runs ICE until a pair is nominated; it is for the caller to give up. ICE goes on in the hole: the other end may still
/// need answers, and both go on proving that they are there.
pub(super) async fn dig(bases: Vec<UdpBase>, agreed: Agreed) -> (Hole, SocketAddr, SocketAddr, u32) {
    let mut dig = Dig { agent: agent(&bases, agreed), bases, attempts: 0, nominated: None };
    let (local, peer) = dig.nominate().await;
    // The nominated socket is ours: ICE names it by its base.
    let at = dig.bases.iter().position(|base| base.local == local).unwrap_or_default();
    let attempts = dig.attempts;
    let socket = dig.bases.swap_remove(at).socket;
    (Hole::Udp(Box::new(UdpHole::new(socket, local, peer, dig.agent))), local, peer, attempts)
}

fn agent(bases: &[UdpBase], agreed: Agreed) -> IceAgent {
    let mut agent = IceAgent::new(agreed.ours);
    agent.set_controlling(agreed.controlling);
    agent.set_remote_credentials(agreed.theirs);
    agent.set_initial_stun_rto(FIRST_RTO);
    for base in bases {
        let host = IceCandidate::host(base.local, "udp").ok();
        host.and_then(|host| agent.add_local_candidate(host).cloned());
        let reflexive = base.mapped.filter(|mapped| *mapped != base.local);
        let reflexive = reflexive.and_then(|mapped| IceCandidate::server_reflexive(mapped, base.local, "udp").ok());
        reflexive.and_then(|reflexive| agent.add_local_candidate(reflexive).cloned());
    }
    for candidate in &agreed.candidates {
        // What kind it is to the peer matters only for its place in the order: each is a place to send checks to.
        if let Ok(remote) = IceCandidate::host(candidate.addr, "udp") {
            agent.add_remote_candidate(remote);
        }
    }
    agent
}

struct Dig {
    agent: IceAgent,
    bases: Vec<UdpBase>,
    attempts: u32,
    nominated: Option<(SocketAddr, SocketAddr)>,
}

impl Dig {
    /// Until a pair is nominated.
    async fn nominate(&mut self) -> (SocketAddr, SocketAddr) {
        self.agent.handle_timeout(Instant::now());
        loop {
            self.transmit();
            if let Some(nominated) = self.nominated {
                return nominated;
            }
            self.turn().await;
        }
    }

    /// One packet, or one timer.
    async fn turn(&mut self) {
        let next = self.agent.poll_timeout().unwrap_or_else(|| Instant::now() + IDLE);
        let mut buf = [0; ROOM];
        let received = tokio::select! {
            received = receive(&self.bases, &mut buf) => Some(received),
            () = sleep_until(next.into()) => None,
        };
        match received {
            Some((at, from, len)) => self.hear(at, from, &buf[..len]),
            None => self.agent.handle_timeout(Instant::now()),
        }
    }

    fn hear(&mut self, at: usize, source: SocketAddr, bytes: &[u8]) {
        if !is_stun(bytes) {
            return;
        }
        let Ok(message) = StunMessage::parse(bytes) else { return };
        let destination = self.bases[at].local;
        if self.agent.accepts_message(&message) {
            let now = Instant::now();
            self.agent.handle_packet(now, StunPacket { proto: is::Protocol::Udp, source, destination, message });
            self.agent.handle_timeout(now);
        }
    }

    fn transmit(&mut self) {
        while let Some(transmit) = self.agent.poll_transmit() {
            if let Some(base) = self.bases.iter().find(|base| base.local == transmit.source) {
                self.attempts += 1;
                // Unreachable now may be reachable at the next check.
                let _ = send_now(&base.socket, &transmit.contents, transmit.destination);
            }
        }
        while let Some(event) = self.agent.poll_event() {
            if let IceAgentEvent::NominatedSend { source, destination, .. } = event {
                self.nominated = Some((source, destination));
            }
        }
    }
}

/// The next packet at any of the sockets.
async fn receive(bases: &[UdpBase], buf: &mut [u8]) -> (usize, SocketAddr, usize) {
    poll_fn(|cx| {
        for (at, base) in bases.iter().enumerate() {
            if let Poll::Ready((from, len)) = poll_one(&base.socket, cx, buf) {
                return Poll::Ready((at, from, len));
            }
        }
        Poll::Pending
    })
    .await
}

/// An error is an earlier packet's (ICMP): the next read goes on, a few at one go.
fn poll_one(socket: &UdpSocket, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<(SocketAddr, usize)> {
    const ERRORS: usize = 16;
    for _ in 0..ERRORS {
        let mut read = ReadBuf::new(buf);
        match socket.poll_recv_from(cx, &mut read) {
            Poll::Ready(Ok(from)) => return Poll::Ready((from, read.filled().len())),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => return Poll::Pending,
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}
