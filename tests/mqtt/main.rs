//! Peers that meet through MQTT brokers: mosquitto, and brokers of this test's own that behave badly.

mod bad;
mod changes;
mod fake;
mod mosquitto;
mod nodes;
mod proxied;
mod talking;

use std::time::Duration;

use natpipe::Identity;
use natpipe::key::BrokerUrl;
use natpipe::rendezvous::{MqttClient, Signal};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(done) => done,
        Err(_) => panic!("{what} did not happen within {LIMIT:?}"),
    }
}

/// A peer that is at these brokers, and connected.
async fn peer(urls: &[&str]) -> (Identity, MqttClient) {
    let identity = Identity::generate().unwrap();
    let client = at(&identity, urls).await;
    (identity, client)
}

async fn at(identity: &Identity, urls: &[&str]) -> MqttClient {
    let urls = urls.iter().map(|url| url.parse::<BrokerUrl>().unwrap());
    let client = urls.fold(MqttClient::builder(identity), |builder, url| builder.broker(url)).start().unwrap();
    client.ready().await.unwrap();
    client
}

/// Both ends of a conversation that has begun.
async fn talk(ann: &MqttClient, bob: &MqttClient, bobs: &Identity) -> (Signal, Signal) {
    let at_ann = ann.signal(bobs.peer_id()).unwrap();
    at_ann.send("hello").await.unwrap();
    let at_bob = soon("the conversation", bob.accept()).await.unwrap();
    assert_eq!(soon("the first message", at_bob.recv()).await.unwrap(), "hello");
    (at_ann, at_bob)
}
