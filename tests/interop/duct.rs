//! Ducts: Python's ductworks, and Python with its standard library alone.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use natpipe::duct::blocking::{Duct, DuctChild, DuctParent, start, start_with};
use natpipe::duct::{DuctOptions, Json, RecvError};
use serde_json::{Value, json};

use crate::{python, script};

const SOON: Duration = Duration::from_secs(30);

/// A path that is the test's own.
struct Socket(PathBuf);

impl Socket {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("natpipe-interop-{name}-{}", std::process::id())))
    }

    fn text(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn ductworks(args: &[&str]) -> Command {
    let mut command = python();
    command.arg(script("duct/ductworks_end.py")).args(args).stdout(Stdio::piped());
    command
}

fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line.trim().to_owned()
}

/// Everything that JSON has comes back as it was, one by one and many at once.
#[track_caller]
fn is_echoed(duct: &Duct<Value>) {
    let objects = [
        json!("hello!"),
        Value::Null,
        json!({"nested": [1, -2.5, true, {"ő": "\u{1f600}\n\u{0}"}], "": []}),
        json!(u32::MAX),
        json!("x".repeat(1 << 20)),
    ];
    for object in &objects {
        let sender = duct.clone();
        let sent = object.clone();
        let sending = std::thread::spawn(move || sender.send(&sent).unwrap());
        assert!(duct.poll(SOON).unwrap());
        assert_eq!(duct.recv().unwrap(), *object);
        sending.join().unwrap();
    }
    (0..500).for_each(|n| duct.send(&json!(n)).unwrap());
    (0..500).for_each(|n| assert_eq!(duct.recv_within(SOON).unwrap(), n));
}

#[track_caller]
fn ends_well(mut child: Child) {
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_child_of_ductworks_talks_to_our_parent_over_both() {
    let path = Socket::new("dw-child");
    for mut parent in [DuctParent::<Value>::unix(&path.0), DuctParent::tcp("127.0.0.1", 0)] {
        parent.bind().unwrap();
        let address = parent.listener_address().unwrap().clone();
        let mut child = match address.ip() {
            None => ductworks(&["child", "unix", path.text()]),
            Some(ip) => ductworks(&["child", "tcp", "127.0.0.1", &ip.port().to_string()]),
        };
        let child = child.spawn().unwrap();
        assert!(parent.listen(SOON).unwrap());
        is_echoed(parent.duct().unwrap());
        parent.close();
        ends_well(child);
    }
}

#[test]
fn a_parent_of_ductworks_takes_our_child_over_both() {
    let path = Socket::new("dw-parent");
    let mut unix = ductworks(&["parent", "unix", path.text()]).spawn().unwrap();
    let mut tcp = ductworks(&["parent", "tcp", "localhost", "0"]).spawn().unwrap();
    assert_eq!(first_line(&mut unix), path.text());
    let address = first_line(&mut tcp);
    let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
    // It prints its address a moment before it listens; a child tries again.
    for (mut child, theirs) in [(DuctChild::<Value>::unix(&path.0), unix), (DuctChild::tcp("127.0.0.1", port), tcp)] {
        child.connect().unwrap();
        is_echoed(child.duct().unwrap());
        child.close();
        ends_well(theirs);
    }
}

#[test]
fn a_ductworks_end_that_is_killed_is_a_closed_duct() {
    let mut parent = DuctParent::<Value>::tcp("127.0.0.1", 0);
    parent.bind().unwrap();
    let port = parent.listener_address().unwrap().port().unwrap().to_string();
    let mut child = ductworks(&["child", "tcp", "127.0.0.1", &port]).spawn().unwrap();
    assert!(parent.listen(SOON).unwrap());
    parent.send(&json!(1)).unwrap();
    assert_eq!(parent.recv().unwrap(), 1);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(parent.poll(SOON).unwrap());
    assert!(matches!(parent.recv(), Err(RecvError::RemoteDuctClosed { inside: false })));
}

#[test]
fn python_without_any_package_inherits_an_end() {
    let mut command = Command::new("python3");
    command.arg(script("duct/child.py"));
    let (child, duct) = start::<Value>(command).unwrap();
    is_echoed(&duct);
    drop(duct);
    ends_well(child);
}

#[test]
fn python_without_any_package_connects_by_flag_and_by_environment() {
    for by_flag in [true, false] {
        for mut parent in [DuctParent::<Value>::anonymous(), DuctParent::tcp("127.0.0.1", 0)] {
            parent.bind().unwrap();
            let mut command = Command::new("python3");
            command.arg(script("duct/child.py"));
            let address = parent.listener_address().unwrap().to_string();
            match by_flag {
                true if address.starts_with('/') => drop(command.args(["--unix", &address])),
                true => drop(command.args(["--tcp", &address])),
                false => parent.tell(&mut command),
            }
            let child = command.spawn().unwrap();
            assert!(parent.listen(SOON).unwrap());
            is_echoed(parent.duct().unwrap());
            parent.close();
            ends_well(child);
        }
    }
}

#[test]
fn descriptors_go_to_python_and_come_from_it() {
    let mut command = Command::new("python3");
    command.arg(script("duct/descriptor.py"));
    let options = DuctOptions::new().max_descriptors(4).timeout(SOON);
    let (child, duct) = start_with::<String, _>(command, options, Json).unwrap();
    let (mut reads, writes) = std::io::pipe().unwrap();
    duct.send_with_descriptors(&"to Python".into(), &[writes.as_fd()]).unwrap();
    drop(writes);
    let received = duct.recv_with_descriptors().unwrap();
    assert_eq!(received.object, "take this");
    let mut text = [0; 11];
    let descriptor = received.descriptors.into_iter().next().unwrap();
    std::fs::File::from(descriptor).read_exact(&mut text).unwrap();
    assert_eq!(&text, b"from Python");
    ends_well(child);
    let mut written = String::new();
    reads.read_to_string(&mut written).unwrap();
    assert_eq!(written, "to Python");
}
