//! What waits in a smart socket: each connection has a task, and so has each address that it is
//! bound to or connects to; one clerk sends again what is not acknowledged.

mod clerk;
mod connection;
mod dial;
mod listen;

pub(crate) use clerk::clerk;
pub(crate) use connection::attend;
pub(crate) use dial::{Dial, dial};
pub(crate) use listen::listen;
