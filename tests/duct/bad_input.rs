//! What comes from outside and is wrong.

use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

use natpipe::duct::blocking::{Duct, DuctChild, DuctParent, pair_with};
use natpipe::duct::{AttachError, BindError, ConnectError, DuctOptions, Json, Raw, RecvError, SendError};

use crate::{Folder, SOON, exists, hasty, wire};

fn end() -> (Duct<Vec<i32>>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Duct::from_socket(ours, DuctOptions::new().timeout(SOON), Json).unwrap(), theirs)
}

#[test]
fn another_magic_byte_is_a_protocol_error_and_stays_one() {
    let (duct, mut theirs) = end();
    theirs.write_all(&wire(b"[1]")).unwrap();
    theirs.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(duct.recv().unwrap(), [1], "what came before it is received");
    for _ in 0..2 {
        let error = duct.recv().unwrap_err();
        assert!(matches!(error, RecvError::MessageProtocol { found: b'G' }), "{error}");
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }
}

#[test]
fn a_length_over_the_limit_is_refused() {
    let (duct, mut theirs) = end();
    theirs.write_all(&[0x54, 0x04, 0x00, 0x00, 0x01]).unwrap();
    assert!(matches!(duct.recv(), Err(RecvError::TooLong { len: 67_108_865, limit: 67_108_864 })));
    let (a, b) = pair_with::<Vec<u8>, _>(DuctOptions::new().max_message(10), Raw).unwrap();
    assert!(matches!(a.send(&vec![0; 11]), Err(SendError::TooLong { len: 11, limit: 10 })));
    assert!(matches!(a.send(&vec![0; 1 << 20]), Err(SendError::TooLong { .. })));
    a.send(&vec![0; 10]).unwrap();
    assert_eq!(b.recv().unwrap().len(), 10, "what was refused here left no trace");
}

#[test]
fn json_that_does_not_parse_or_fit_costs_its_message_alone() {
    let (duct, mut theirs) = end();
    for bad in [&b"{"[..], b"", b"\"text\"", b"[1,\"2\"]", b"[NaN]", b"\xff", b"[1] [2]"] {
        theirs.write_all(&wire(bad)).unwrap();
        theirs.write_all(&wire(b"[3]")).unwrap();
        let error = duct.recv().unwrap_err();
        assert!(matches!(error, RecvError::Decode { len, .. } if len == bad.len()), "{error}");
        assert_eq!(duct.recv().unwrap(), [3]);
    }
    let deep = std::thread::spawn(move || {
        theirs.write_all(&wire("[".repeat(1 << 20).as_bytes())).unwrap();
        theirs.write_all(&wire(b"[4]")).unwrap();
    });
    assert!(matches!(duct.recv(), Err(RecvError::Decode { .. })));
    assert_eq!(duct.recv().unwrap(), [4]);
    deep.join().unwrap();
}

#[test]
fn an_end_that_dies_in_the_middle_of_a_message_is_told_apart() {
    for cut in 1..8 {
        let (duct, mut theirs) = end();
        theirs.write_all(&wire(b"[1]")).unwrap();
        theirs.write_all(&wire(b"[2]")[..cut]).unwrap();
        drop(theirs);
        assert_eq!(duct.recv().unwrap(), [1]);
        let inside = RecvError::RemoteDuctClosed { inside: true }.to_string();
        match duct.recv() {
            Ok(object) => assert_eq!((cut, object), (8, vec![2])),
            Err(error) => assert_eq!(error.to_string(), inside, "cut at {cut}"),
        }
    }
}

#[test]
fn a_reset_is_a_closed_duct() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (theirs, _) = listener.accept().unwrap();
    let duct = Duct::<u8, _>::from_socket(ours, DuctOptions::new(), Json).unwrap();
    socket2::SockRef::from(&theirs).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(theirs);
    assert!(matches!(duct.recv(), Err(RecvError::RemoteDuctClosed { inside: false })));
}

#[test]
fn a_planted_link_is_not_followed_by_either_end() {
    let folder = Folder::new("planted");
    let (link, target) = (folder.join("link"), folder.join("target"));
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let error = DuctParent::<u8>::unix(&link).bind().unwrap_err();
    assert!(matches!(&error, BindError::Socket(socket) if socket.source.kind() == ErrorKind::AddrInUse), "{error}");
    assert!(!exists(&target) && exists(&link));
    let mut parent = DuctParent::<u8>::unix(&target);
    parent.bind().unwrap();
    let error = DuctChild::<u8>::unix(&link).options(hasty(0)).connect().unwrap_err();
    assert!(
        matches!(&error, ConnectError::Refused { source, .. } if source.kind() == ErrorKind::InvalidInput),
        "{error}"
    );
}

#[test]
fn a_path_in_use_is_left_alone_and_one_left_behind_is_replaced() {
    let folder = Folder::new("in-use");
    let (used, file, left) = (folder.join("used"), folder.join("file"), folder.join("left"));
    let _listening = std::os::unix::net::UnixListener::bind(&used).unwrap();
    std::fs::write(&file, "keep").unwrap();
    for path in [&used, &file] {
        assert!(matches!(DuctParent::<u8>::unix(path).bind(), Err(BindError::Socket(_))));
        assert!(exists(path));
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"keep");
    drop(std::os::unix::net::UnixListener::bind(&left).unwrap());
    DuctParent::<u8>::unix(&left).bind().unwrap();
    assert!(!exists(&left), "it goes with its parent");
}

#[test]
fn places_that_cannot_be_are_refused() {
    assert!(matches!(DuctParent::<u8>::unix("/nowhere/s").bind(), Err(BindError::Socket(_))));
    assert!(matches!(DuctParent::<u8>::unix("/tmp/".to_owned() + &"x".repeat(200)).bind(), Err(BindError::Socket(_))));
    assert!(matches!(DuctParent::<u8>::tcp("192.0.2.1", 0).bind(), Err(BindError::Socket(_))), "another's address");
    assert!(matches!(DuctParent::<u8>::tcp("", 0).bind(), Err(BindError::Resolve { .. } | BindError::Socket(_))));
    let alone = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    let error = Duct::<u8, _>::from_socket(alone, DuctOptions::new(), Json).unwrap_err();
    assert!(matches!(error, AttachError::Socket(_)), "not connected: {error}");
}
