//! Peers: a pipe to whoever holds a ticket.

mod session;
