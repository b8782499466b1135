//! Peers on loopback: tickets, pipes, paths, and those who are not let in.

#![cfg(feature = "peer")]

mod basics;
#[cfg(feature = "cli")]
mod talk;
#[cfg(feature = "cli")]
mod talks;
