//! TLS for pipes, by rustls: whom a client trusts and what it shows, what a server shows and whom
//! it lets in, and certificates made on the spot for tests and local use.

mod client;
mod identity;
mod server;

pub use client::TlsClient;
pub use identity::{Identity, TlsError};
pub use server::TlsServer;

/// The certificate that the other end has shown; the handshake has proved that it is its own.
fn certificate(connection: &rustls::CommonState) -> Option<bytes::Bytes> {
    let shown = connection.peer_certificates()?.first()?;
    Some(bytes::Bytes::copy_from_slice(shown))
}
