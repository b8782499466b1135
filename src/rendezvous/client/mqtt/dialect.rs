//! Waits: one MQTT connection in either version of the protocol, over rumqttc.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::{NetworkOptions, Proxy, ProxyAuth, ProxyType, Transport, v5};
use rustls::ClientConfig;
use tokio::sync::mpsc;

use crate::key::envelope::MAX_LEN;
use crate::key::{BrokerCarrier, BrokerUrl};
use crate::rendezvous;

/// A silent connection is pinged so often; one that does not answer until the next is lost.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// From the first packet to the broker's welcome, seconds.
const CONNECT: u64 = 10;
/// Messages that the broker has not acknowledged, and as many that wait for them.
pub(super) const INFLIGHT: u16 = 64;
/// The longest packet that is taken of a broker that can be told so, and of one that can not: what is longer ends the
/// connection, so that there it must be more than others may publish.
const PACKET: u32 = MAX_LEN as u32 + 4096;
const PACKET_UNTOLD: usize = 1 << 20;

/// Versions of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V5,
    V311,
}

impl Version {
    pub(super) fn other(self) -> Self {
        if self == Self::V5 { Self::V311 } else { Self::V5 }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::V5 { "MQTT 5" } else { "MQTT 3.1.1" })
    }
}

/// How a broker is reached.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) broker: BrokerUrl,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) proxy: Option<rendezvous::Proxy>,
}

/// What a connection says.
#[derive(Debug)]
pub(super) enum Heard {
    /// The broker has taken us.
    Welcome,
    /// It delivers to us from now on; or it refuses to.
    Subscribed(bool),
    /// A message, and whether the broker had kept it from before.
    Message { payload: Bytes, retained: bool },
    /// The connection is over.
    Lost(String),
}

/// A connection that is made or stands. What is heard comes through the channel, until it is lost.
pub(super) enum Mouth {
    V5(v5::AsyncClient),
    V311(rumqttc::AsyncClient),
}

impl Mouth {
    /// False when so much waits that this is dropped.
    pub(super) fn subscribe(&self, topic: &str) -> bool {
        match self {
            Self::V5(client) => client.try_subscribe(topic, v5::mqttbytes::QoS::AtLeastOnce).is_ok(),
            Self::V311(client) => client.try_subscribe(topic, rumqttc::QoS::AtLeastOnce).is_ok(),
        }
    }

    /// False when so much waits that this is dropped.
    pub(super) fn publish(&self, topic: &str, payload: Bytes) -> bool {
        match self {
            Self::V5(client) => client.try_publish(topic, v5::mqttbytes::QoS::AtLeastOnce, false, payload).is_ok(),
            Self::V311(client) => client.try_publish(topic, rumqttc::QoS::AtLeastOnce, false, payload).is_ok(),
        }
    }

    /// Says goodbye after what waits.
    pub(super) fn part(&self) {
        let parted = match self {
            Self::V5(client) => client.try_disconnect().is_ok(),
            Self::V311(client) => client.try_disconnect().is_ok(),
        };
        tracing::trace!(parted, "leaving a broker");
    }
}

/// The future to be driven by a task of its own: the library may be cancelled nowhere else than at its end.
pub(super) fn open(way: &Way, version: Version, tell: mpsc::Sender<Heard>) -> (Mouth, Ear) {
    match version {
        Version::V5 => {
            let (client, events) = v5::AsyncClient::new(way.options_v5(), usize::from(INFLIGHT));
            (Mouth::V5(client), Ear::V5(Box::new(events), tell))
        }
        Version::V311 => {
            let (client, mut events) = rumqttc::AsyncClient::new(way.options_v311(), usize::from(INFLIGHT));
            events.set_network_options(network());
            (Mouth::V311(client), Ear::V311(Box::new(events), tell))
        }
    }
}

/// The other half of a connection.
pub(super) enum Ear {
    V5(Box<v5::EventLoop>, mpsc::Sender<Heard>),
    V311(Box<rumqttc::EventLoop>, mpsc::Sender<Heard>),
}

impl Ear {
    /// Until the connection is lost, or nobody hears any more.
    pub(super) async fn listen(self) {
        match self {
            Self::V5(mut events, tell) => loop {
                let heard = match events.poll().await {
                    Ok(v5::Event::Incoming(packet)) => heard_v5(packet),
                    Ok(v5::Event::Outgoing(_)) => None,
                    Err(error) => Some(Heard::Lost(error.to_string())),
                };
                if !pass_on(&tell, heard).await {
                    return;
                }
            },
            Self::V311(mut events, tell) => loop {
                let heard = match events.poll().await {
                    Ok(rumqttc::Event::Incoming(packet)) => heard_v311(packet),
                    Ok(rumqttc::Event::Outgoing(_)) => None,
                    Err(error) => Some(Heard::Lost(error.to_string())),
                };
                if !pass_on(&tell, heard).await {
                    return;
                }
            },
        }
    }
}

