//! Who a peer is: its Ed25519 key, and what follows from it.
//!
//! [`Identity`] is the secret key, [`PeerId`] the public one. `file` keeps identities in files; [`tls`] makes
//! configurations for TLS 1.3 and QUIC in which both ends prove their keys.

mod file;
mod id;
mod identity;
pub mod tls;

pub use file::IdentityError;
pub use id::{PeerId, PeerIdError};
pub use identity::{Identity, NoRandomness};
