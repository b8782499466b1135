//! Natpipe's smart sockets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use natpipe::smart::{SendMode, SmartSocket};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Barrier;

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn connected(client: SmartSocket) -> (SmartSocket, SmartSocket) {
    let server = SmartSocket::new().unwrap();
    let addr = server.bind("127.0.0.1:0").await.unwrap();
    client.connect(addr).unwrap();
    while server.peers().is_empty() || client.peers().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    (server, client)
}

pub fn one_way(size: usize, messages: usize) -> Duration {
    let runtime = runtime();
    runtime.block_on(async {
        let (receiver, sender) = connected(SmartSocket::new().unwrap()).await;
        let sending = tokio::spawn(async move {
            let message = vec![1u8; size];
            for _ in 0..messages {
                sender.send(&message).await.unwrap();
            }
            sender
        });
        let took = tokio::spawn(async move {
            assert_eq!(receiver.recv().await.unwrap().len(), size);
            let begun = Instant::now();
            for _ in 1..messages {
                assert_eq!(receiver.recv().await.unwrap().len(), size);
            }
            begun.elapsed()
        });
        let took = took.await.unwrap();
        drop(sending.await.unwrap());
        took
    })
}

pub fn round_trip(trips: usize) -> Duration {
    let runtime = runtime();
    runtime.block_on(async {
        let (server, client) = connected(SmartSocket::new().unwrap()).await;
        let echo = tokio::spawn(async move {
            for _ in 0..trips {
                let message = server.recv().await.unwrap();
                server.send(message).await.unwrap();
            }
            server
        });
        let took = tokio::spawn(async move {
            let message = [1u8; 64];
            let begun = Instant::now();
            for _ in 0..trips {
                client.send(&message).await.unwrap();
                assert_eq!(client.recv().await.unwrap().len(), 64);
            }
            begun.elapsed()
        });
        let took = took.await.unwrap();
        drop(echo.await.unwrap());
        took
    })
}

pub fn publish(subscribers: usize, messages: usize) -> Duration {
    let runtime = runtime();
    runtime.block_on(async {
        let publisher = SmartSocket::builder().mode(SendMode::Publish).build().unwrap();
        let addr = publisher.bind("127.0.0.1:0").await.unwrap();
        let ready = Arc::new(Barrier::new(subscribers + 1));
        let mut tasks = Vec::new();
        for _ in 0..subscribers {
            let (addr, ready) = (addr.clone(), ready.clone());
            tasks.push(tokio::spawn(async move {
                let socket = SmartSocket::new().unwrap();
                socket.connect(addr).unwrap();
                ready.wait().await;
                for _ in 0..messages {
                    assert_eq!(socket.recv().await.unwrap().len(), 1024);
                }
            }));
        }
        while publisher.peers().len() < subscribers {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        ready.wait().await;
        let message = vec![1u8; 1024];
        let begun = Instant::now();
        for _ in 0..messages {
            publisher.send(&message).await.unwrap();
        }
        for task in tasks {
            task.await.unwrap();
        }
        begun.elapsed()
    })
}
