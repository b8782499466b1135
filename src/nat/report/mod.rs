//! What was learnt about the NATs between here and the world, and what was not.
//!
//! `findings` is the report, `compact` its few bytes inside a ticket.

mod compact;
mod findings;

pub use compact::DecodeError;
pub use findings::{Entry, Family, Finding, Foreign, Layers, Report, Why};
