//! NATs on this machine, to test against and to show: [`sim`] is a network in memory with virtual time; on
//! Linux, [`Internet`] builds networks of namespaces, with real sockets and real NATs.

#[cfg(all(feature = "lab", target_os = "linux"))]
mod real;
pub mod sim;

#[cfg(all(feature = "lab", target_os = "linux"))]
pub use real::*;
pub use sim::Link;
