//! Conversations through mosquitto.

use std::time::Duration;

use natpipe::Identity;
use natpipe::key::BrokerUrl;
use natpipe::pipe::tls::TlsClient;
use natpipe::rendezvous::{BrokerError, MqttClient, SignalError, State};
use tokio::time::sleep;

use super::mosquitto::{Listener, Mosquitto};
use super::{at, peer, soon, talk};

#[tokio::test]
async fn two_peers_talk_in_order_and_hear_the_end() {
    let broker = Mosquitto::new();
    let ((_, ann), (bobs, bob)) = (peer(&[&broker.url()]).await, peer(&[&broker.url()]).await);
    let (at_ann, at_bob) = talk(&ann, &bob, &bobs).await;
    for n in 0..200_u32 {
        at_ann.send(format!("there {n}")).await.unwrap();
        at_bob.send(format!("back {n}")).await.unwrap();
        assert_eq!(soon("a message", at_bob.recv()).await.unwrap(), format!("there {n}"));
        assert_eq!(soon("an answer", at_ann.recv()).await.unwrap(), format!("back {n}"));
    }
    let long = vec![7; natpipe::rendezvous::Signal::MAX_MESSAGE];
    at_ann.send(&long).await.unwrap();
    assert_eq!(soon("a long message", at_bob.recv()).await.unwrap(), long);
    at_ann.send("last").await.unwrap();
    drop(at_ann);
    assert_eq!(soon("the last message", at_bob.recv()).await.unwrap(), "last");
    assert_eq!(soon("the end", at_bob.recv()).await, Err(SignalError::Ended));
    assert_eq!(at_bob.relay_stream().unwrap_err(), SignalError::NoRelay);
}

#[tokio::test]
async fn many_conversations_do_not_mix() {
    let broker = Mosquitto::new();
    let ((_, ann), (bobs, bob)) = (peer(&[&broker.url()]).await, peer(&[&broker.url()]).await);
    let mut pairs = Vec::new();
    for n in 0..20 {
        let (at_ann, at_bob) = talk(&ann, &bob, &bobs).await;
        at_ann.send(format!("{n}")).await.unwrap();
        pairs.push((at_ann, at_bob));
    }
    for (n, (_, at_bob)) in pairs.iter().enumerate().rev() {
        assert_eq!(soon("its message", at_bob.recv()).await.unwrap(), format!("{n}"));
    }
}

#[tokio::test]
async fn a_broker_that_is_killed_and_restarted_costs_a_pause() {
    let mut broker = Mosquitto::new();
    let ((_, ann), (bobs, bob)) = (peer(&[&broker.url()]).await, peer(&[&broker.url()]).await);
    let (at_ann, at_bob) = talk(&ann, &bob, &bobs).await;
    broker.kill();
    let mut state = ann.state();
    let lost = state.wait_for(|state| matches!(state, State::Connecting { .. }));
    soon("the loss", lost).await.unwrap();
    // Nobody carries it now.
    at_ann.send("while it was down").await.unwrap();
    at_bob.send("here too").await.unwrap();
    broker.start();
    assert_eq!(soon("the message", at_bob.recv()).await.unwrap(), "while it was down");
    assert_eq!(soon("the answer", at_ann.recv()).await.unwrap(), "here too");
    talk(&ann, &bob, &bobs).await;
}

