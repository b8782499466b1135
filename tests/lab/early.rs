//! How soon: the first byte after a ticket is used, and what is known later told at once.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use natpipe::Ticket;
use natpipe::lab::{Internet, Kind, Link};
use natpipe::nat::Proto;
use natpipe::peer::{Node, PathInfo, PathKind};
use tokio::time::timeout;

use super::gateway::miniupnpd;
use super::peers::meeting;

const LIMIT: Duration = Duration::from_secs(40);

/// From one end of the network to its middle: so long that what the machine itself takes is little beside it.
const LEG: Duration = Duration::from_millis(200);

#[test]
fn the_first_byte_is_there_within_two_round_trips_of_using_a_ticket() {
    let internet = Internet::with_link(Link::steady(LEG), 1).unwrap();
    let meeting = meeting(&internet);
    let hosts = [Kind::SymmetricRandom; 2].map(|kind| internet.behind(kind).unwrap());
    let (give, ticket) = mpsc::channel::<Ticket>();
    let (done, over) = tokio::sync::oneshot::channel::<()>();
    let builder = || Node::builder().via(meeting.url()).stun(meeting.stun()).port_mapping(false);
    let (used, arrived) = std::thread::scope(|scope| {
        let answerer = scope.spawn(|| {
            let answer = async {
                let node = builder().start().await.unwrap();
                give.send(node.ticket().unwrap()).unwrap();
                let (_peer, pipe) = timeout(LIMIT, node.accept()).await.unwrap().unwrap();
                assert_eq!(&pipe.recv_within(LIMIT).await.unwrap().data[..], b"first");
                let arrived = Instant::now();
                pipe.send("it came").await.unwrap();
                over.await.unwrap();
                arrived
            };
            hosts[1].block_on(answer).unwrap()
        });
        let ticket = ticket.recv_timeout(LIMIT).unwrap();
        let used = hosts[0].block_on(async {
            let node = builder().start().await.unwrap();
            let used = Instant::now();
            let peer = timeout(LIMIT, node.peer(&ticket)).await.unwrap().unwrap();
            let pipe = peer.open(Proto::Tcp, Default::default()).unwrap();
            pipe.send("first").await.unwrap();
            assert_eq!(&pipe.recv_within(LIMIT).await.unwrap().data[..], b"it came");
            done.send(()).unwrap();
            used
        });
        (used.unwrap(), answerer.join().unwrap())
    });
    // To the server and on, and back.
    let round_trip = 4 * LEG;
    let trips = (arrived - used).as_secs_f64() / round_trip.as_secs_f64();
    println!("the first byte after {trips:.2} round trips");
    assert!(trips <= 2.0, "{trips:.2} round trips");
}

/// When a router begins to open ports.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opens {
    /// While the race runs that has found the relay.
    InTheRace,
    /// When nothing is looked for any more, and nobody talks at the place to meet.
    LongAfter,
}

/// What two ends say to each other in a race is said by then.
const LONG: Duration = Duration::from_secs(30);

/// Sooner than all ways would be tried anew, with nobody told of anything.
const SOON: Duration = Duration::from_secs(20);

/// Two behind symmetric NATs, of which the router of one opens ports, but answers only when both have met by the relay.
fn is_told_late(side: usize, opens: Opens) -> PathInfo {
    let internet = Internet::with_link(Link::steady(Duration::from_millis(10)), 1).unwrap();
    let meeting = meeting(&internet);
    let routers = ["a", "b"].map(|name| internet.router(name, Kind::SymmetricRandom).unwrap());
    let start = || miniupnpd(&routers[side], "enable_natpmp=yes\nenable_upnp=no");
    let mut daemon = (opens == Opens::InTheRace).then(start);
    let hold = "table inet hold {\nchain in {\ntype filter hook input priority -50\nudp dport 5351 drop\n}\n}";
    routers[side].nft(hold).unwrap();
    let hosts = routers.each_ref().map(|router| router.host("host").unwrap());
    let (give, ticket) = mpsc::channel::<Ticket>();
    let (done, over) = tokio::sync::oneshot::channel::<()>();
    let builder = || Node::builder().via(meeting.url()).stun(meeting.stun());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let answer = async {
                let node = builder().start().await.unwrap();
                give.send(node.ticket().unwrap()).unwrap();
                let (_peer, pipe) = timeout(LIMIT, node.accept()).await.unwrap().unwrap();
                pipe.send("here").await.unwrap();
                over.await.unwrap();
            };
            hosts[1].block_on(answer).unwrap();
        });
        let ticket = ticket.recv_timeout(LIMIT).unwrap();
        let call = async {
            let node = builder().start().await.unwrap();
            let peer = timeout(LIMIT, node.peer(&ticket)).await.unwrap().unwrap();
            assert_eq!(peer.path().unwrap().kind, PathKind::Relay);
            let pipe = peer.open(Proto::Tcp, Default::default()).unwrap();
            pipe.send("hello").await.unwrap();
            assert_eq!(&pipe.recv_within(LIMIT).await.unwrap().data[..], b"here");
            if opens == Opens::LongAfter {
                tokio::time::sleep(LONG).await;
                assert_eq!(peer.path().unwrap().kind, PathKind::Relay);
            }
            routers[side].nft("delete table inet hold").unwrap();
            daemon.get_or_insert_with(start);
            let mut paths = peer.paths();
            let better = paths.wait_for(|path| path.as_ref().is_some_and(|path| path.kind != PathKind::Relay));
            let path = timeout(SOON, better).await.expect("a way without the relay").unwrap().clone().unwrap();
            done.send(()).unwrap();
            path
        };
        hosts[0].block_on(call).unwrap()
    })
}

#[test]
fn a_port_that_the_callers_router_opens_late_is_told_at_once() {
    assert_eq!(is_told_late(0, Opens::InTheRace).kind, PathKind::Reverse);
}

#[test]
fn a_port_that_the_answerers_router_opens_late_is_told_at_once() {
    assert_eq!(is_told_late(1, Opens::InTheRace).kind, PathKind::Direct);
}

#[test]
fn a_port_that_the_answerers_router_opens_long_after_both_have_met_is_told_at_once() {
    assert_eq!(is_told_late(1, Opens::LongAfter).kind, PathKind::Direct);
}
