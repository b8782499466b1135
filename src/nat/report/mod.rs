//! What was learnt about the NATs between here and the world, and what was not.
//!
//! `findings` is the report, `compact` its few bytes inside a ticket.

mod compact;
mod findings;

use crate::net::Family;
pub use compact::DecodeError;
pub use findings::{Entry, Finding, Foreign, Layers, Report, Why};
