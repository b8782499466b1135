//! What smart sockets say to each other (version 1, as the Python package `aiomsg` speaks it): the
//! envelopes, and one connection's course from its HELLO to its end. It decides only; time and bytes
//! are arguments.

mod envelope;
mod frames;
mod run;
mod session;

pub(crate) use envelope::Head;
pub use envelope::{Envelope, Malformed, MessageId, VERSION};
pub use frames::{Frames, TooLong};
pub use run::Run;
pub use session::{Fault, Incoming, Session, Timing};
