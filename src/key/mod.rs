//! Who a peer is, and what is passed around to find it.
//!
//! [`Identity`] is the secret key of a peer, [`PeerId`] the public one; `file` keeps identities in files. [`Ticket`] is
//! the text that one person gives another, [`ServerUrl`] names a rendezvous server, [`BrokerUrl`] an MQTT broker, [`Place`] either. [`tls`] makes configurations for
//! TLS 1.3 and QUIC in which both ends prove their keys, [`seal`] makes messages that pass through strangers' hands, [`envelope`] hides who wrote them.

mod broker;
pub mod envelope;
mod file;
mod id;
mod identity;
mod once;
mod place;
pub mod seal;
mod ticket;
pub mod tls;
mod url;

pub use broker::{BrokerCarrier, BrokerUrl};
pub use file::IdentityError;
pub use id::{PeerId, PeerIdError};
pub use identity::{Identity, NoRandomness};
pub use once::{OneTime, Secret};
pub use place::Place;
pub use ticket::{Ticket, TicketAddress, TicketError};
pub use url::{Carrier, DEFAULT_PORT, ServerUrl, UrlError};