/// False when it is over.
async fn pass_on(tell: &mpsc::Sender<Heard>, heard: Option<Heard>) -> bool {
    let Some(heard) = heard else { return !tell.is_closed() };
    let lost = matches!(heard, Heard::Lost(_));
    tell.send(heard).await.is_ok() && !lost
}

fn heard_v5(packet: v5::mqttbytes::v5::Packet) -> Option<Heard> {
    use v5::mqttbytes::v5::{Packet, SubscribeReasonCode};
    match packet {
        Packet::ConnAck(_) => Some(Heard::Welcome),
        Packet::SubAck(ack) => {
            let taken = ack.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_)));
            Some(Heard::Subscribed(taken && !ack.return_codes.is_empty()))
        }
        Packet::Publish(message) => Some(Heard::Message { payload: message.payload, retained: message.retain }),
        Packet::Disconnect(why) => Some(Heard::Lost(format!("the broker says goodbye: {:?}", why.reason_code))),
        _ => None,
    }
}

fn heard_v311(packet: rumqttc::Packet) -> Option<Heard> {
    use rumqttc::{Packet, SubscribeReasonCode};
    match packet {
        Packet::ConnAck(_) => Some(Heard::Welcome),
        Packet::SubAck(ack) => {
            let taken = ack.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_)));
            Some(Heard::Subscribed(taken && !ack.return_codes.is_empty()))
        }
        Packet::Publish(message) => Some(Heard::Message { payload: message.payload, retained: message.retain }),
        _ => None,
    }
}

fn network() -> NetworkOptions {
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(CONNECT);
    network
}

impl Way {
    /// Where rumqttc is to connect to: a websocket's whole URL, or a host.
    fn address(&self) -> String {
        let broker = &self.broker;
        match broker.carrier() {
            BrokerCarrier::Ws => format!("ws://{}{}", broker.authority(), broker.path()),
            BrokerCarrier::Wss => format!("wss://{}{}", broker.authority(), broker.path()),
            BrokerCarrier::Mqtt if broker.host().contains(':') => format!("[{}]", broker.host()),
            BrokerCarrier::Mqtt | BrokerCarrier::Mqtts => broker.host().to_owned(),
        }
    }

    fn transport(&self) -> Transport {
        let tls = || self.tls.clone().map(rumqttc::TlsConfiguration::Rustls);
        match (self.broker.carrier(), tls()) {
            (BrokerCarrier::Mqtts, Some(tls)) => Transport::Tls(tls),
            (BrokerCarrier::Wss, Some(tls)) => Transport::Wss(tls),
            (BrokerCarrier::Ws | BrokerCarrier::Wss, _) => Transport::Ws,
            (BrokerCarrier::Mqtt | BrokerCarrier::Mqtts, _) => Transport::Tcp,
        }
    }

    fn through(&self) -> Option<Proxy> {
        let proxy = self.proxy.as_ref()?;
        let (addr, port) = proxy.place();
        let auth = match proxy.login() {
            Some((username, password)) => ProxyAuth::Basic { username, password },
            None => ProxyAuth::None,
        };
        Some(Proxy { ty: ProxyType::Http, auth, addr, port })
    }

    fn options_v5(&self) -> v5::MqttOptions {
        let mut options = v5::MqttOptions::new(client_id(), self.address(), self.broker.port());
        options.set_transport(self.transport());
        options.set_keep_alive(KEEPALIVE);
        options.set_clean_start(true);
        options.set_max_packet_size(Some(PACKET));
        options.set_topic_alias_max(Some(0));
        options.set_connection_timeout(CONNECT);
        options.set_outgoing_inflight_upper_limit(INFLIGHT);
        options.set_network_options(network());
        if let Some((user, password)) = self.broker.login() {
            options.set_credentials(user, password);
        }
        if let Some(proxy) = self.through() {
            options.set_proxy(proxy);
        }
        options
    }

    fn options_v311(&self) -> rumqttc::MqttOptions {
        let mut options = rumqttc::MqttOptions::new(client_id(), self.address(), self.broker.port());
        options.set_transport(self.transport());
        options.set_keep_alive(KEEPALIVE);
        options.set_clean_session(true);
        options.set_max_packet_size(PACKET_UNTOLD, PACKET as usize);
        options.set_inflight(INFLIGHT);
        if let Some((user, password)) = self.broker.login() {
            options.set_credentials(user, password);
        }
        if let Some(proxy) = self.through() {
            options.set_proxy(proxy);
        }
        options
    }
}

/// A new one for each connection, as two of one name end each other. Brokers of 3.1.1 take 23 characters (section 3.1.3.1).
fn client_id() -> String {
    format!("np{:016x}", rand::random::<u64>())
}
