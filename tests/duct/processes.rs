//! Ducts that are handed to child processes. The children are this test program itself, in a role.

use std::process::Command;

use natpipe::duct::blocking::{Duct, DuctChild, DuctParent, start, start_with};
use natpipe::duct::{ConnectError, DuctOptions, InheritError, Raw, RecvError, StartError, VARIABLE};
use serde_json::{Value, json};

use crate::SOON;

/// Tells the child what to do.
const ROLE: &str = "NATPIPE_DUCT_TEST_ROLE";

fn program(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "processes::the_part_of_the_child", "--nocapture"]).env(ROLE, role);
    command.stdout(std::process::Stdio::null()).env_remove(VARIABLE);
    command
}

/// Does nothing unless another test has started it.
#[test]
fn the_part_of_the_child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let mut child = DuctChild::<Value>::from_env().unwrap();
    child.connect().unwrap();
    match role.as_str() {
        "echo" => echo(child.duct().unwrap()),
        "exit" => {
            (0..20_000).for_each(|n| child.send(&json!(n)).unwrap());
            std::process::exit(0);
        }
        "abort" => {
            child.send(&json!("last words")).unwrap();
            std::process::abort();
        }
        "twice" => {
            let again = DuctChild::<Value>::from_env().unwrap().connect().unwrap_err();
            assert!(matches!(again, ConnectError::Inherited(InheritError::AlreadyTaken { .. })));
            child.send(&json!(again.to_string())).unwrap();
        }
        other => panic!("no part {other}"),
    }
}

fn echo(duct: &Duct<Value>) {
    loop {
        match duct.recv_within(SOON) {
            Ok(object) => duct.send(&object).unwrap(),
            Err(error) => return assert!(matches!(error, RecvError::RemoteDuctClosed { .. }), "{error}"),
        }
    }
}

fn ping_pong(duct: &Duct<Value>) {
    for n in 0..100 {
        duct.send(&json!([n, "ping"])).unwrap();
        assert_eq!(duct.recv_within(SOON).unwrap(), json!([n, "ping"]));
    }
}

#[test]
fn a_child_inherits_its_end_as_a_descriptor() {
    let (mut child, duct) = start::<Value>(program("echo")).unwrap();
    ping_pong(&duct);
    drop(duct);
    assert!(child.wait().unwrap().success());
}

#[test]
fn children_that_are_started_at_once_have_their_own_ends_alone() {
    let children: Vec<_> = (0..4).map(|_| start::<Value>(program("echo")).unwrap()).collect();
    for (mut child, duct) in children {
        ping_pong(&duct);
        drop(duct);
        // It would wait on if another child held this end.
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn a_child_learns_the_address_from_its_environment() {
    for mut parent in [DuctParent::<Value>::anonymous(), DuctParent::tcp("127.0.0.1", 0)] {
        parent.bind().unwrap();
        let mut command = program("echo");
        parent.tell(&mut command);
        let mut child = command.spawn().unwrap();
        assert!(parent.listen(SOON).unwrap());
        ping_pong(parent.duct().unwrap());
        parent.close();
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn what_a_child_has_sent_before_it_exits_arrives() {
    let (mut child, duct) = start::<Value>(program("exit")).unwrap();
    for n in 0..20_000 {
        assert_eq!(duct.recv_within(SOON).unwrap(), n);
    }
    assert!(matches!(duct.recv(), Err(RecvError::RemoteDuctClosed { inside: false })));
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_child_that_aborts_is_a_closed_duct() {
    let mut command = program("abort");
    command.stderr(std::process::Stdio::null());
    let (mut child, duct) = start::<Value>(command).unwrap();
    assert_eq!(duct.recv_within(SOON).unwrap(), "last words");
    assert!(matches!(duct.recv_within(SOON), Err(RecvError::RemoteDuctClosed { .. })));
    assert!(!child.wait().unwrap().success());
}

#[test]
fn an_inherited_descriptor_is_taken_once() {
    let (mut child, duct) = start::<Value>(program("twice")).unwrap();
    let said = duct.recv_within(SOON).unwrap();
    assert!(said.as_str().unwrap().contains("taken already"), "{said}");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_child_that_was_told_nonsense_says_so() {
    for (told, expected) in [("fd:0", "fd"), ("fd:999", "fd"), ("nonsense", "NoDuct"), ("fd:-1", "fd")] {
        let mut command = program("echo");
        let output = command.env(VARIABLE, told).stderr(std::process::Stdio::piped()).output().unwrap();
        assert!(!output.status.success(), "{told}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let kind = if expected == "fd" { "Inherited(Descriptor" } else { expected };
        assert!(said.contains(kind), "{told}: {said}");
    }
    assert!(matches!(DuctChild::<u8>::from_env(), Err(InheritError::NotSet { .. })));
}

#[test]
fn a_program_that_is_not_there_is_told() {
    let error = start_with::<Vec<u8>, _>(Command::new("/no/such/program"), DuctOptions::new(), Raw).unwrap_err();
    assert!(matches!(&error, StartError::Start { program, .. } if program == "/no/such/program"), "{error}");
}
