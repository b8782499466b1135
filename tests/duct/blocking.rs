//! The blocking form: pairs, parents and children, halves, clones, limits of time.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use natpipe::duct::blocking::{Duct, DuctChild, DuctParent, pair, pair_with};
use natpipe::duct::{BindError, ConnectError, DuctOptions, Json, ListenError, MsgPack, Raw, RecvError, SendError};
use serde_json::{Value, json};

use crate::{BRIEF, Folder, PAUSE, SOON, exists, hasty, wire};

#[test]
fn a_pair_carries_objects_both_ways() {
    let (parent, child) = pair::<Value>().unwrap();
    let nested = json!({"a": [1, 2.5, null, true, {"ő": "\u{1f600}"}], "b": "x".repeat(60_000)});
    parent.send(&json!("hello!")).unwrap();
    parent.send(&nested).unwrap();
    assert!(child.poll(SOON).unwrap());
    assert_eq!(child.recv().unwrap(), "hello!");
    assert_eq!(child.recv().unwrap(), nested);
    child.send(&Value::Null).unwrap();
    assert_eq!(parent.recv().unwrap(), Value::Null);
}

#[test]
fn a_parent_and_a_child_meet_over_tcp_on_a_port_that_the_kernel_chooses() {
    let mut parent = DuctParent::<String>::tcp("localhost", 0);
    assert!(parent.listener_address().is_none());
    parent.bind().unwrap();
    let address = parent.listener_address().unwrap().ip().unwrap();
    assert_ne!(address.port(), 0);
    let mut child = DuctChild::<String>::tcp(address.ip().to_string(), address.port());
    child.connect().unwrap();
    assert!(parent.listen(SOON).unwrap());
    parent.send(&"test".into()).unwrap();
    assert_eq!(child.recv().unwrap(), "test");
    child.close();
    let error = parent.recv().unwrap_err();
    assert!(matches!(error, RecvError::RemoteDuctClosed { inside: false }));
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    assert_eq!(parent.listener_address().unwrap().ip(), Some(address), "it is known afterwards too");
}

#[test]
fn a_unix_parent_is_its_owners_alone_and_its_path_goes_when_the_child_has_come() {
    let folder = Folder::new("unix");
    let path = folder.join("s");
    let mut parent = DuctParent::<u8>::unix(&path);
    parent.bind().unwrap();
    assert_eq!(std::fs::symlink_metadata(&path).unwrap().mode() & 0o777, 0o600);
    let mut child = DuctChild::<u8>::unix(&path);
    child.connect().unwrap();
    assert!(parent.listen(SOON).unwrap());
    assert!(!exists(&path));
    child.send(&7).unwrap();
    assert_eq!(parent.recv().unwrap(), 7);
}

