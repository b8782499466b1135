//! NATs on this machine, to test against and to show: `sim` is a network in memory with virtual time.

pub mod sim;
