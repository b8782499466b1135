//! At least once: acknowledgements, sending again, giving up.

use std::time::Duration;

use natpipe::smart::protocol::Envelope;
use natpipe::smart::{Acknowledge, Builder, ConfirmError, Delivery, Event, Resend, SendMode, SmartSocket};

use crate::{Raw, connected, event, peers, socket, soon, text};

fn sure() -> Builder {
    SmartSocket::builder().delivery(Delivery::AtLeastOnce)
}

#[tokio::test]
async fn a_message_is_acknowledged_when_it_is_received_and_not_before() {
    let (server, client) = connected(socket(), sure().build().unwrap()).await;
    let sender = client.clone();
    let confirmed = tokio::spawn(async move { sender.send_acknowledged("important", None).await });
    let message = soon("it", server.recv_from()).await.unwrap();
    assert_eq!(message.data, "important");
    soon("the acknowledgement", confirmed).await.unwrap().unwrap();
    assert_eq!((client.counters().acknowledged, client.counters().unacknowledged), (1, 0));
    assert_eq!(client.peers()[0].counters.acknowledged, 1);
    // The other end sends at most once; it does not wait for what never comes.
    let refused = server.send_acknowledged("x", None).await;
    assert!(matches!(refused, Err(ConfirmError::NoAcknowledgements)));
}

#[tokio::test]
async fn without_an_acknowledgement_it_is_sent_again_and_then_given_up_with_word_to_the_sender() {
    let resend = Resend { after: Duration::from_millis(30), tries: 3, within: None };
    let client = sure().resend(resend).build().unwrap();
    let mut events = client.events();
    let addr = client.bind("127.0.0.1:0").await.unwrap().ip().unwrap();
    let mut peer = Raw::greeted(addr, 1).await;
    peers(&client, 1).await;
    let sender = client.clone();
    let confirmed = tokio::spawn(async move { sender.send_acknowledged("important", None).await });
    let mut ids = Vec::new();
    for _ in 0..3 {
        let Some(Envelope::DataReq(id, payload)) = peer.hear().await else { panic!("no message") };
        assert_eq!(payload, "important");
        ids.push(id);
    }
    assert!(ids.windows(2).all(|two| two[0] == two[1]));
    let Err(ConfirmError::GivenUp { tries: 3, payload }) = soon("giving up", confirmed).await.unwrap() else {
        panic!("not given up")
    };
    assert_eq!(payload, "important");
    let told = event(&mut events, |event| match event {
        Event::GivenUp { payload, tries, .. } => Some((payload, tries)),
        _ => None,
    });
    assert_eq!(told.await, ("important".into(), 3));
    // A late ACK is for nothing.
    peer.say(&Envelope::Ack(ids[0])).await;
    peer.say(&Envelope::Data("still here".into())).await;
    assert_eq!(text(&client).await, "still here");
    assert_eq!(client.counters().acknowledged, 0);
}

#[tokio::test]
async fn time_runs_out_for_a_message_that_nobody_comes_for() {
    let resend = Resend { within: Some(Duration::from_millis(100)), ..Resend::default() };
    let client = sure().resend(resend).build().unwrap();
    let confirmed = soon("giving up", client.send_acknowledged("m", None)).await;
    assert!(matches!(confirmed, Err(ConfirmError::GivenUp { tries: 0, .. })), "{confirmed:?}");
}

#[tokio::test]
async fn a_consumer_that_dies_over_a_message_leaves_it_to_the_next() {
    let producer = sure().build().unwrap();
    let addr = producer.bind("127.0.0.1:0").await.unwrap();
    let consumer = || SmartSocket::builder().acknowledge(Acknowledge::NextAsked).build().unwrap();
    let first = consumer();
    first.connect(&addr).unwrap();
    peers(&producer, 1).await;
    for text in ["a", "b", "c"] {
        producer.send(text).await.unwrap();
    }
    assert_eq!([text(&first).await, text(&first).await], ["a", "b"]);
    // "a" was done with when "b" was asked for.
    while producer.counters().acknowledged < 1 {
        tokio::task::yield_now().await;
    }
    drop(first);
    let second = consumer();
    second.connect(&addr).unwrap();
    assert_eq!([text(&second).await, text(&second).await], ["b", "c"]);
    second.close().await.unwrap();
    soon("closing", producer.close()).await.unwrap();
}

#[tokio::test]
async fn what_is_published_is_not_acknowledged_and_arrives_all_the_same() {
    let publisher = sure().mode(SendMode::Publish).build().unwrap();
    let addr = publisher.bind("127.0.0.1:0").await.unwrap().ip().unwrap();
    let mut peer = Raw::greeted(addr, 1).await;
    peers(&publisher, 1).await;
    publisher.send("to all").await.unwrap();
    assert_eq!(peer.hear().await, Some(Envelope::Data("to all".into())));
    publisher.close().await.unwrap();
}

#[tokio::test]
async fn a_request_that_is_acknowledged_comes_back_on_the_connection_that_it_came_by() {
    let server = socket();
    let addr = server.bind("127.0.0.1:0").await.unwrap().ip().unwrap();
    let (mut one, mut other) = (Raw::greeted(addr, 1).await, Raw::greeted(addr, 2).await);
    one.say(&Envelope::DataReq([4; 16], "m".into())).await;
    assert_eq!(text(&server).await, "m");
    assert_eq!(one.hear().await, Some(Envelope::Ack([4; 16])));
    server.send("a").await.unwrap();
    server.send("b").await.unwrap();
    let heard = [one.hear().await.unwrap(), other.hear().await.unwrap()];
    assert!(heard.contains(&Envelope::Data("a".into())) && heard.contains(&Envelope::Data("b".into())), "{heard:?}");
}
