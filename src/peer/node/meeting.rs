//! Waits: where a node meets others: a rendezvous server, or brokers.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use crate::key::{BrokerUrl, PeerId, ServerUrl, Ticket};
#[cfg(feature = "mqtt")]
use crate::rendezvous::{BrokerError, MqttClient};
use crate::rendezvous::{Client, ConnectError, Signal, SignalError, State};

/// Where a peer may be met: one server, or some brokers, which are one place together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meet {
    Server(ServerUrl),
    Brokers(Vec<BrokerUrl>),
}

impl Meet {
    pub(super) fn places(ticket: &Ticket) -> Vec<Self> {
        let servers = ticket.servers().iter().cloned().map(Self::Server);
        let brokers = Some(ticket.brokers().to_vec()).filter(|brokers| !brokers.is_empty());
        servers.chain(brokers.map(Self::Brokers)).collect()
    }
}

impl fmt::Display for Meet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(url) => f.write_str(&url.authority()),
            Self::Brokers(urls) => {
                let names: Vec<String> = urls.iter().map(BrokerUrl::authority).collect();
                f.write_str(&names.join(", "))
            }
        }
    }
}

/// Why nobody can be met there.
#[derive(Debug, thiserror::Error)]
pub(super) enum MeetError {
    #[error(transparent)]
    Server(#[from] ConnectError),
    #[cfg(feature = "mqtt")]
    #[error(transparent)]
    Brokers(#[from] BrokerError),
    #[cfg(not(feature = "mqtt"))]
    #[error("this natpipe was built without MQTT")]
    NoMqtt,
}

/// A place where this node is now.
#[derive(Clone, Debug)]
pub(super) enum Meeting {
    Server(Client),
    #[cfg(feature = "mqtt")]
    Brokers(MqttClient),
}

impl Meeting {
    pub(super) fn signal(&self, peer: PeerId) -> Result<Signal, SignalError> {
        match self {
            Self::Server(client) => client.signal(peer),
            #[cfg(feature = "mqtt")]
            Self::Brokers(client) => client.signal(peer),
        }
    }

    pub(super) async fn accept(&self) -> Result<Signal, SignalError> {
        match self {
            Self::Server(client) => client.accept().await,
            #[cfg(feature = "mqtt")]
            Self::Brokers(client) => client.accept().await,
        }
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Server(client) => client.close().await,
            #[cfg(feature = "mqtt")]
            Self::Brokers(client) => client.close().await,
        }
    }

    /// Waits until it stands for the first time.
    pub(super) async fn ready(&self) -> Result<(), MeetError> {
        match self {
            Self::Server(_) => Ok(()),
            #[cfg(feature = "mqtt")]
            Self::Brokers(client) => Ok(client.ready().await?),
        }
    }

    /// Looks whether it still stands, now.
    pub(super) fn check(&self) {
        match self {
            Self::Server(client) => client.check(),
            #[cfg(feature = "mqtt")]
            Self::Brokers(client) => client.check(),
        }
    }

    /// The same, and waits until it does.
    pub(super) async fn checked(&self) {
        match self {
            Self::Server(client) => client.checked().await,
            #[cfg(feature = "mqtt")]
            Self::Brokers(client) => client.checked().await,
        }
    }

    /// Whether it stands, or comes back by itself.
    pub(super) fn lives(&self) -> bool {
        !matches!(*self.state().borrow(), State::Closed { .. })
    }

    /// Why it does not come back by itself, where that was not our wish.
    pub(super) fn why_over(&self) -> Option<Arc<str>> {
        match &*self.state().borrow() {
            State::Closed { why } => why.clone(),
            _ => None,
        }
    }

    fn state(&self) -> watch::Receiver<State> {
        match self {
            Self::Server(client) => client.state(),
            #[cfg(feature = "mqtt")]
            Self::Brokers(client) => client.state(),
        }
    }

    /// Whether streams are relayed there.
    pub(super) fn relays(&self) -> bool {
        matches!(self, Self::Server(_))
    }

    /// The server, which answers STUN as well.
    pub(super) fn server(&self) -> Option<&ServerUrl> {
        match self {
            Self::Server(client) => Some(client.url()),
            #[cfg(feature = "mqtt")]
            Self::Brokers(_) => None,
        }
    }

    /// Whether who is wanted there can be met here.
    pub(super) fn is_at(&self, place: &Meet) -> bool {
        match (self, place) {
            (Self::Server(client), Meet::Server(url)) => client.url() == url,
            #[cfg(feature = "mqtt")]
            (Self::Brokers(client), Meet::Brokers(urls)) => urls.iter().all(|url| client.brokers().contains(url)),
            _ => false,
        }
    }
}
