//! STUN: what is my address, seen from there?
//!
//! Messages of RFC 8489, RFC 5780 and RFC 3489 ([`Message`] reads them in place, [`Writer`] writes them into the
//! caller's memory), the client's decisions ([`Query`] asks several servers, each through an [`Attempt`] with its
//! retransmissions, credentials, redirects and old forms) and the server's ([`Binding`]): for these time, randomness and
//! bytes are arguments, packets and events are results. [`Client`] and [`Server`] drive them on real sockets. `crc`,
//! `hmac` and `sha*` compute, `stun-rs` makes the keys.
//!
//! ```text
//! Client  names ─► sockets on a route ─► Query
//! Server  sockets, one or two by two ─► Binding
//! ask     Request ─Attempt─► Transmit … handle_packet ─Message─► Transaction ─► Answer | Failure
//! serve   bytes ─Message─► Limiter ─► Writer ─► Reply
//! ```

mod address;
mod attempt;
mod attribute;
mod build;
mod client;
mod credentials;
mod integrity;
mod message;
mod outcome;
mod query;
mod request;
mod serve;
mod server;
mod stream;
mod transaction;

#[cfg(test)]
mod tests;

pub use attempt::{Attempt, Transmit};
pub use attribute::{
    BINDING, Change, Class, ErrorCode, HEADER_LEN, MAGIC_COOKIE, MAX_MESSAGE_LEN, TransactionId, kind,
};
pub use build::{NoRoom, Writer};
#[cfg(feature = "punch")]
pub(crate) use client::drive_from;
pub(crate) use client::resolve;
pub use client::{AskError, Asked, Client, PORT, ServerName, ServerNameError, TLS_PORT};
pub use credentials::{Challenge, Credentials, Proof};
pub use integrity::{Key, KeyError, PasswordAlgorithm};
pub use message::{Attribute, Attributes, Message, ParseError, is_stun};
pub use outcome::{Answer, Failure};
pub use query::{Event, Query};
pub use request::{Form, Request};
#[cfg(feature = "peer")]
pub(crate) use serve::Streams;
pub use serve::{ServeError, Server, ServerBuilder};
pub use server::{Addresses, AddressesError, Binding, Corner, Counters, Limits, Reply};
pub use stream::{FrameError, next_message};
pub use transaction::{Dropped, Due, Timer, Timing};
