//! Real sockets through real NATs in network namespaces. Needs the feature `lab`, the programs `ip` and `nft`,
//! coturn's, and `/dev/net/tun`; without them tests fail and say what is missing.

#![cfg(all(feature = "lab", target_os = "linux"))]

mod behaviour;
mod by_hand;
mod clocks;
mod coturn;
#[allow(dead_code, reason = "not all of it is needed here")]
#[path = "../turn/coturn.rs"]
mod coturn_server;
mod early;
mod gateway;
mod hosts;
mod kinds;
mod link;
mod meeting;
mod mobility;
mod ordinary;
mod peers;
mod portmap;
mod prober;
mod punch;
mod report;
mod several;
#[cfg(feature = "cli")]
mod sleep;
#[cfg(feature = "cli")]
#[path = "../peer/talk.rs"]
mod talk;
#[cfg(feature = "cli")]
mod talks;
mod without_serve;

natpipe::lab_tests!();
