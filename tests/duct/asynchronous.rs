//! The async form: the same ends in tasks.

use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use natpipe::duct::{
    AttachError, BindError, ConnectError, Duct, DuctChild, DuctOptions, DuctParent, Json, ListenError, MsgPack, Raw,
    RecvError, SendError, blocking, pair, pair_with,
};
use natpipe::{NetConf, Pipe, Proto, pipe_open};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::{BRIEF, Folder, PAUSE, SOON, exists, hasty, wire};

#[tokio::test]
async fn a_pair_carries_objects_both_ways() {
    let (parent, child) = pair::<Value>().unwrap();
    parent.send(&json!("hello!")).await.unwrap();
    parent.send(&json!({"a": [1, null]})).await.unwrap();
    assert!(child.poll(SOON).await.unwrap());
    assert_eq!(child.recv().await.unwrap(), "hello!");
    assert_eq!(child.recv().await.unwrap(), json!({"a": [1, null]}));
    child.send(&Value::Null).await.unwrap();
    assert_eq!(parent.recv().await.unwrap(), Value::Null);
}

#[tokio::test]
async fn parents_and_children_meet_over_unix_and_tcp() {
    let folder = Folder::new("async");
    let path = folder.join("s");
    for mut parent in [DuctParent::<String>::unix(&path), DuctParent::tcp("localhost", 0), DuctParent::anonymous()] {
        assert!(matches!(parent.listen(BRIEF).await, Err(ListenError::NotBound)));
        assert!(matches!(parent.send(&String::new()).await, Err(SendError::NotConnected)));
        parent.bind().await.unwrap();
        assert!(matches!(parent.bind().await, Err(BindError::AlreadyConnected)));
        let address = parent.listener_address().unwrap().clone();
        let mut child = match address.ip() {
            Some(ip) => DuctChild::<String>::tcp(ip.ip().to_string(), ip.port()),
            None => {
                let file = std::fs::symlink_metadata(address.to_string()).unwrap();
                assert_eq!(file.mode() & 0o777, 0o600);
                DuctChild::unix(address.to_string())
            }
        };
        assert!(matches!(child.recv().await, Err(RecvError::NotConnected)));
        assert!(!parent.listen(BRIEF).await.unwrap(), "nobody comes");
        child.connect().await.unwrap();
        assert!(parent.listen(SOON).await.unwrap());
        assert!(!exists(address.to_string().as_ref()));
        assert!(matches!(child.connect().await, Err(ConnectError::AlreadyConnected)));
        assert!(matches!(parent.listen(BRIEF).await, Err(ListenError::AlreadyConnected)));
        parent.send(&"test".into()).await.unwrap();
        assert_eq!(child.recv().await.unwrap(), "test");
        child.close().await;
        assert!(matches!(child.send(&"x".into()).await, Err(SendError::NotConnected)));
        let error = parent.recv().await.unwrap_err();
        assert!(matches!(error, RecvError::RemoteDuctClosed { inside: false }));
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }
}

#[tokio::test]
async fn a_child_that_is_there_is_found_without_waiting() {
    let mut parent = DuctParent::<u8>::tcp("127.0.0.1", 0);
    parent.bind().await.unwrap();
    let port = parent.listener_address().unwrap().port().unwrap();
    let mut child = DuctChild::<u8>::tcp("127.0.0.1", port);
    child.connect().await.unwrap();
    assert!(parent.listen(std::time::Duration::ZERO).await.unwrap());
    child.send(&1).await.unwrap();
    assert_eq!(parent.duct().unwrap().recv_within(std::time::Duration::ZERO).await.unwrap(), 1);
}

#[tokio::test]
async fn a_child_tries_again_and_gives_up() {
    let folder = Folder::new("async-tries");
    let path = folder.join("s");
    let error = DuctChild::<u8>::unix(&path).options(hasty(2)).connect().await.unwrap_err();
    assert!(matches!(&error, ConnectError::Refused { tries: 3, source, .. } if source.kind() == ErrorKind::NotFound));
    let mut parent = DuctParent::<u8>::unix(&path);
    let mut child = DuctChild::<u8>::unix(&path).options(hasty(500));
    let listening = async {
        tokio::time::sleep(BRIEF).await;
        parent.bind().await.unwrap();
        assert!(parent.listen(SOON).await.unwrap());
    };
    let (connected, ()) = tokio::join!(child.connect(), listening);
    connected.unwrap();
    let refused = DuctChild::<u8>::tcp("127.0.0.1", 1).options(hasty(1)).connect().await.unwrap_err();
    assert!(matches!(refused, ConnectError::Refused { tries: 2, .. }), "{refused}");
}