#[test]
fn an_anonymous_parent_leaves_nothing_behind() {
    let mut parent = DuctParent::<u8>::anonymous();
    parent.bind().unwrap();
    let path = parent.listener_address().unwrap().to_string();
    let folder = std::path::Path::new(&path).parent().unwrap().to_path_buf();
    assert_eq!(std::fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
    drop(parent);
    assert!(!exists(&folder));
}

#[test]
fn listening_returns_when_nobody_comes_and_can_be_called_again() {
    let folder = Folder::new("nobody");
    let path = folder.join("s");
    let mut parent = DuctParent::<u8>::unix(&path);
    parent.bind().unwrap();
    assert!(!parent.listen(BRIEF).unwrap());
    assert!(!parent.listen(Duration::ZERO).unwrap());
    let mut child = DuctChild::<u8>::unix(&path);
    child.connect().unwrap();
    assert!(parent.listen(None).unwrap());
}

#[test]
fn a_second_child_is_refused() {
    let mut parent = DuctParent::<u8>::tcp("127.0.0.1", 0);
    parent.bind().unwrap();
    let port = parent.listener_address().unwrap().port().unwrap();
    let mut first = DuctChild::<u8>::tcp("127.0.0.1", port);
    first.connect().unwrap();
    assert!(parent.listen(SOON).unwrap());
    let mut second = DuctChild::<u8>::tcp("127.0.0.1", port).options(hasty(2));
    let error = second.connect().unwrap_err();
    assert!(
        matches!(&error, ConnectError::Refused { tries: 3, source, .. } if source.kind() == ErrorKind::ConnectionRefused)
    );
    first.send(&1).unwrap();
    assert_eq!(parent.recv().unwrap(), 1, "the first is still there");
}

#[test]
fn a_child_tries_again_while_the_address_is_absent() {
    let folder = Folder::new("absent");
    let path = folder.join("s");
    let late = path.clone();
    let child = thread::spawn(move || {
        let mut child = DuctChild::<u8>::unix(late).options(hasty(500));
        child.connect().unwrap();
        child.recv().unwrap()
    });
    let mut parent = DuctParent::<u8>::unix(&path);
    parent.bind().unwrap();
    assert!(parent.listen(SOON).unwrap());
    parent.send(&9).unwrap();
    assert_eq!(child.join().unwrap(), 9);
}

#[test]
fn a_child_gives_up_after_its_tries_whether_the_address_is_absent_or_refuses() {
    let folder = Folder::new("tries");
    let refusing = folder.join("refusing");
    drop(std::os::unix::net::UnixListener::bind(&refusing).unwrap());
    for (path, kind) in [(folder.join("absent"), ErrorKind::NotFound), (refusing, ErrorKind::ConnectionRefused)] {
        let error = DuctChild::<u8>::unix(path).options(hasty(3)).connect().unwrap_err();
        assert!(matches!(&error, ConnectError::Refused { tries: 4, source, .. } if source.kind() == kind), "{error}");
    }
    let error = DuctChild::<u8>::unix(folder.join("no folder").join("s")).options(hasty(0)).connect().unwrap_err();
    assert!(matches!(error, ConnectError::Refused { tries: 1, .. }), "{error}");
}

#[test]
fn each_step_is_done_once_and_in_order() {
    let folder = Folder::new("order");
    let mut parent = DuctParent::<u8>::unix(folder.join("s"));
    let mut child = DuctChild::<u8>::unix(folder.join("s"));
    assert!(matches!(parent.listen(BRIEF), Err(ListenError::NotBound)));
    assert!(matches!(parent.send(&1), Err(SendError::NotConnected)));
    assert!(matches!(parent.recv(), Err(RecvError::NotConnected)));
    assert!(matches!(child.poll(BRIEF), Err(RecvError::NotConnected)));
    assert!(matches!(child.send(&1), Err(SendError::NotConnected)));
    parent.bind().unwrap();
    assert!(matches!(parent.bind(), Err(BindError::AlreadyConnected)));
    assert!(matches!(parent.send(&1), Err(SendError::NotConnected)));
    child.connect().unwrap();
    assert!(matches!(child.connect(), Err(ConnectError::AlreadyConnected)));
    assert!(parent.listen(SOON).unwrap());
    assert!(matches!(parent.listen(BRIEF), Err(ListenError::AlreadyConnected)));
    assert!(matches!(parent.bind(), Err(BindError::AlreadyConnected)));
    parent.close();
    assert!(matches!(parent.send(&1), Err(SendError::NotConnected)));
    assert!(matches!(parent.recv(), Err(RecvError::NotConnected)));
    assert!(matches!(parent.poll(BRIEF), Err(RecvError::NotConnected)));
}

#[test]
fn sending_to_an_end_that_is_closed_is_refused() {
    let (parent, child) = pair::<u8>().unwrap();
    drop(child);
    let error = parent.send(&1).unwrap_err();
    assert!(matches!(error, SendError::RemoteDuctClosed), "{error}");
    assert_eq!(std::io::Error::from(error).kind(), ErrorKind::UnexpectedEof);
    assert!(parent.poll(SOON).unwrap(), "the end can be received");
    assert!(matches!(parent.recv(), Err(RecvError::RemoteDuctClosed { inside: false })));
}

#[test]
fn what_was_sent_before_closing_is_received_before_the_end() {
    let (parent, child) = pair::<u32>().unwrap();
    for n in 0..1000 {
        parent.send(&n).unwrap();
    }
    parent.close();
    for n in 0..1000 {
        assert_eq!(child.recv().unwrap(), n);
    }
    assert!(matches!(child.recv(), Err(RecvError::RemoteDuctClosed { inside: false })));
}

#[test]
fn the_last_message_of_a_burst_is_not_held_back() {
    let (parent, child) = pair::<u32>().unwrap();
    for round in 0..20 {
        for n in 0..=round {
            parent.send(&n).unwrap();
        }
        // Nothing else is called on the sending end.
        for n in 0..=round {
            assert_eq!(child.recv_within(SOON).unwrap(), n);
        }
    }
}

#[test]
fn a_request_of_several_messages_is_answered() {
    let (parent, child) = pair::<u32>().unwrap();
    let adder = thread::spawn(move || {
        while let Ok(count) = child.recv() {
            let sum = (0..count).map(|_| child.recv().unwrap()).sum::<u32>();
            child.send(&sum).unwrap();
        }
    });
    for count in [1, 2, 3, 100, 5000] {
        parent.send(&count).unwrap();
        (0..count).for_each(|n| parent.send(&n).unwrap());
        assert_eq!(parent.recv_within(SOON).unwrap(), count * (count - 1) / 2);
    }
    drop(parent);
    adder.join().unwrap();
}

#[test]
fn without_gathering_the_kernel_has_the_message_when_send_returns() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let duct = Duct::from_socket(ours, DuctOptions::new().gather(false), Raw).unwrap();
    theirs.set_nonblocking(true).unwrap();
    for n in 0..200u8 {
        duct.send(&vec![n]).unwrap();
        let mut bytes = [0; 100];
        let len = theirs.read(&mut bytes).unwrap();
        assert_eq!(bytes[..len], wire(&[n]));
    }
}

