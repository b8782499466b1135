//! Waits: the next datagram at any of many sockets.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

/// ICMP errors of one socket that are skipped at one go; more wait for the next turn.
const ERRORS: usize = 16;

/// The next datagram at any of the sockets: the key of the socket, the sender and the length. The sockets that come first are
/// looked at first. Cancel safe.
pub(crate) async fn receive_any<'a, K, I>(sockets: impl Fn() -> I, buf: &mut [u8]) -> (K, SocketAddr, usize)
where
    I: Iterator<Item = (K, &'a UdpSocket)>,
{
    poll_fn(|cx| {
        for (key, socket) in sockets() {
            if let Poll::Ready((from, len)) = poll_one(socket, cx, buf) {
                return Poll::Ready((key, from, len));
            }
        }
        Poll::Pending
    })
    .await
}

/// An error is an earlier packet's (ICMP): the next read goes on.
fn poll_one(socket: &UdpSocket, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<(SocketAddr, usize)> {
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
