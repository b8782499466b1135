//! libzmq by the crate `zmq`: PUSH and PULL, REQ and REP, PUB and SUB.

use std::thread;
use std::time::{Duration, Instant};

use zmq::{Context, Message, PULL, PUSH, Socket};

fn bound(context: &Context, kind: zmq::SocketType) -> (Socket, String) {
    let socket = context.socket(kind).unwrap();
    socket.bind("tcp://127.0.0.1:*").unwrap();
    let at = socket.get_last_endpoint().unwrap().unwrap();
    (socket, at)
}

fn connected(context: &Context, kind: zmq::SocketType, to: &str) -> Socket {
    let socket = context.socket(kind).unwrap();
    socket.connect(to).unwrap();
    socket
}

pub fn one_way(size: usize, messages: usize) -> Duration {
    let context = Context::new();
    let (receiver, at) = bound(&context, PULL);
    let sender = connected(&context, PUSH, &at);
    let sending = thread::spawn(move || {
        let message = vec![1u8; size];
        for _ in 0..messages {
            sender.send(&message[..], 0).unwrap();
        }
    });
    let mut message = Message::new();
    receiver.recv(&mut message, 0).unwrap();
    let begun = Instant::now();
    for _ in 1..messages {
        receiver.recv(&mut message, 0).unwrap();
        assert_eq!(message.len(), size);
    }
    let took = begun.elapsed();
    sending.join().unwrap();
    took
}

pub fn round_trip(trips: usize) -> Duration {
    let context = Context::new();
    let (server, at) = bound(&context, zmq::REP);
    let client = connected(&context, zmq::REQ, &at);
    let echo = thread::spawn(move || {
        let mut message = Message::new();
        for _ in 0..trips {
            server.recv(&mut message, 0).unwrap();
            server.send(&message[..], 0).unwrap();
        }
    });
    let mut message = Message::new();
    let begun = Instant::now();
    for _ in 0..trips {
        client.send(&[1u8; 64][..], 0).unwrap();
        client.recv(&mut message, 0).unwrap();
        assert_eq!(message.len(), 64);
    }
    let took = begun.elapsed();
    echo.join().unwrap();
    took
}

/// The subscribers share one thread, which asks them in turn: a thread each would cost more than libzmq does.
pub fn publish(subscribers: usize, messages: usize) -> Duration {
    let context = Context::new();
    let publisher = context.socket(zmq::XPUB).unwrap();
    publisher.set_sndhwm(0).unwrap();
    publisher.set_xpub_verbose(true).unwrap();
    publisher.bind("tcp://127.0.0.1:*").unwrap();
    let at = publisher.get_last_endpoint().unwrap().unwrap();
    let sockets: Vec<Socket> = (0..subscribers)
        .map(|_| {
            let socket = context.socket(zmq::SUB).unwrap();
            socket.set_rcvhwm(0).unwrap();
            socket.set_subscribe(b"").unwrap();
            socket.connect(&at).unwrap();
            socket
        })
        .collect();
    // Every subscription is passed on: a message before the last of them would never come to it.
    for _ in 0..subscribers {
        publisher.recv_bytes(0).unwrap();
    }
    let receiving = thread::spawn(move || {
        let mut message = Message::new();
        for _ in 0..messages {
            for socket in &sockets {
                socket.recv(&mut message, 0).unwrap();
                assert_eq!(message.len(), 1024);
            }
        }
    });
    let message = vec![1u8; 1024];
    let begun = Instant::now();
    for _ in 0..messages {
        publisher.send(&message[..], 0).unwrap();
    }
    receiving.join().unwrap();
    begun.elapsed()
}
