//! Networks of this machine: hosts and routers in Linux network namespaces, real sockets, real NATs. An ordinary
//! user can build them, through a user namespace; nothing of them is seen outside, and nothing is left behind.
//!
//! ```text
//! Host ─veth─► Router's bridge ─► nftables NAT ─► TUN ─► core: delay, loss, … ─► TUN ─► Host
//!                               └ the NAT model ─┘
//! ```
//!
//! ```no_run
//! use std::net::UdpSocket;
//! use natpipe::lab::{Internet, Kind};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! natpipe::lab::enter()?; // first of all in `main`; tests say `natpipe::lab_tests!()`
//! let internet = Internet::new()?;
//! let server = internet.host("server")?;
//! let home = internet.router("home", Kind::Home)?;
//! let alice = home.host("alice")?;
//!
//! let at_server = server.run(|| UdpSocket::bind((server.v4().unwrap(), 3478)))?;
//! let at_alice = alice.run(|| UdpSocket::bind("0.0.0.0:0"))?;
//! at_alice.send_to(b"who am I?", at_server.local_addr()?)?;
//! let (_, seen) = at_server.recv_from(&mut [0; 16])?;
//! assert_eq!(seen.ip(), home.outside()[0]);
//! # Ok(())
//! # }
//! ```
//!
//! `kind` names the routers, `rules` writes their rulesets, `plan` gives out addresses, `backbone`
//! decides about packets in the core, `gate` lets the NAT model translate them, `wire` and `icmp` know their
//! bytes; `nat64` and its `translator` join the families; `pump` moves them through each `device`, and `direct` lets the kernel do it; `space`, `internet`, `router` and `host` build namespaces. The programs `ip` and
//! `nft` are needed.

mod backbone;
mod device;
mod direct;
mod error;
mod gate;
mod host;
mod icmp;
mod internet;
mod kind;
mod nat64;
mod plan;
mod pump;
mod router;
mod rules;
mod space;
mod start;
mod translator;
mod wire;

pub use backbone::Traffic;
pub use error::LabError;
pub use host::{Attachment, Host, Place};
pub use internet::Internet;
pub use kind::{Input, Kind, Setup, UnknownKind};
pub use router::Router;
pub use space::Carried;
pub use start::{enter, enter_before_main};
