//! natpipe: everything is a pipe, and everything that talks in messages runs on any pipe, the
//! hole-punched ones included.

mod base;
#[cfg(feature = "stun")]
pub mod stun;
