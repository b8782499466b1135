//! The system calls that no crate of ours wraps, one file per system, and all of the crate's
//! `unsafe`.

#[cfg(all(feature = "lab", target_os = "linux"))]
pub(crate) mod cable;
#[cfg(all(feature = "peer", target_os = "linux"))]
mod changes;
#[cfg(all(feature = "stun", target_os = "linux"))]
mod fragment;
#[cfg(all(feature = "stun", target_os = "linux"))]
mod hops;
#[cfg(all(feature = "duct", unix))]
mod inherit;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(all(feature = "lab", target_os = "linux"))]
pub(crate) mod netns;
#[cfg(not(target_os = "linux"))]
mod other;
#[cfg(unix)]
mod recv;
#[cfg(all(feature = "peer", target_os = "linux"))]
mod sleep;
#[cfg(target_os = "linux")]
mod splice;
#[cfg(all(feature = "lab", target_os = "linux"))]
pub(crate) mod tun;

#[cfg(all(feature = "peer", target_os = "linux"))]
pub(crate) use changes::ChangeBell;
#[cfg(all(feature = "stun", target_os = "linux"))]
pub(crate) use fragment::never_fragment;
#[cfg(all(feature = "stun", target_os = "linux"))]
pub(crate) use hops::{keep_errors, take_error};
#[cfg(all(feature = "duct", unix))]
pub(crate) use inherit::{at_exit, keep_open, take_inherited};
#[cfg(target_os = "linux")]
pub(crate) use linux::{links, route_table};
#[cfg(all(feature = "peer", not(target_os = "linux")))]
pub(crate) use other::{ChangeBell, SleepBell};
#[cfg(all(feature = "stun", not(target_os = "linux")))]
pub(crate) use other::{keep_errors, never_fragment, take_error};
#[cfg(not(target_os = "linux"))]
pub(crate) use other::{links, route_table};
#[cfg(unix)]
pub(crate) use recv::recv;
#[cfg(all(feature = "duct", unix))]
pub(crate) use recv::{drain, recv_with};
#[cfg(all(feature = "peer", target_os = "linux"))]
pub(crate) use sleep::SleepBell;
#[cfg(target_os = "linux")]
pub(crate) use splice::KernelPipe;
