//! A session at work, and another one's state at the other end of a path that is moved by hand.

use bytes::BytesMut;
use futures_util::FutureExt;
use tokio::io::AsyncWriteExt;
use tokio::task::yield_now;

use super::*;
use crate::key::Identity;
use crate::nat::Proto;
use crate::peer::session::carry::Carrier;
use crate::peer::session::channels::ChannelKind;
use crate::peer::session::record::Kind;

const SESSION: SessionId = SessionId([7; 16]);
const PATH: PathId = PathId(0);

fn answering() -> Arc<Keep> {
    let peer = Identity::from_seed([1; 32]).peer_id();
    Shared::begin(&Handle::current(), peer, SESSION, Role::Answerer, Multipath::Off, Duration::from_secs(60))
}

fn info() -> PathInfo {
    PathInfo { kind: PathKind::Direct, proto: Proto::Tcp, local: None, remote: None, rtt: None }
}

fn calling() -> State {
    let now = Instant::now();
    let mut state = State::new(Role::Caller, SESSION, now);
    state.attach(PATH, 0, now);
    state
}

/// A path that no task looks after.
fn attach(shared: &Shared) {
    shared.with(|inner| {
        let (bell, cut) = (Arc::default(), Arc::default());
        inner.state.attach(PATH, 0, Instant::now());
        inner.lines.insert(PATH, Line { info: info(), bell, cut, datagrams: None, outlet: None });
    });
}

/// Everything that either end has to say now goes to the other.
fn talk(shared: &Shared, caller: &mut State) {
    loop {
        let mut said: Vec<Record> = std::iter::from_fn(|| caller.poll_transmit(PATH)).collect();
        let mut answered = Vec::new();
        let is_done = said.is_empty();
        shared.handle(PATH, &mut said).unwrap();
        shared.fill(PATH, true, &mut answered);
        if is_done && answered.is_empty() {
            return;
        }
        answered.into_iter().for_each(|record| caller.handle_record(PATH, record, Instant::now()).unwrap());
        caller.begin_batch(Instant::now());
    }
}

#[tokio::test]
async fn what_is_said_after_a_long_silence_wakes_the_timer_that_asks_whether_it_arrives() {
    let (keep, mut caller) = (answering(), calling());
    attach(&keep.0);
    talk(&keep.0, &mut caller);
    let before = keep.0.next().unwrap();
    while keep.0.bell.notified().now_or_never().is_some() {}
    keep.0.open(ChannelKind::Stream).unwrap();
    keep.0.fill(PATH, false, &mut Vec::new());
    assert!(keep.0.lock().armed + Duration::from_secs(5) < before);
    assert!(keep.0.bell.notified().now_or_never().is_some(), "the task is woken");
    let due = keep.0.next().unwrap();
    assert!(due + Duration::from_secs(5) < before);
    keep.0.with(|_| ());
    assert!(keep.0.bell.notified().now_or_never().is_none(), "once");
}

#[tokio::test]
async fn a_timer_that_is_late_stays_so_when_something_else_wakes_its_task_first() {
    let keep = answering();
    let ago = |secs| Instant::now().checked_sub(Duration::from_secs(secs)).expect("the machine is up for a minute");
    let (long_ago, armed) = (ago(60), ago(20));
    attach(&keep.0);
    keep.0.lock().state.handle_change(long_ago);
    keep.0.lock().armed = armed;
    assert_eq!([keep.0.next(), keep.0.next()], [Ok(armed); 2]);
    keep.0.with(|_| ());
    assert_eq!(keep.0.next(), Ok(armed));
}

#[tokio::test]
async fn a_lone_message_is_acknowledged_alone_when_the_time_for_company_is_over() {
    let (keep, mut caller) = (answering(), calling());
    attach(&keep.0);
    let id = caller.open(ChannelKind::Stream).unwrap();
    talk(&keep.0, &mut caller);
    let (bell, _) = keep.0.bells(PATH).unwrap();
    while bell.notified().now_or_never().is_some() {}
    let before = keep.0.next().unwrap();
    caller.write(id, b"and nothing else");
    let mut said: Vec<Record> = std::iter::from_fn(|| caller.poll_transmit(PATH)).collect();
    keep.0.handle(PATH, &mut said).unwrap();
    assert!(!keep.0.with(|inner| inner.state.has_output(PATH)), "there is nothing to say at once");
    assert!(keep.0.lock().armed < before, "the session's task wakes for it");
    let mut answered = Vec::new();
    while answered.is_empty() {
        bell.notified().await;
        keep.0.fill(PATH, false, &mut answered);
    }
    assert!(answered.iter().any(|record| record.kind == Kind::Ack));
}

#[tokio::test]
async fn a_record_that_has_come_does_not_wait_for_a_long_one_behind_it() {
    let (keep, mut caller) = (answering(), calling());
    let (mut there, here) = tokio::io::duplex(1 << 20);
    assert!(keep.0.attach(Carrier::Stream(Box::new(here)), info()));
    let mut bytes = BytesMut::new();
    std::iter::from_fn(|| caller.poll_transmit(PATH)).for_each(|record| State::write_record(&record, &mut bytes));
    let long = Record::new(Kind::Data, 1, vec![0; 60_000]);
    bytes.extend_from_slice(&long.header());
    bytes.extend_from_slice(&long.payload[..100]);
    there.write_all(&bytes).await.unwrap();
    let greeted = async {
        while !keep.0.with(|inner| inner.state.is_greeted()) {
            yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), greeted).await.expect("the greeting is heard");
}

#[tokio::test]
async fn a_caller_without_a_path_yet_is_not_lost_while_it_is_looked_for() {
    let peer = Identity::from_seed([1; 32]).peer_id();
    let begin = |role| Shared::begin(&Handle::current(), peer, SESSION, role, Multipath::Off, Duration::from_secs(60));
    let (caller, answerer) = (begin(Role::Caller), begin(Role::Answerer));
    for keep in [&caller, &answerer] {
        let past = Instant::now().checked_sub(2 * UNGREETED);
        keep.0.lock().orphaned = Some(past.expect("the machine is up for a minute"));
    }
    assert!(caller.0.next().is_ok());
    assert_eq!(answerer.0.next(), Err(Ended::Lost));
}
