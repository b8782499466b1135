//! Decides: a place where peers meet, as one line of text: a rendezvous server or a broker.

use std::fmt;
use std::str::FromStr;

use super::{BrokerUrl, ServerUrl, UrlError};

/// Where peers meet.
///
/// As text, `ws://` and `wss://` name a rendezvous server when a key follows (`#KEY`), and a broker otherwise.
///
/// ```
/// use natpipe::key::Place;
///
/// assert!(matches!("mqtts://broker.example.org".parse()?, Place::Broker(_)));
/// assert!(matches!("ws://broker.example.org/mqtt".parse()?, Place::Broker(_)));
/// # Ok::<(), natpipe::key::UrlError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Place {
    /// A rendezvous server of natpipe.
    Server(ServerUrl),
    /// An MQTT broker.
    Broker(BrokerUrl),
}

impl FromStr for Place {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let scheme = text.split("://").next().unwrap_or_default().to_ascii_lowercase();
        match &*scheme {
            "mqtt" | "mqtts" => text.parse().map(Self::Broker),
            "ws" | "wss" if !text.contains('#') => text.parse().map(Self::Broker),
            "natpipe" | "ws" | "wss" => text.parse().map(Self::Server),
            _ => Err(UrlError::PlaceScheme),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(url) => url.fmt(f),
            Self::Broker(url) => url.fmt(f),
        }
    }
}

impl From<ServerUrl> for Place {
    fn from(url: ServerUrl) -> Self {
        Self::Server(url)
    }
}

impl From<BrokerUrl> for Place {
    fn from(url: BrokerUrl) -> Self {
        Self::Broker(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Identity;

    #[test]
    fn a_key_makes_the_difference() {
        let key = Identity::from_seed([5; 32]).peer_id();
        for (text, server) in [
            (format!("natpipe://a:1/#{key}"), true),
            (format!("wss://a/#{key}"), true),
            ("wss://a/mqtt".to_owned(), false),
            ("mqtt://a".to_owned(), false),
        ] {
            assert_eq!(matches!(text.parse().unwrap(), Place::Server(_)), server, "{text}");
        }
        assert_eq!("http://a".parse::<Place>(), Err(UrlError::PlaceScheme));
        assert_eq!("natpipe://a".parse::<Place>(), Err(UrlError::NoKey));
    }
}
