//! Descriptors that go over a duct.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use natpipe::duct::blocking::{Duct, pair_with};
use natpipe::duct::{DuctOptions, Json, RecvError, SendError};

use crate::{Folder, SOON};

fn ends(most: usize) -> (Duct<String>, Duct<String>) {
    pair_with(DuctOptions::new().timeout(SOON).max_descriptors(most), Json).unwrap()
}

/// A file with this text, to be read from its beginning.
fn file(folder: &Folder, text: &str) -> File {
    let mut file = File::options().create(true).truncate(true).read(true).write(true).open(folder.join(text)).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    file
}

fn text(fd: OwnedFd) -> String {
    let mut text = String::new();
    File::from(fd).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_descriptor_comes_with_its_message_and_with_no_other() {
    let folder = Folder::new("rights");
    let (parent, child) = ends(2);
    let (a, b, c) = (file(&folder, "a"), file(&folder, "b"), file(&folder, "c"));
    parent.send(&"before".into()).unwrap();
    parent.send(&"gathered".into()).unwrap();
    parent.send_with_descriptors(&"two".into(), &[a.as_fd(), b.as_fd()]).unwrap();
    parent.send(&"between".into()).unwrap();
    parent.send_with_descriptors(&"x".repeat(100_000), &[c.as_fd()]).unwrap();
    parent.send(&"after".into()).unwrap();
    let mut got = Vec::new();
    for _ in 0..6 {
        let received = child.recv_with_descriptors().unwrap();
        let texts: Vec<_> = received.descriptors.into_iter().map(text).collect();
        got.push((received.object.len(), texts.concat()));
    }
    let expected = [(6, ""), (8, ""), (3, "ab"), (7, ""), (100_000, "c"), (5, "")];
    assert_eq!(got, expected.map(|(len, text)| (len, text.to_owned())));
}

#[test]
fn a_descriptor_that_came_is_closed_at_exec() {
    let folder = Folder::new("cloexec");
    let (parent, child) = ends(1);
    parent.send_with_descriptors(&"x".into(), &[file(&folder, "a").as_fd()]).unwrap();
    let received = child.recv_with_descriptors().unwrap();
    let flags = nix::fcntl::fcntl(&received.descriptors[0], nix::fcntl::FcntlArg::F_GETFD).unwrap();
    assert_eq!(flags & nix::libc::FD_CLOEXEC, nix::libc::FD_CLOEXEC);
}

#[test]
fn more_descriptors_than_the_limit_are_closed_and_cost_their_message() {
    let folder = Folder::new("many");
    let (parent, child) = ends(1);
    let (reads, writes) = std::io::pipe().unwrap();
    let a = file(&folder, "a");
    parent.send_with_descriptors(&"two".into(), &[a.as_fd(), writes.as_fd()]).unwrap();
    parent.send_with_descriptors(&"one".into(), &[a.as_fd()]).unwrap();
    drop(writes);
    assert!(matches!(child.recv_with_descriptors(), Err(RecvError::Descriptors { limit: 1 })));
    let mut reads = reads;
    assert_eq!(reads.read(&mut [0]).unwrap(), 0, "nobody holds the other one");
    let received = child.recv_with_descriptors().unwrap();
    assert_eq!((received.object.as_str(), received.descriptors.len()), ("one", 1));
}

#[test]
fn who_asks_for_none_gets_none_and_they_are_closed() {
    for most in [0, 1] {
        let (parent, child) = ends(most);
        let (mut reads, writes) = std::io::pipe().unwrap();
        parent.send_with_descriptors(&"x".into(), &[writes.as_fd()]).unwrap();
        drop(writes);
        assert_eq!(child.recv().unwrap(), "x");
        assert_eq!(reads.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn descriptors_go_over_unix_sockets_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let duct = Duct::<String, _>::from_socket(ours, DuctOptions::new(), Json).unwrap();
    let error = duct.send_with_descriptors(&"x".into(), &[std::io::stdin().as_fd()]).unwrap_err();
    assert!(matches!(error, SendError::Descriptors { count: 1 }), "{error}");
    let (parent, _child) = ends(1);
    let fds: Vec<_> = (0..254).map(|_| parent.descriptor().unwrap()).collect();
    assert!(fds[0].as_raw_fd() > 2);
    assert!(matches!(parent.send_with_descriptors(&"x".into(), &fds), Err(SendError::Descriptors { count: 254 })));
}
