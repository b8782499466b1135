//! Brokers that lose, double, replay, shuffle, and never deliver.

use std::time::Duration;

use natpipe::Identity;
use natpipe::key::BrokerUrl;
use natpipe::rendezvous::{BrokerError, MqttClient, SignalError};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::fake::{Fake, Manners};
use super::mosquitto::Mosquitto;
use super::{peer, soon, talk};

const GOOD: Manners =
    Manners { only_311: true, copies: 1, loses_one_of: 0, replays: false, shuffles: false, deaf: false };

/// Each message once and in order, both ways.
async fn carries(manners: Manners, messages: u32) {
    let broker = Fake::new(manners).await;
    let ((_, ann), (bobs, bob)) = (peer(&[&broker.url()]).await, peer(&[&broker.url()]).await);
    let (at_ann, at_bob) = talk(&ann, &bob, &bobs).await;
    let saying = async {
        for n in 0..messages {
            at_ann.send(format!("{n}")).await.unwrap();
            at_bob.send(format!("-{n}")).await.unwrap();
        }
    };
    let hearing = async {
        for n in 0..messages {
            assert_eq!(soon("a message", at_bob.recv()).await.unwrap(), format!("{n}"), "{manners:?}");
            assert_eq!(soon("an answer", at_ann.recv()).await.unwrap(), format!("-{n}"), "{manners:?}");
        }
    };
    tokio::join!(saying, hearing);
    let more = tokio::time::timeout(Duration::from_millis(500), at_bob.recv()).await;
    assert!(more.is_err(), "{manners:?}: {more:?}");
}

#[tokio::test]
async fn an_old_broker_is_spoken_to_in_its_version() {
    carries(GOOD, 50).await;
}

#[tokio::test]
async fn one_that_delivers_thrice_is_heard_once() {
    carries(Manners { copies: 3, ..GOOD }, 50).await;
}

#[tokio::test]
async fn one_that_loses_is_told_again() {
    carries(Manners { loses_one_of: 4, ..GOOD }, 30).await;
}

#[tokio::test]
async fn one_that_shuffles_and_doubles_is_put_in_order() {
    carries(Manners { shuffles: true, copies: 2, ..GOOD }, 40).await;
}

#[tokio::test]
async fn one_that_replays_everything_is_heard_once() {
    carries(Manners { replays: true, ..GOOD }, 30).await;
}

#[tokio::test]
async fn one_that_acknowledges_nothing_delivers_all_the_same() {
    carries(Manners { deaf: true, ..GOOD }, 10).await;
}

#[tokio::test]
async fn one_that_never_delivers_is_an_error_in_time_and_not_a_storm() {
    let broker = Fake::new(Manners { copies: 0, ..GOOD }).await;
    let ((_, ann), (bobs, _bob)) = (peer(&[&broker.url()]).await, peer(&[&broker.url()]).await);
    let signal = ann.signal(bobs.peer_id()).unwrap();
    signal.send("hello").await.unwrap();
    assert_eq!(soon("the end", signal.recv()).await, Err(SignalError::NoAnswer));
    assert!(broker.published() < 30, "{} messages", broker.published());
}

#[tokio::test]
async fn beside_a_good_one_it_does_no_harm() {
    let (bad, good) = (Fake::new(Manners { copies: 0, ..GOOD }).await, Mosquitto::new());
    let urls = [&*bad.url(), &*good.url()];
    let ((_, ann), (bobs, bob)) = (peer(&urls).await, peer(&urls).await);
    let (at_ann, at_bob) = talk(&ann, &bob, &bobs).await;
    at_bob.send("through the other").await.unwrap();
    assert_eq!(soon("a message", at_ann.recv()).await.unwrap(), "through the other");
}

#[tokio::test]
async fn what_is_no_broker_is_an_error_that_says_so() {
    for said in [
        &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        &[0x20, 0xFF, 0xFF, 0xFF, 0x7F],
        &[0; 64],
        b"",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: BrokerUrl = format!("mqtt://{}", listener.local_addr().unwrap()).parse().unwrap();
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(said).await;
            }
        });
        let client = MqttClient::builder(&Identity::generate().unwrap()).broker(url.clone()).start().unwrap();
        let refused = soon("the refusal", client.ready()).await;
        let Err(BrokerError::Unreachable { why }) = refused else { panic!("{refused:?}") };
        assert!(why.contains(&url.authority()), "{why}");
        serving.abort();
    }
}

#[tokio::test]
async fn after_its_welcome_junk_ends_only_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bad = format!("mqtt://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        for n in 0_u32.. {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let welcome = if n.is_multiple_of(2) { &[0x20, 3, 0, 0, 0][..] } else { &[0x20, 2, 0, 0] };
            // An acknowledgement of what was never sent, a message cut short, a packet without end.
            let junk = [&[0x40, 2, 0xFF, 0xFF][..], &[0x30, 4, 0, 200, 1, 2], &[0x30, 0xFF, 0xFF, 0xFF, 0x7F, 0, 1]];
            let _ = stream.write_all(&[welcome, junk[n as usize % 3]].concat()).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let good = Mosquitto::new();
    let urls = [&*bad, &*good.url()];
    let ((_, ann), (bobs, bob)) = (peer(&urls).await, peer(&urls).await);
    for _ in 0..10 {
        talk(&ann, &bob, &bobs).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    serving.abort();
}
