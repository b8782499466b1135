//! A call in virtual time.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::ConnectError;
use crate::key::{Identity, Ticket, TicketAddress};
use crate::peer::Node;

#[tokio::test(start_paused = true)]
async fn a_call_to_nobody_ends_however_often_the_network_changes() {
    let node = Node::builder().port_mapping(false).start().await.unwrap();
    // It takes connections and says nothing.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = TicketAddress { addr: deaf.local_addr().unwrap(), udp: false, tcp: true };
    let ticket = Ticket::new(Identity::generate().unwrap().peer_id()).with_address(address);
    let changing = async {
        loop {
            sleep(Duration::from_secs(2)).await;
            node.handle.inner.changes.send_modify(|changes| *changes += 1);
        }
    };
    let begun = Instant::now();
    let called = tokio::select! {
        called = timeout(Duration::from_secs(120), node.peer(&ticket)) => called,
        () = changing => unreachable!(),
    };
    let error = called.expect("it ends").unwrap_err();
    assert!(matches!(error, ConnectError::Failed(_)), "{error}");
    assert!(begun.elapsed() >= Duration::from_secs(60), "at first it begins anew: {:?}", begun.elapsed());
}
