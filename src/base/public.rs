//! Holds: the public servers that are used when no others are named, each with its purpose. What they can see is said in
//! `docs/security.md`; `--no-public-stun` and `--no-public-mqtt` turn them off.

/// STUN: they tell a packet's sender from which address and port it came, so that a NAT can be measured and a hole be punched. They see
/// that address and when it asked, nothing else. Servers of one address, as most are, are enough for mappings, port assignment and
/// hairpinning; filtering takes one of two addresses and ports (RFC 5780), which the first two have.
#[cfg(feature = "stun")]
pub(crate) const STUN: [&str; 6] = [
    "stunserver2025.stunprotocol.org:3478",
    "stun.voip.blackberry.com:3478",
    "stun.l.google.com:19302",
    "stun.cloudflare.com:3478",
    "stun.nextcloud.com:443",
    "stun.sipgate.net:3478",
];

/// MQTT brokers that are open to everybody, for tests and trials: through them two peers who know no server of their own exchange the
/// few sealed messages that it takes to find a way between them. They see the peers' addresses, a hash of each key, and when how many
/// bytes were sent; no name, no address of the other, no word. All of different operators, over TLS.
#[cfg(feature = "mqtt")]
pub(crate) const BROKERS: [&str; 3] =
    ["mqtts://broker.emqx.io", "mqtts://broker.hivemq.com", "mqtts://test.mosquitto.org:8886"];
