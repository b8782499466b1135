//! What can work between any two reports, and why.
//!
//! `sides` turns an entry into the best and the worst NAT that its findings allow, `ways` asks each method
//! about both: what works with the worst works, what fails with the best can not work.

mod sides;
mod ways;

pub use ways::{Method, Reason, Way, Works, ways};

#[cfg(test)]
mod tests;
