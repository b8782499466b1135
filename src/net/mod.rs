//! What this machine has: its interfaces with their addresses and routes, names turned into
//! addresses, and the sockets that leave by the chosen interface.
//!
//! ```text
//! Interface ─routes─► RoutePool ─► Route ─bind(port)─► Local ─┐
//! name ─Resolver─► addresses ─happy (RFC 8305)─► order ───────┴─► socket
//! ```
//!
//! [`scope`](Scope), `happy` and `table` decide; `interface`, `socket` and `sys` touch the kernel,
//! and `sys` is the only place in the crate with `unsafe`.

#[cfg(feature = "peer")]
mod changes;
mod error;
mod happy;
mod interface;
#[cfg(feature = "stun")]
mod many;
mod options;
#[cfg(all(feature = "duct", unix))]
pub(crate) mod private;
mod resolve;
#[cfg(all(feature = "duct", unix))]
pub(crate) mod rights;
mod route;
mod scope;
pub(crate) mod socket;
pub(crate) mod sys;
mod table;

#[cfg(feature = "peer")]
pub(crate) use changes::{Change, Changes};
pub use error::{InterfaceError, ResolveError, RouteError, SocketError, SocketStep};
pub(crate) use happy::Race;
pub use interface::{Flags, Interface, InterfaceAddr, Mac};
#[cfg(feature = "stun")]
pub(crate) use many::receive_any;
pub use options::{Keepalive, SocketOptions};
pub use resolve::Resolver;
pub use route::{External, Local, Route, RoutePool};
#[cfg(feature = "punch")]
pub(crate) use scope::is_elsewhere;
pub use scope::{Family, Scope};
