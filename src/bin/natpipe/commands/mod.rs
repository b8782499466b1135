//! One file per subcommand.

pub mod connect;
pub mod demo;
pub mod echo;
pub mod gateways;
pub mod interfaces;
pub mod lab;
pub mod link;
pub mod listen;
pub mod manual;
pub mod messages;
pub mod mq;
pub mod nat;
pub mod peers;
pub mod pool;
pub mod punch;
pub mod punches;
pub mod serve;
pub mod simulation;
pub mod stun_server;