#[test]
fn one_end_sends_while_another_thread_waits_to_receive_on_it() {
    let (parent, child) = pair::<String>().unwrap();
    let waiting = parent.clone();
    let waiter = thread::spawn(move || waiting.recv().unwrap());
    parent.send(&"question".into()).unwrap();
    assert_eq!(child.recv().unwrap(), "question");
    child.send(&"answer".into()).unwrap();
    assert_eq!(waiter.join().unwrap(), "answer");
}

#[test]
fn clones_may_send_from_several_threads_and_no_message_is_torn() {
    let (parent, child) = pair::<(u32, u32, String)>().unwrap();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let parent = parent.clone();
            thread::spawn(move || {
                for n in 0..250 {
                    parent.send(&(writer, n, "x".repeat((n * 37 % 5000) as usize))).unwrap();
                }
            })
        })
        .collect();
    let mut next = [0; 4];
    for _ in 0..1000 {
        let (writer, n, text) = child.recv_within(SOON).unwrap();
        assert_eq!((n, text.len()), (next[writer as usize], (n * 37 % 5000) as usize), "each writer's in its order");
        next[writer as usize] += 1;
    }
    writers.into_iter().for_each(|writer| writer.join().unwrap());
}

#[test]
fn halves_go_to_different_threads_and_the_end_of_one_is_the_end_of_its_direction() {
    let (parent, child) = pair::<u32>().unwrap();
    let (sender, receiver) = parent.split();
    let feeding = thread::spawn(move || {
        (0..100).for_each(|n| sender.send(&n).unwrap());
    });
    let mut sum = 0;
    loop {
        match child.recv() {
            Ok(n) => sum += n,
            Err(RecvError::RemoteDuctClosed { inside: false }) => break,
            Err(error) => panic!("{error}"),
        }
    }
    feeding.join().unwrap();
    assert_eq!(sum, 4950);
    child.send(&sum).unwrap();
    assert_eq!(receiver.recv().unwrap(), 4950, "the other direction goes on");
    drop(receiver);
    // A message that closely follows another is gathered first.
    assert!(matches!(child.send(&1).and_then(|()| child.flush()), Err(SendError::RemoteDuctClosed)));
}

#[test]
fn a_limit_that_passes_inside_a_message_leaves_the_stream_in_step() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let duct = Duct::<String, _>::from_socket(ours, DuctOptions::new(), Json).unwrap();
    let bytes = [wire(b"\"first\""), wire(b"\"second\"")].concat();
    for cut in bytes.chunks(3) {
        theirs.write_all(cut).unwrap();
        if cut.len() < 3 {
            break;
        }
        let _ = duct.poll(Duration::ZERO).unwrap();
    }
    assert_eq!(duct.recv_within(BRIEF).unwrap(), "first");
    assert_eq!(duct.recv_within(SOON).unwrap(), "second");
    assert!(matches!(duct.recv_within(BRIEF), Err(RecvError::TimedOut { limit }) if limit == BRIEF));
    assert!(matches!(duct.recv_within(Duration::ZERO), Err(RecvError::TimedOut { .. })));
    theirs.write_all(&wire(b"\"third\"")).unwrap();
    assert_eq!(duct.recv().unwrap(), "third");
}

