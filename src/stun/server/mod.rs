//! The server's decisions: [`Binding`] answers requests of RFC 8489, RFC 5780 and RFC 3489 from a fixed amount of memory.

mod addresses;
mod binding;
mod limit;

pub use addresses::{Addresses, AddressesError, Corner};
pub use binding::{Binding, Counters, Reply};
pub use limit::Limits;
pub(super) use limit::source;
