//! Meeting through MQTT brokers: any broker, several at once, none of them trusted.
//!
//! ```text
//! Signal ─► desk ─► pump ─envelope─► link ─► broker 1 ─► link ─► desk ─► Signal
//!                               └──► link ─► broker 2 ─► link ─┘     the first copy counts, the others are replays
//! ```
//!
//! Each peer listens at the topic of its own key (`topic`); `pump` sends each message through all brokers that are connected,
//! `link` is one connection, `dialect` is MQTT 5 or 3.1.1. Conversations and what is done about losses are those of `talks` and
//! `resend`. The protocol is in `docs/protocols/mqtt.md`.

mod dialect;
mod handle;
mod link;
mod pump;
mod topic;

pub use handle::{BrokerError, MqttBuilder, MqttClient};
pub use topic::topic;