#[test]
fn outside_a_runtime_the_blocking_form_is_named() {
    assert!(matches!(pair::<u8>(), Err(AttachError::NoRuntime)));
    assert!(AttachError::NoRuntime.to_string().contains("duct::blocking"));
}

#[tokio::test]
async fn the_last_message_of_a_burst_is_not_held_back() {
    let (parent, child) = pair::<u32>().unwrap();
    for round in 0..300 {
        for n in 0..=round {
            parent.send(&n).await.unwrap();
        }
        // Nothing else is called on the sending end.
        for n in 0..=round {
            assert_eq!(child.recv_within(SOON).await.unwrap(), n);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_from_one_task_arrives_in_another_in_order() {
    let (parent, child) = pair::<u32>().unwrap();
    let sending = tokio::spawn(async move {
        for n in 0..50_000 {
            parent.send(&n).await.unwrap();
        }
    });
    for n in 0..50_000 {
        assert_eq!(child.recv_within(SOON).await.unwrap(), n);
    }
    sending.await.unwrap();
    assert!(matches!(child.recv().await, Err(RecvError::RemoteDuctClosed { inside: false })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bursts_of_many_tasks_on_many_threads_arrive_whole_each_in_its_order() {
    const TASKS: u64 = 8;
    const EACH: u64 = 5000;
    let (parent, child) = pair::<(u64, u64)>().unwrap();
    let senders: Vec<_> = (0..TASKS)
        .map(|task| {
            let parent = parent.clone();
            tokio::spawn(async move {
                for n in 0..EACH {
                    parent.send(&(task, n)).await.unwrap();
                }
            })
        })
        .collect();
    let mut next = [0; TASKS as usize];
    for _ in 0..TASKS * EACH {
        let (task, n) = child.recv().await.unwrap();
        assert_eq!(n, next[task as usize], "task {task}");
        next[task as usize] += 1;
    }
    for sender in senders {
        sender.await.unwrap();
    }
    assert_eq!(next, [EACH; TASKS as usize]);
}

#[tokio::test]
async fn who_receives_what_is_there_lets_others_have_their_turn() {
    const COUNT: usize = 2000;
    let (parent, child) = pair::<u32>().unwrap();
    for n in 0..COUNT {
        parent.send(&(n as u32)).await.unwrap();
    }
    parent.flush().await.unwrap();
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = turns.clone();
    let other = tokio::spawn(async move {
        loop {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..COUNT {
        child.recv().await.unwrap();
    }
    let had = turns.load(Ordering::Relaxed);
    other.abort();
    assert!((10..COUNT).contains(&had), "{had} turns while {COUNT} messages were received");
}

#[tokio::test]
async fn what_was_sent_before_closing_or_dropping_is_received_before_the_end() {
    for close in [true, false] {
        let (parent, child) = pair::<u32>().unwrap();
        for n in 0..1000 {
            parent.send(&n).await.unwrap();
        }
        if close {
            parent.close().await;
        }
        drop(parent);
        for n in 0..1000 {
            assert_eq!(child.recv_within(SOON).await.unwrap(), n);
        }
        assert!(matches!(child.recv().await, Err(RecvError::RemoteDuctClosed { inside: false })));
    }
}

#[tokio::test]
async fn halves_end_their_directions_and_clones_share() {
    let (parent, child) = pair::<u32>().unwrap();
    let other = parent.clone();
    let waiter = tokio::spawn(async move { other.recv().await.unwrap() });
    parent.send(&1).await.unwrap();
    assert_eq!(child.recv().await.unwrap(), 1);
    child.send(&2).await.unwrap();
    assert_eq!(waiter.await.unwrap(), 2);
    let (sender, receiver) = parent.split();
    sender.send(&3).await.unwrap();
    drop(sender);
    assert_eq!(child.recv().await.unwrap(), 3);
    assert!(matches!(child.recv().await, Err(RecvError::RemoteDuctClosed { inside: false })));
    child.send(&4).await.unwrap();
    assert_eq!(receiver.recv().await.unwrap(), 4);
}

#[tokio::test]
async fn cancelling_leaves_the_stream_in_step() {
    let (parent, child) = pair_with::<Vec<u8>, _>(DuctOptions::new(), Raw).unwrap();
    let message = |n: u8| vec![n; 50_000];
    let mut given_up = 0;
    for n in 0..20 {
        // The first are sent; then the socket is full, and the rest are given up.
        let sent = tokio::time::timeout(BRIEF, parent.send(&message(n))).await;
        given_up += u32::from(sent.is_err());
    }
    assert!(given_up > 2, "the socket was full");
    assert!(tokio::time::timeout(BRIEF, parent.recv()).await.is_err(), "nothing comes this way");
    let reading = tokio::spawn(async move {
        let mut got = Vec::new();
        while let Ok(bytes) = child.recv().await {
            assert_eq!(bytes, vec![bytes[0]; 50_000]);
            got.push(bytes[0]);
        }
        got
    });
    parent.send(&message(200)).await.unwrap();
    parent.close().await;
    let got = reading.await.unwrap();
    // Of those that were given up, one may have begun: it comes whole.
    let sent = 20 - given_up as usize + 1;
    assert!(got.len() == sent || got.len() == sent + 1, "{got:?}");
    assert!(got.is_sorted() && got.ends_with(&[200]));
}

#[tokio::test]
async fn limits_of_time_leave_the_stream_in_step() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let duct = Duct::<String, _>::from_socket(ours, DuctOptions::new(), Json).unwrap();
    let bytes = wire(b"\"first\"");
    for part in bytes.chunks(3) {
        assert!(!duct.poll(std::time::Duration::ZERO).await.unwrap());
        theirs.write_all(part).unwrap();
    }
    assert_eq!(duct.recv_within(SOON).await.unwrap(), "first");
    assert!(matches!(duct.recv_within(BRIEF).await, Err(RecvError::TimedOut { limit }) if limit == BRIEF));
    assert!(!duct.poll(std::time::Duration::ZERO).await.unwrap());
    let (parent, child) = pair_with::<Vec<u8>, _>(DuctOptions::new().timeout(BRIEF), Raw).unwrap();
    let mut begun = Vec::new();
    while begun.len() < 2 {
        match parent.send(&vec![7; 50_000]).await {
            Ok(()) => {}
            Err(SendError::TimedOut { begun: this, .. }) => begun.push(this),
            Err(error) => panic!("{error}"),
        }
    }
    assert!(!begun[1], "another stood before it");
    let closing = tokio::spawn(async move { parent.close().await });
    while let Ok(bytes) = child.recv_within(SOON).await {
        assert_eq!(bytes, [7; 50_000]);
    }
    closing.await.unwrap();
}

#[tokio::test]
async fn closing_wakes_a_task_that_waits() {
    let (parent, child) = pair::<u8>().unwrap();
    let other = parent.clone();
    let waiter = tokio::spawn(async move { other.recv_within(None).await });
    tokio::task::yield_now().await;
    parent.close().await;
    assert!(matches!(waiter.await.unwrap(), Err(RecvError::NotConnected)));
    assert!(matches!(child.recv().await, Err(RecvError::RemoteDuctClosed { inside: false })));
    let error = child.send(&1).await.unwrap_err();
    assert!(matches!(error, SendError::RemoteDuctClosed), "{error}");
}

#[tokio::test]
async fn closing_does_not_wait_for_a_send_that_nobody_takes() {
    let (duct, _child) = pair_with::<Vec<u8>, _>(DuctOptions::new().timeout(None), Raw).unwrap();
    let other = duct.clone();
    let sender = tokio::spawn(async move { other.send(&vec![0; 16 << 20]).await });
    tokio::task::yield_now().await;
    duct.close().await;
    assert!(matches!(sender.await.unwrap(), Err(SendError::NotConnected)));
}

/// Sends small messages until the socket and the duct are full; returns how many the other end is to receive.
async fn fill(duct: &Duct<Vec<u8>, Raw>) -> u32 {
    let mut sent = 0_u32;
    loop {
        match duct.send_within(&sent.to_be_bytes().to_vec(), BRIEF).await {
            Ok(()) => sent += 1,
            Err(SendError::TimedOut { begun, .. }) => break sent + u32::from(begun),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn what_was_sent_arrives_though_the_other_end_pauses_for_longer_than_a_close_waits_for_a_send() {
    let (parent, child) = pair_with::<Vec<u8>, _>(DuctOptions::new(), Raw).unwrap();
    let sent = fill(&parent).await;
    let reading = tokio::spawn(async move {
        tokio::time::sleep(PAUSE).await;
        for n in 0..sent {
            assert_eq!(child.recv_within(SOON).await.unwrap(), n.to_be_bytes());
        }
        assert!(matches!(child.recv().await, Err(RecvError::RemoteDuctClosed { inside: false })));
    });
    // The duct's own task has its turn.
    tokio::time::sleep(BRIEF).await;
    parent.close().await;
    reading.await.unwrap();
}

#[tokio::test]
async fn a_close_waits_for_an_end_that_never_reads_as_long_as_the_duct_does() {
    let limit = Duration::from_millis(700);
    let (parent, _child) = pair_with::<Vec<u8>, _>(DuctOptions::new().timeout(limit), Raw).unwrap();
    fill(&parent).await;
    tokio::time::sleep(BRIEF).await;
    let begun = Instant::now();
    parent.close().await;
    assert!((limit - BRIEF..SOON).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_send_that_goes_on_is_not_cut_by_a_close() {
    let (ours, mut theirs) = tokio::net::UnixStream::pair().unwrap();
    let duct = Duct::<Vec<u8>, _>::from_socket(ours.into_std().unwrap(), DuctOptions::new(), Raw).unwrap();
    let other = duct.clone();
    let sender = tokio::spawn(async move { other.send(&vec![0; 8 << 20]).await });
    tokio::task::yield_now().await;
    let reading = tokio::spawn(async move {
        let (mut read, mut buf) = (0, vec![0; 256 << 10]);
        loop {
            match theirs.read(&mut buf).await.unwrap() {
                0 => return read,
                n => read += n,
            }
            // Longer in all than a close waits for a send that does not move.
            tokio::time::sleep(BRIEF).await;
        }
    });
    duct.close().await;
    sender.await.unwrap().unwrap();
    assert_eq!(reading.await.unwrap(), 5 + (8 << 20));
}

#[tokio::test]
async fn what_was_gathered_arrives_though_nobody_may_wait_and_the_last_handle_is_gone() {
    let options = DuctOptions::new().timeout(std::time::Duration::ZERO);
    let (parent, child) = pair_with::<Vec<u8>, _>(options, Raw).unwrap();
    let mut sent = 0_u32;
    while parent.send(&sent.to_be_bytes().to_vec()).await.is_ok() {
        sent += 1;
    }
    drop(parent);
    for n in 0..sent {
        assert_eq!(child.recv_within(SOON).await.unwrap(), n.to_be_bytes());
    }
}

#[tokio::test]
async fn what_is_wrong_is_refused_as_in_the_blocking_form() {
    let end = || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Duct::<Vec<i32>, _>::from_socket(ours, DuctOptions::new().timeout(SOON), Json).unwrap(), theirs)
    };
    let (duct, mut theirs) = end();
    theirs.write_all(&[wire(b"[1"), wire(b"{}"), wire(b"[2]"), b"GET".to_vec()].concat()).unwrap();
    assert!(matches!(duct.recv().await, Err(RecvError::Decode { len: 2, .. })));
    assert!(matches!(duct.recv().await, Err(RecvError::Decode { len: 2, .. })));
    assert_eq!(duct.recv().await.unwrap(), [2]);
    assert!(matches!(duct.recv().await, Err(RecvError::MessageProtocol { found: b'G' })));
    let (duct, mut theirs) = end();
    theirs.write_all(&[0x54, 0xff, 0, 0, 0]).unwrap();
    assert!(matches!(duct.recv().await, Err(RecvError::TooLong { .. })));
    let (duct, mut theirs) = end();
    theirs.write_all(&wire(b"[1]")[..6]).unwrap();
    drop(theirs);
    assert!(matches!(duct.recv().await, Err(RecvError::RemoteDuctClosed { inside: true })));
    assert!(duct.poll(SOON).await.unwrap());
}

async fn talk<C: natpipe::duct::Codec<String>>(a: &Duct<String, C>, b: &Duct<String, C>) {
    for text in ["hello!".to_owned(), String::new(), "x".repeat(300_000)] {
        let (sent, got) = tokio::join!(a.send(&text), b.recv_within(SOON));
        sent.unwrap();
        assert_eq!(got.unwrap(), text);
        let (sent, polled) = tokio::join!(b.send(&text), a.poll(SOON));
        sent.unwrap();
        assert!(polled.unwrap());
        assert_eq!(a.recv().await.unwrap(), text);
    }
    assert!(!a.poll(BRIEF).await.unwrap());
    assert!(!a.poll(std::time::Duration::ZERO).await.unwrap());
}

#[tokio::test]
async fn a_duct_works_on_every_stream_pipe_and_with_another_codec() {
    let (a, b) = Pipe::pair(1000, NetConf::default()).unwrap();
    let a = Duct::over(a, DuctOptions::new(), MsgPack).await.unwrap();
    let b = Duct::over(b, DuctOptions::new(), MsgPack).await.unwrap();
    talk(&a, &b).await;
    let server = pipe_open(Proto::Tcp).bind("127.0.0.1:0").await.unwrap();
    let client = pipe_open(Proto::Tcp).dest(server.local_addr()).await.unwrap();
    let a = Duct::over(client, DuctOptions::new(), Json).await.unwrap();
    let b = Duct::over(server.accept().await.unwrap(), DuctOptions::new(), Json).await.unwrap();
    talk(&a, &b).await;
    let (sender, receiver) = a.split();
    sender.send(&"last".into()).await.unwrap();
    drop(sender);
    assert_eq!(b.recv_within(SOON).await.unwrap(), "last");
    assert!(matches!(b.recv_within(SOON).await, Err(RecvError::RemoteDuctClosed { inside: false })));
    b.send(&"still".into()).await.unwrap();
    assert_eq!(receiver.recv_within(SOON).await.unwrap(), "still");
    let datagrams = pipe_open(Proto::Udp).bind("127.0.0.1:0").await.unwrap();
    let refused = Duct::<u8, _>::over(datagrams, DuctOptions::new(), Json).await;
    assert!(matches!(refused, Err(AttachError::Datagrams { .. })));
}

#[tokio::test]
async fn descriptors_come_with_their_messages() {
    let options = DuctOptions::new().max_descriptors(1).timeout(SOON);
    let (parent, child) = pair_with::<String, _>(options, Json).unwrap();
    let (mut reads, writes) = std::io::pipe().unwrap();
    for text in ["before", "gathered"] {
        parent.send(&text.into()).await.unwrap();
    }
    parent.send_with_descriptors(&"x".repeat(100_000), &[writes.as_fd()]).await.unwrap();
    parent.send(&"after".into()).await.unwrap();
    drop(writes);
    let mut counts = Vec::new();
    for _ in 0..4 {
        let received = child.recv_with_descriptors().await.unwrap();
        counts.push((received.object.len(), received.descriptors.len()));
        for descriptor in received.descriptors {
            std::fs::File::from(descriptor).write_all(b"here").unwrap();
        }
    }
    assert_eq!(counts, [(6, 0), (8, 0), (100_000, 1), (5, 0)]);
    assert_eq!(std::io::read_to_string(&mut reads).unwrap(), "here");
}

/// A task at this end, a thread without a runtime at the other.
#[tokio::test]
async fn the_two_forms_talk_to_each_other_and_to_children() {
    let mut parent = DuctParent::<u32>::anonymous();
    parent.bind().await.unwrap();
    let path = parent.listener_address().unwrap().to_string();
    let thread = std::thread::spawn(move || {
        let mut child = blocking::DuctChild::<u32>::unix(path);
        child.connect().unwrap();
        while let Ok(n) = child.recv() {
            child.send(&(n + 1)).unwrap();
        }
    });
    assert!(parent.listen(SOON).await.unwrap());
    for n in 0..100 {
        parent.send(&n).await.unwrap();
        assert_eq!(parent.recv().await.unwrap(), n + 1);
    }
    parent.close().await;
    thread.join().unwrap();
    let mut python = Command::new("python3");
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/interop/duct/child.py"));
    let (mut child, duct) = natpipe::duct::start::<Value>(python).unwrap();
    duct.send(&json!({"to": "Python"})).await.unwrap();
    assert_eq!(duct.recv_within(SOON).await.unwrap(), json!({"to": "Python"}));
    duct.close().await;
    assert!(child.wait().unwrap().success());
}
