//! One file per subcommand.

pub mod demo;
pub mod echo;
pub mod interfaces;
pub mod link;
pub mod manual;
pub mod nat;
pub mod pool;
pub mod serve;
pub mod stun_server;
