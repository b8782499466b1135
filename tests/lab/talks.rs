//! Pools, smart sockets, ducts and calls between two peers behind NATs, while their session moves from the relay to a hole.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use natpipe::Ticket;
use natpipe::lab::{Internet, Kind, Link};
use natpipe::peer::{Node, PathInfo, PathKind};
use tokio::time::timeout;

use super::peers::meeting;
use super::talk::{self, LIMIT};

/// Rounds of each after the move.
const AFTER: u64 = 40;

#[test]
fn everything_that_talks_goes_on_while_a_relayed_session_becomes_a_direct_one() {
    let internet = Internet::with_link(Link::steady(Duration::from_millis(10)), 3).unwrap();
    let meeting = meeting(&internet);
    let hosts = [internet.behind(Kind::Home).unwrap(), internet.behind(Kind::Home).unwrap()];
    let builder = || Node::builder().via(meeting.url()).stun(meeting.stun);
    let (give, ticket) = std::sync::mpsc::channel::<Ticket>();
    let (done, over) = tokio::sync::oneshot::channel::<()>();
    std::thread::scope(|scope| {
        let answerer = scope.spawn(|| {
            let answering = hosts[1].block_on(async move {
                let node = builder().start().await.unwrap();
                give.send(node.ticket().unwrap()).unwrap();
                talk::answer(talk::take(&node).await, over).await;
            });
            answering.unwrap();
        });
        let ticket = ticket.recv().unwrap();
        let calling = hosts[0].block_on(async {
            let node = builder().start().await.unwrap();
            let peer = timeout(LIMIT, node.peer(&ticket)).await.unwrap().unwrap();
            assert_eq!(peer.path().unwrap().kind, PathKind::Relay, "a relay is there before a hole is");
            let moved = AtomicBool::new(false);
            let mut paths = peer.paths();
            let move_on = async {
                let straight = |path: &Option<PathInfo>| path.as_ref().is_some_and(|path| path.kind != PathKind::Relay);
                timeout(LIMIT, paths.wait_for(straight)).await.expect("a hole is found").unwrap();
                moved.store(true, Ordering::Relaxed);
            };
            let (rounds, ()) = tokio::join!(talk::say(talk::open(&peer), &moved, AFTER), move_on);
            println!("rounds of pool, smart socket, duct, calls: {rounds:?}");
            // The smart socket's messages were under way at the move; all went on after it.
            assert!(rounds[1] > AFTER && rounds.iter().all(|rounds| *rounds >= AFTER), "{rounds:?}");
            assert_ne!(peer.path().unwrap().kind, PathKind::Relay);
            done.send(()).unwrap();
        });
        calling.unwrap();
        answerer.join().unwrap();
    });
}
