//! natpipe: everything is a pipe, and everything that talks in messages runs on any pipe, the
//! hole-punched ones included.

mod base;
pub mod net;
pub mod pipe;

pub use net::{Family, Interface, Route, Scope};
pub use pipe::{Addr, Daemon, End, Filter, Message, NetConf, Pipe, Proto, Subscription, pipe_open};
