//! Ports of the router opened for us: PCP (RFC 6887), NAT-PMP (RFC 6886) and UPnP-IGD, and pinholes in its IPv6 firewall.
//!
//! ```text
//! Route ─► Mapper ─map(proto, port)─► Mapping   asked by all three at once, renewed at half of the lease, asked anew
//!                                       │       when the gateway is another or has forgotten, removed at the end
//!                                  state: watch ─► external address
//! Route ─► offers ─► what the gateway speaks
//! ```
//!
//! `packet` decides about the bytes of PCP and NAT-PMP, `lease` about when to ask again, `useful` about whether an address is worth
//! telling anybody. `ask` exchanges a packet with the gateway, `announce` hears
//! when it has restarted, `upnp` talks UPnP through `igd-next`, `held` obtains, renews and
//! removes by whichever protocol, `keep` is the task behind a [`Mapping`].
//!
//! ```no_run
//! use std::time::Duration;
//! use natpipe::portmap::{Mapper, Proto};
//! use natpipe::{Family, Interface};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let route = Interface::default_for(Family::V4)?.route(Family::V4)?;
//! let mapping = Mapper::new(&route).map(Proto::Tcp, 8080)?;
//! match mapping.settled(Duration::from_secs(5)).await {
//!     Some(mapped) => println!("reached at {} by {}", mapped.external, mapped.protocol),
//!     None => println!("{:?}", mapping.state().borrow()),
//! }
//! mapping.close().await;
//! # Ok(()) }
//! ```

mod announce;
mod ask;
mod error;
mod handle;
mod held;
mod keep;
mod lease;
mod offers;
mod packet;
mod place;
mod upnp;
mod useful;

pub use error::{Failure, MapError};
pub use handle::{Mapped, Mapper, Mapping, NoRuntime, State};
pub use offers::{Offer, Offers, offers};
pub use packet::{Answer, Wrong, read_nat_pmp, read_pcp};
pub use place::{Proto, Protocol, can_help};
pub use useful::is_useful;
