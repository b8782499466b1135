//! Two peers that talk, and relay.

use natpipe::Identity;
use natpipe::rendezvous::SignalError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{peer, server, soon};

#[tokio::test]
async fn two_peers_talk_both_ways_in_order() {
    let server = server().await;
    let (ann, bob) = (peer(&server).await, peer(&server).await);
    let to_bob = ann.client.signal(bob.identity.peer_id()).unwrap();
    for n in 0..200_u32 {
        to_bob.send(n.to_be_bytes()).await.unwrap();
    }
    let from_ann = soon("the conversation", bob.client.accept()).await.unwrap();
    assert_eq!(from_ann.peer(), ann.identity.peer_id());
    for n in 0..200_u32 {
        assert_eq!(soon("a message", from_ann.recv()).await.unwrap(), n.to_be_bytes()[..]);
    }
    from_ann.send("heard").await.unwrap();
    assert_eq!(soon("the answer", to_bob.recv()).await.unwrap(), "heard");
    assert!(to_bob.is_live());
    to_bob.send("and you are there").await.unwrap();
    assert_eq!(soon("the last word", from_ann.recv()).await.unwrap(), "and you are there");
    assert!(from_ann.is_live());
    drop(to_bob);
    assert_eq!(soon("the end", from_ann.recv()).await, Err(SignalError::Ended));
}

#[tokio::test]
async fn who_is_not_registered_is_said_to_be_not_there() {
    let server = server().await;
    let ann = peer(&server).await;
    let nobody = Identity::generate().unwrap().peer_id();
    let signal = ann.client.signal(nobody).unwrap();
    assert_eq!(soon("the refusal", signal.recv()).await, Err(SignalError::NotThere));
    assert_eq!(signal.send("hello?").await, Err(SignalError::NotThere));
}

#[tokio::test]
async fn a_relayed_pipe_carries_both_ways_and_ends() {
    let server = server().await;
    let (ann, bob) = (peer(&server).await, peer(&server).await);
    let to_bob = ann.client.signal(bob.identity.peer_id()).unwrap();
    // At once, before Bob has heard of it.
    let mut at_ann = to_bob.relay().await.unwrap().into_stream().await;
    at_ann.write_all(b"first bytes").await.unwrap();
    let from_ann = soon("the conversation", bob.client.accept()).await.unwrap();
    let mut at_bob = from_ann.relay().await.unwrap().into_stream().await;
    let mut got = [0; 11];
    soon("the first bytes", at_bob.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"first bytes");
    at_bob.write_all(b"an answer").await.unwrap();
    at_bob.shutdown().await.unwrap();
    let mut answer = Vec::new();
    soon("the end", at_ann.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"an answer");
    at_ann.write_all(b"still open this way").await.unwrap();
    at_ann.shutdown().await.unwrap();
    let mut rest = Vec::new();
    soon("the end", at_bob.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"still open this way");
}
