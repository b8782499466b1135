//! Streams through the server: much, beside each other, and up to their limits.

use std::io::ErrorKind;

use natpipe::rendezvous::{Limits, RelayStream};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Registered, peer, server, server_with, soon};

/// A stream at both ends.
async fn pair(ann: &Registered, bob: &Registered) -> (RelayStream, RelayStream) {
    let to_bob = ann.client.signal(bob.identity.peer_id()).unwrap();
    let at_ann = to_bob.relay_stream().unwrap();
    let from_ann = soon("the conversation", bob.client.accept()).await.unwrap();
    (at_ann, from_ann.relay_stream().unwrap())
}

/// Bytes that are nowhere alike.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_megabytes_arrive_unchanged_each_way() {
    const LEN: usize = 100_000_000;
    let server = server().await;
    let (ann, bob) = (peer(&server).await, peer(&server).await);
    let (at_ann, at_bob) = pair(&ann, &bob).await;
    let bytes: &'static [u8] = noise(LEN).leak();
    let expected = Sha256::digest(bytes);
    let sent = |stream: RelayStream| async move {
        let (mut reading, mut writing) = tokio::io::split(stream);
        let send = async {
            writing.write_all(bytes).await.unwrap();
            writing.shutdown().await.unwrap();
        };
        let receive = async {
            let (mut hash, mut buffer, mut total) = (Sha256::new(), vec![0; 1 << 16], 0);
            loop {
                let n = reading.read(&mut buffer).await.unwrap();
                if n == 0 {
                    return (hash.finalize(), total);
                }
                hash.update(&buffer[..n]);
                total += n;
            }
        };
        tokio::join!(send, receive).1
    };
    let there = tokio::spawn(sent(at_ann));
    let back = tokio::spawn(sent(at_bob));
    let minutes = std::time::Duration::from_secs(240);
    for end in [there, back] {
        let (hash, total) = tokio::time::timeout(minutes, end).await.expect("all arrives").unwrap();
        assert_eq!((hash, total), (expected, LEN));
    }
    let counters = server.counters();
    assert_eq!((counters.relayed, counters.pairs_joined), (2 * LEN as u64, 1));
}

#[tokio::test]
async fn a_stream_that_nobody_reads_holds_up_neither_signals_nor_other_streams() {
    let server = server().await;
    let (ann, bob) = (peer(&server).await, peer(&server).await);
    let (mut stuck, _unread) = pair(&ann, &bob).await;
    // Until its window and its queue are full.
    let chunk = [1; 16 * 1024];
    let mut written = 0;
    while let Ok(done) = tokio::time::timeout(std::time::Duration::from_millis(300), stuck.write_all(&chunk)).await {
        done.unwrap();
        written += chunk.len();
        assert!(written < 8 << 20, "something holds what nobody reads");
    }
    let to_bob = ann.client.signal(bob.identity.peer_id()).unwrap();
    to_bob.send("still talking").await.unwrap();
    let from_ann = soon("the conversation", bob.client.accept()).await.unwrap();
    assert_eq!(soon("the message", from_ann.recv()).await.unwrap(), "still talking");
    let (mut at_ann, mut at_bob) = (to_bob.relay_stream().unwrap(), from_ann.relay_stream().unwrap());
    let bytes = noise(3 << 20);
    let mut got = vec![0; bytes.len()];
    let both = async { tokio::join!(at_ann.write_all(&bytes), at_bob.read_exact(&mut got)) };
    let (sent, received) = soon("the other stream", both).await;
    sent.unwrap();
    received.unwrap();
    assert!(got == bytes);
}

#[tokio::test]
async fn dropping_a_stream_sends_what_was_written() {
    let server = server().await;
    let (ann, bob) = (peer(&server).await, peer(&server).await);
    let (mut at_ann, mut at_bob) = pair(&ann, &bob).await;
    let bytes = noise(200_000);
    at_ann.write_all(&bytes).await.unwrap();
    drop(at_ann);
    let mut got = Vec::new();
    soon("the end", at_bob.read_to_end(&mut got)).await.unwrap();
    assert!(got == bytes);
    // Nobody is there any more.
    let refused = async {
        loop {
            if let Err(error) = at_bob.write_all(b"hello?").await {
                return error.kind();
            }
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(soon("the refusal", refused).await, ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_used_up_quota_ends_the_stream_with_its_reason() {
    let server = server_with(Limits::default().quota(100_000)).await;
    let (ann, bob) = (peer(&server).await, peer(&server).await);
    let (mut at_ann, mut at_bob) = pair(&ann, &bob).await;
    let sending = async {
        loop {
            if let Err(error) = at_ann.write_all(&[7; 10_000]).await {
                return error.kind();
            }
            tokio::task::yield_now().await;
        }
    };
    let mut got = Vec::new();
    let (sent, received) = soon("the end", async { tokio::join!(sending, at_bob.read_to_end(&mut got)) }).await;
    assert_eq!((sent, received.unwrap_err().kind()), (ErrorKind::QuotaExceeded, ErrorKind::QuotaExceeded));
    assert!(got.len() <= 100_000 && got.len() > 50_000, "{}", got.len());
}

#[tokio::test]
async fn a_stream_to_nobody_breaks_with_its_reason() {
    let server = server().await;
    let ann = peer(&server).await;
    let nobody = natpipe::Identity::generate().unwrap().peer_id();
    let signal = ann.client.signal(nobody).unwrap();
    let mut stream = signal.relay_stream().unwrap();
    let error = soon("the refusal", stream.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let pipe = signal.relay().await;
    assert!(pipe.is_err() || matches!(soon("its end", pipe.unwrap().ended()).await, natpipe::End::Broken(_)));
}

#[tokio::test]
async fn a_conversation_has_many_streams_side_by_side() {
    let server = server().await;
    let (ann, bob) = (peer(&server).await, peer(&server).await);
    let to_bob = ann.client.signal(bob.identity.peer_id()).unwrap();
    let from_ann = soon("the conversation", bob.client.accept()).await.unwrap();
    let ends: Vec<_> = (0..50).map(|_| (to_bob.relay_stream().unwrap(), from_ann.relay_stream().unwrap())).collect();
    for (n, (mut at_ann, mut at_bob)) in ends.into_iter().enumerate() {
        let text = format!("stream {n}");
        at_ann.write_all(text.as_bytes()).await.unwrap();
        at_ann.shutdown().await.unwrap();
        let mut got = String::new();
        soon("the text", at_bob.read_to_string(&mut got)).await.unwrap();
        assert_eq!(got, text);
    }
}
