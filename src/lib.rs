//! natpipe: everything is a pipe, and everything that talks in messages runs on any pipe, the
//! hole-punched ones included.

mod base;
#[cfg(any(test, feature = "lab"))]
pub mod lab;
pub mod nat;
