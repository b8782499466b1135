//! The client: one connection to a server, kept up; conversations and relayed streams on it.
//!
//! `desk`, `talks` and `streams` decide what a frame means and what is to be sent; `attempt` when it is not worth waiting
//! for a connection any more; `dial` and `link` wait for it, `signal` and `relay` are what users hold. `mqtt` has brokers in the
//! server's place; `resend` decides what is done about their losses.

mod attempt;
mod desk;
mod dial;
mod handle;
mod link;
#[cfg(feature = "mqtt")]
mod mqtt;
mod proxy;
mod relay;
#[cfg_attr(not(feature = "mqtt"), allow(dead_code, reason = "only brokers lose what they carry"))]
mod resend;
mod signal;
mod streams;
#[cfg_attr(not(feature = "mqtt"), allow(dead_code, reason = "only brokers lose what they carry"))]
mod talks;
#[cfg(test)]
mod tests;

pub use dial::ConnectError;
pub use handle::{Client, ClientBuilder, State};
use handle::{Handle, Shared};
#[cfg(feature = "mqtt")]
pub use mqtt::{BrokerError, MqttBuilder, MqttClient, topic};
pub use proxy::{Proxy, ProxyError};
pub use relay::RelayStream;
pub use signal::{RelayError, Signal, SignalError};