#[test]
fn a_send_that_is_out_of_time_leaves_the_stream_in_step_and_tells_whether_it_has_begun() {
    let (parent, child) = pair_with::<Vec<u8>, _>(DuctOptions::new(), Raw).unwrap();
    let message = |n: u8| vec![n; 50_000];
    let mut whole = Vec::new();
    let mut told = Vec::new();
    for n in 0..100 {
        match parent.send_within(&message(n), BRIEF) {
            Ok(()) => whole.push(n),
            Err(SendError::TimedOut { begun, .. }) => {
                told.push(begun);
                // The rest of it comes all the same.
                if begun {
                    whole.push(n);
                }
            }
            Err(error) => panic!("{error}"),
        }
        if told.len() == 3 {
            break;
        }
    }
    assert_eq!(told.len(), 3, "the socket is full at some time");
    assert!(!told[2], "nothing of this one went: another stood before it");
    let reader = thread::spawn(move || {
        let mut got = Vec::new();
        while let Ok(bytes) = child.recv() {
            assert_eq!(bytes, vec![bytes[0]; 50_000]);
            got.push(bytes[0]);
        }
        got
    });
    parent.send(&message(200)).unwrap();
    drop(parent);
    whole.push(200);
    assert_eq!(reader.join().unwrap(), whole);
}

#[test]
fn a_limit_holds_also_behind_another_thread_that_waits() {
    let (parent, child) = pair::<u8>().unwrap();
    let other = parent.clone();
    let waiter = thread::spawn(move || other.recv_within(None));
    // Whoever of the two comes first, this one returns.
    assert!(matches!(parent.recv_within(BRIEF), Err(RecvError::TimedOut { .. })));
    child.send(&1).unwrap();
    assert_eq!(waiter.join().unwrap().unwrap(), 1);
}

#[test]
fn closing_wakes_a_thread_that_waits() {
    let (parent, child) = pair::<u8>().unwrap();
    let other = parent.clone();
    let waiter = thread::spawn(move || other.recv_within(None));
    parent.close();
    assert!(matches!(waiter.join().unwrap(), Err(RecvError::NotConnected)));
    assert!(matches!(child.recv(), Err(RecvError::RemoteDuctClosed { inside: false })));
}

#[test]
fn closing_does_not_wait_for_a_send_that_nobody_takes() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let duct = Duct::<Vec<u8>, _>::from_socket(ours, DuctOptions::new().timeout(None), Raw).unwrap();
    let other = duct.clone();
    let sender = thread::spawn(move || other.send(&vec![0; 16 << 20]));
    // Its turn has begun when the first byte is there.
    theirs.read_exact(&mut [0]).unwrap();
    duct.close();
    assert!(matches!(sender.join().unwrap(), Err(SendError::NotConnected)));
}

