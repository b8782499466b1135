//! What a change of the network does to connections with brokers: they are dead, and nothing says so.

use std::net::SocketAddr;
use std::time::Duration;

use natpipe::rendezvous::State;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::mosquitto::Mosquitto;
use super::{peer, talk};

/// Less than the 30 s after which a silent broker is asked in any case.
const SOON: Duration = Duration::from_secs(20);

/// A way to a broker that can fall silent: what is connected stays so, and nothing passes any more. What comes later passes, after
/// some time.
struct Way {
    addr: SocketAddr,
    silences: watch::Sender<u64>,
    later: watch::Sender<Duration>,
    _task: tokio::task::JoinHandle<()>,
}

impl Way {
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let silences = watch::Sender::new(0);
        let later = watch::Sender::new(Duration::ZERO);
        let (silent, slow) = (silences.clone(), later.clone());
        let _task = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (mut silenced, later) = (silent.subscribe(), *slow.borrow());
                tokio::spawn(async move {
                    tokio::time::sleep(later).await;
                    let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = silenced.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Self { addr, silences, later, _task }
    }

    fn url(&self) -> String {
        format!("mqtt://{}", self.addr)
    }

    fn fall_silent(&self) {
        self.silences.send_modify(|silences| *silences += 1);
    }
}

#[tokio::test]
async fn a_broker_that_says_nothing_any_more_is_connected_to_anew_when_it_is_doubted() {
    let broker = Mosquitto::new();
    let way = Way::to(broker.port(0)).await;
    let ((_, ann), (bobs, bob)) = (peer(&[&way.url()]).await, peer(&[&broker.url()]).await);
    way.fall_silent();
    let mut state = ann.state();
    let by_itself = timeout(Duration::from_secs(3), state.changed()).await;
    assert!(by_itself.is_err(), "nothing says that it is dead");
    ann.check();
    let lost = state.wait_for(|state| matches!(state, State::Connecting { .. }));
    timeout(SOON, lost).await.expect("the loss is noticed").map(drop).unwrap();
    let back = state.wait_for(|state| *state == State::Connected);
    timeout(SOON, back).await.expect("it is there again").map(drop).unwrap();
    talk(&ann, &bob, &bobs).await;
}

#[tokio::test]
async fn an_attempt_at_a_broker_that_takes_its_time_is_not_thrown_away_by_doubts() {
    let broker = Mosquitto::new();
    let way = Way::to(broker.port(0)).await;
    let (_, ann) = peer(&[&way.url()]).await;
    way.later.send_replace(Duration::from_secs(3));
    way.fall_silent();
    let mut state = ann.state();
    let doubting = async {
        loop {
            ann.check();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    let back = async {
        state.wait_for(|state| matches!(state, State::Connecting { .. })).await.map(drop).unwrap();
        state.wait_for(|state| *state == State::Connected).await.map(drop).unwrap();
    };
    let back = async {
        tokio::select! {
            () = doubting => unreachable!(),
            () = back => {}
        }
    };
    timeout(SOON, back).await.expect("it is there again");
}

#[tokio::test]
async fn a_broker_that_answers_is_kept() {
    let broker = Mosquitto::new();
    let (_, ann) = peer(&[&broker.url()]).await;
    let mut state = ann.state();
    state.mark_unchanged();
    for _ in 0..3 {
        timeout(SOON, ann.checked()).await.expect("the broker answers");
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!state.has_changed().unwrap(), "{:?}", *state.borrow());
}

#[tokio::test]
async fn a_broker_that_was_away_is_tried_at_once_when_the_network_has_changed() {
    let mut broker = Mosquitto::new();
    let (_, ann) = peer(&[&broker.url()]).await;
    broker.kill();
    let mut state = ann.state();
    let lost = state.wait_for(|state| matches!(state, State::Connecting { .. }));
    timeout(SOON, lost).await.expect("the loss").map(drop).unwrap();
    broker.start();
    timeout(SOON, ann.checked()).await.expect("it is tried");
    assert_eq!(*state.borrow(), State::Connected);
}
