//! YAML bodies, read without ever building an object and written so that Python reads the same.
//!
//! `read` decides what a text means: plain data as Python's libraries write it, and the tags with which they
//! mark it. `write` decides how a value is spelled: on one line, quoted wherever YAML 1.1 or
//! 1.2 would take a bare word for something else.

mod read;
mod scalar;
mod write;

pub(super) use read::{Tags, read};
pub(super) use write::{spell, write};

#[cfg(test)]
mod tests;