/// Sends small messages until the socket and the duct are full; returns how many the other end is to receive.
fn fill(duct: &Duct<Vec<u8>, Raw>) -> u32 {
    let mut sent = 0_u32;
    loop {
        match duct.send_within(&sent.to_be_bytes().to_vec(), BRIEF) {
            Ok(()) => sent += 1,
            Err(SendError::TimedOut { begun, .. }) => break sent + u32::from(begun),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn what_was_sent_arrives_though_the_other_end_pauses_for_longer_than_a_close_waits_for_a_send() {
    let (parent, child) = pair_with::<Vec<u8>, _>(DuctOptions::new(), Raw).unwrap();
    let sent = fill(&parent);
    let reader = thread::spawn(move || {
        thread::sleep(PAUSE);
        for n in 0..sent {
            assert_eq!(child.recv_within(SOON).unwrap(), n.to_be_bytes());
        }
        assert!(matches!(child.recv(), Err(RecvError::RemoteDuctClosed { inside: false })));
    });
    // The duct's own thread has its turn.
    thread::sleep(BRIEF);
    parent.close();
    reader.join().unwrap();
}

#[test]
fn a_close_waits_for_an_end_that_never_reads_as_long_as_the_duct_does() {
    let limit = Duration::from_millis(700);
    let (parent, _child) = pair_with::<Vec<u8>, _>(DuctOptions::new().timeout(limit), Raw).unwrap();
    fill(&parent);
    thread::sleep(BRIEF);
    let begun = Instant::now();
    parent.close();
    assert!((limit - BRIEF..SOON).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[test]
fn a_send_that_goes_on_is_not_cut_by_a_close() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let duct = Duct::<Vec<u8>, _>::from_socket(ours, DuctOptions::new(), Raw).unwrap();
    let other = duct.clone();
    let sender = thread::spawn(move || other.send(&vec![0; 8 << 20]));
    theirs.read_exact(&mut [0]).unwrap();
    let reader = thread::spawn(move || {
        let (mut read, mut buf) = (1, vec![0; 256 << 10]);
        loop {
            match theirs.read(&mut buf).unwrap() {
                0 => return read,
                n => read += n,
            }
            // Longer in all than a close waits for a send that does not move.
            thread::sleep(BRIEF);
        }
    });
    duct.close();
    sender.join().unwrap().unwrap();
    assert_eq!(reader.join().unwrap(), 5 + (8 << 20));
}

#[test]
fn polling_tells_of_whole_messages_and_of_the_end() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let duct = Duct::<u8, _>::from_socket(ours, DuctOptions::new(), Json).unwrap();
    assert!(!duct.poll(Duration::ZERO).unwrap());
    theirs.write_all(&wire(b"12")[..6]).unwrap();
    assert!(!duct.poll(BRIEF).unwrap(), "half a message");
    theirs.write_all(b"2").unwrap();
    assert!(duct.poll(SOON).unwrap());
    assert!(duct.poll(Duration::ZERO).unwrap(), "it is still there");
    assert_eq!(duct.recv_within(Duration::ZERO).unwrap(), 12);
    drop(theirs);
    assert!(duct.poll(None).unwrap());
    assert!(matches!(duct.recv(), Err(RecvError::RemoteDuctClosed { inside: false })));
}

#[test]
fn the_descriptor_becomes_readable_with_a_message() {
    let (parent, child) = pair::<u8>().unwrap();
    let fd = child.descriptor().unwrap();
    assert!(fd.as_raw_fd() > 2);
    let mut polled = [nix::poll::PollFd::new(fd, nix::poll::PollFlags::POLLIN)];
    assert_eq!(nix::poll::poll(&mut polled, 0u8).unwrap(), 0);
    parent.send(&1).unwrap();
    assert_eq!(nix::poll::poll(&mut polled, 20_000u16).unwrap(), 1);
}

#[test]
fn every_codec_goes_over_the_wire() {
    let object = ("ő".to_owned(), vec![1u8, 2, 255]);
    let (a, b) = pair_with::<(String, Vec<u8>), _>(DuctOptions::new(), MsgPack).unwrap();
    a.send(&object).unwrap();
    assert_eq!(b.recv().unwrap(), object);
    let (a, b) = pair_with::<Vec<u8>, _>(DuctOptions::new(), Raw).unwrap();
    for len in [0, 1, 4096, 70_000, 3 << 20] {
        let bytes = vec![len as u8; len];
        thread::scope(|scope| {
            scope.spawn(|| a.send(&bytes).unwrap());
            assert_eq!(b.recv().unwrap(), bytes);
        });
    }
}

#[test]
fn a_codec_that_panics_costs_its_message_alone() {
    struct Picky;
    impl natpipe::duct::Codec<u8> for Picky {
        fn encode(&self, object: &u8, payload: &mut Vec<u8>) -> Result<(), natpipe::duct::CodecError> {
            payload.push(*object);
            assert_ne!(*object, 13);
            Ok(())
        }

        fn decode(&self, payload: &[u8]) -> Result<u8, natpipe::duct::CodecError> {
            assert_ne!(payload[0], 14);
            Ok(payload[0])
        }
    }
    let (a, b) = pair_with::<u8, _>(DuctOptions::new(), Picky).unwrap();
    let panics = |call: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).is_err();
    assert!(panics(&|| drop(a.send(&13))));
    a.send(&14).unwrap();
    a.send(&15).unwrap();
    assert!(panics(&|| drop(b.recv())));
    assert_eq!(b.recv().unwrap(), 15);
}
