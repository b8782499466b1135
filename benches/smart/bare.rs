//! The limit: a loop that packs frames into one buffer and writes it, and one that reads and counts.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that one write carries.
const BATCH: usize = 64 << 10;

fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let server = listener.accept().unwrap().0;
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    (server, client)
}

pub fn one_way(size: usize, messages: usize) -> Duration {
    let (mut receiver, mut sender) = connected();
    let sending = thread::spawn(move || {
        let (message, mut batch) = (vec![1u8; size], Vec::with_capacity(BATCH + size + 5));
        for _ in 0..messages {
            batch.extend_from_slice(&(size as u32 + 1).to_be_bytes());
            batch.push(3);
            batch.extend_from_slice(&message);
            if batch.len() >= BATCH {
                sender.write_all(&batch).unwrap();
                batch.clear();
            }
        }
        sender.write_all(&batch).unwrap();
    });
    let mut buf = vec![0; 4 * BATCH];
    let mut left = messages * (size + 5) - receiver.read(&mut buf).unwrap();
    let begun = Instant::now();
    while left > 0 {
        left -= receiver.read(&mut buf).unwrap();
    }
    let took = begun.elapsed();
    sending.join().unwrap();
    took
}

pub fn round_trip(trips: usize) -> Duration {
    let (mut server, mut client) = connected();
    let echo = thread::spawn(move || {
        let mut frame = [0; 69];
        for _ in 0..trips {
            server.read_exact(&mut frame).unwrap();
            server.write_all(&frame).unwrap();
        }
    });
    let mut frame = [1; 69];
    let begun = Instant::now();
    for _ in 0..trips {
        client.write_all(&frame).unwrap();
        client.read_exact(&mut frame).unwrap();
    }
    let took = begun.elapsed();
    echo.join().unwrap();
    took
}