#[tokio::test]
async fn of_several_brokers_one_is_enough_and_nothing_comes_twice() {
    let (mut one, other) = (Mosquitto::new(), Mosquitto::new());
    let urls = [one.url(), other.url(), "mqtt://127.0.0.1:1".to_owned()];
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let ((_, ann), (bobs, bob)) = (peer(&urls).await, peer(&urls).await);
    let (at_ann, at_bob) = talk(&ann, &bob, &bobs).await;
    for n in 0..300_u32 {
        if n == 100 {
            one.kill();
        }
        if n == 200 {
            one.start();
        }
        at_ann.send(format!("{n}")).await.unwrap();
        assert_eq!(soon("a message", at_bob.recv()).await.unwrap(), format!("{n}"));
    }
    let nothing = tokio::time::timeout(Duration::from_millis(700), at_bob.recv()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    // They have one broker in common.
    let (_, eve) = peer(&urls[..1]).await;
    talk(&eve, &bob, &bobs).await;
}

#[tokio::test]
async fn user_and_password_are_asked_and_a_refusal_is_told() {
    let mut hashed = std::process::Command::new("mosquitto_passwd");
    let file = Mosquitto::write("passwords", "ann:swordfish\n");
    assert!(hashed.arg("-U").arg(&file).status().expect("mosquitto is installed").success());
    let broker =
        Mosquitto::with(&[Listener::Plain], &format!("allow_anonymous false\npassword_file {}", file.display()));
    let port = broker.port(0);
    let (_, ann) = peer(&[&format!("mqtt://ann:swordfish@127.0.0.1:{port}")]).await;
    let (bobs, bob) = peer(&[&format!("mqtt://ann:swordfish@127.0.0.1:{port}")]).await;
    talk(&ann, &bob, &bobs).await;
    let wrong: BrokerUrl = format!("mqtt://ann:herring@127.0.0.1:{port}").parse().unwrap();
    let client = MqttClient::builder(&Identity::generate().unwrap()).broker(wrong).start().unwrap();
    let refused = soon("the refusal", client.ready()).await;
    let Err(BrokerError::Unreachable { why }) = refused else { panic!("{refused:?}") };
    assert!(why.contains("refused") && !why.contains("herring"), "{why}");
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn tls_and_websockets_carry_it_and_a_stranger_s_certificate_does_not() {
    let all = [Listener::Plain, Listener::Tls, Listener::Web, Listener::WebTls];
    let broker = Mosquitto::with(&all, "allow_anonymous true");
    let trust = TlsClient::trusting(&broker.certificate()).unwrap();
    let urls = [
        format!("mqtts://localhost:{}", broker.port(1)),
        format!("ws://localhost:{}/mqtt", broker.port(2)),
        format!("wss://localhost:{}/mqtt", broker.port(3)),
    ];
    let (bobs, bob) = peer(&[&broker.url()]).await;
    for url in &urls {
        let me = Identity::generate().unwrap();
        let client = MqttClient::builder(&me).broker(url.parse().unwrap()).tls(trust.clone()).start().unwrap();
        soon(url, client.ready()).await.unwrap_or_else(|error| panic!("{url}: {error}"));
        talk(&client, &bob, &bobs).await;
    }
    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = TlsClient::trusting(&stranger.cert.pem()).unwrap();
    for url in [&urls[0], &urls[2]] {
        let me = Identity::generate().unwrap();
        let client = MqttClient::builder(&me).broker(url.parse().unwrap()).tls(other.clone()).start().unwrap();
        let refused = soon(url, client.ready()).await.unwrap_err();
        assert!(refused.to_string().contains("certificate"), "{url}: {refused}");
    }
}

#[tokio::test]
async fn nobody_there_is_an_error_in_time_and_closing_waits_for_no_one() {
    let broker = Mosquitto::new();
    let (_, ann) = peer(&[&broker.url()]).await;
    let nobody = Identity::generate().unwrap();
    let signal = ann.signal(nobody.peer_id()).unwrap();
    signal.send("is anybody there?").await.unwrap();
    let begun = std::time::Instant::now();
    assert_eq!(soon("the answer", signal.recv()).await, Err(SignalError::NoAnswer));
    println!("nobody there: {:?}", begun.elapsed());
    let again = ann.signal(nobody.peer_id()).unwrap();
    soon("the end", ann.close()).await;
    assert_eq!(soon("the end", again.recv()).await.unwrap_err(), SignalError::ServerLost);
    assert_eq!(ann.signal(nobody.peer_id()).unwrap_err(), SignalError::NotConnected);
}

#[tokio::test]
async fn what_a_broker_kept_is_not_heard_and_what_others_publish_hurts_nobody() {
    let broker = Mosquitto::new();
    let (bobs, bob) = peer(&[&broker.url()]).await;
    let topic = natpipe::rendezvous::topic(bobs.peer_id());
    let options = rumqttc::MqttOptions::new("eve", "127.0.0.1", broker.port(0));
    let (eve, mut events) = rumqttc::AsyncClient::new(options, 100);
    let driving = tokio::spawn(async move { while events.poll().await.is_ok() {} });
    for junk in [vec![], vec![1], vec![0; 100], vec![1; 200], vec![1; 9_000]] {
        eve.publish(&*topic, rumqttc::QoS::AtLeastOnce, true, junk.clone()).await.unwrap();
        eve.publish(&*topic, rumqttc::QoS::AtMostOnce, false, junk).await.unwrap();
    }
    let (_, ann) = peer(&[&broker.url()]).await;
    talk(&ann, &bob, &bobs).await;
    // Who comes later is given what was kept. One that is only dropped may still hear, for a moment, what is the next one's.
    bob.close().await;
    let bob = at(&bobs, &[&broker.url()]).await;
    talk(&ann, &bob, &bobs).await;
    let none = tokio::time::timeout(Duration::from_millis(300), bob.accept()).await;
    assert!(none.is_err(), "{none:?}");
    driving.abort();
    sleep(Duration::ZERO).await;
}
