//! The bare crate: servers and clients as its documentation writes them.

use std::sync::mpsc;

use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::beside;

/// How a server answers.
#[derive(Clone, Copy)]
pub enum Echo {
    /// Each message by itself, as in the crate's example.
    Each,
    /// All that have come, and then one flush.
    Coalesced,
}

pub async fn client(stream: TcpStream) -> WebSocketStream<TcpStream> {
    stream.set_nodelay(true).unwrap();
    WebSocketStream::from_raw_socket(stream, Role::Client, None).await
}

pub async fn server(stream: TcpStream) -> WebSocketStream<TcpStream> {
    stream.set_nodelay(true).unwrap();
    WebSocketStream::from_raw_socket(stream, Role::Server, None).await
}

/// A server on a thread of its own, and its port.
pub fn serve(echo: Echo) -> u16 {
    let (tell, port) = mpsc::channel();
    beside(move || async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        tell.send(listener.local_addr().unwrap().port()).unwrap();
        let mut socket = server(listener.accept().await.unwrap().0).await;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() || socket.feed(message).await.is_err() {
                return;
            }
            if matches!(echo, Echo::Coalesced) {
                while let Some(Some(Ok(message))) = socket.next().now_or_never() {
                    if socket.feed(message).await.is_err() {
                        return;
                    }
                }
            }
            if socket.flush().await.is_err() {
                return;
            }
        }
    });
    port.recv().unwrap()
}

/// Sends `count` messages with `window` on the way; as many as have been answered at once are sent at once where the server
/// does so too.
pub async fn ask(port: u16, echo: Echo, size: usize, count: usize, window: usize) {
    let mut socket = client(TcpStream::connect(("127.0.0.1", port)).await.unwrap()).await;
    let message = Message::binary(vec![7u8; size]);
    for _ in 0..window {
        socket.feed(message.clone()).await.unwrap();
    }
    socket.flush().await.unwrap();
    let mut came = 0;
    while came < count {
        socket.next().await.unwrap().unwrap();
        let mut some = 1;
        while matches!(echo, Echo::Coalesced) && matches!(socket.next().now_or_never(), Some(Some(Ok(_)))) {
            some += 1;
        }
        came += some;
        for _ in 0..some {
            socket.feed(message.clone()).await.unwrap();
        }
        socket.flush().await.unwrap();
    }
}
