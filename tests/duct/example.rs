//! `examples/duct_echo.rs` as a program, which `cargo build --examples` makes.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use natpipe::duct::blocking::{DuctChild, DuctParent};
use serde_json::{Value, json};

use crate::{Folder, SOON, exists, hasty};

fn program() -> Command {
    let deps = std::env::current_exe().unwrap();
    let path: PathBuf = deps.ancestors().nth(2).unwrap().join("examples/duct_echo");
    assert!(path.exists(), "no {}: `cargo build --examples` makes it", path.display());
    Command::new(path)
}

fn parent(place: [&str; 2]) -> (Child, String) {
    let mut child = program().args(["--role", "parent"]).args(place).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().to_owned())
}

#[track_caller]
fn is_echoed(duct: &natpipe::duct::blocking::Duct<Value>) {
    for object in [json!("hello!"), json!({"a": [1, null, "ő"]}), json!("x".repeat(60_000))] {
        duct.send(&object).unwrap();
        assert_eq!(duct.recv_within(SOON).unwrap(), object);
    }
}

#[test]
fn a_parent_on_tcp_port_0_prints_its_address_and_echoes() {
    let (mut echo, address) = parent(["--tcp", "127.0.0.1:0"]);
    let (host, port) = address.rsplit_once(':').unwrap();
    let mut child = DuctChild::tcp(host, port.parse().unwrap());
    child.connect().unwrap();
    is_echoed(child.duct().unwrap());
    child.close();
    assert!(echo.wait().unwrap().success());
}

#[test]
fn a_parent_on_a_unix_path_echoes() {
    let folder = Folder::new("echo-parent");
    let path = folder.join("s");
    let (mut echo, address) = parent(["--unix", path.to_str().unwrap()]);
    assert_eq!(address, path.to_str().unwrap());
    let mut child = DuctChild::unix(&path).options(hasty(500));
    child.connect().unwrap();
    is_echoed(child.duct().unwrap());
    assert!(!exists(&path));
    drop(child);
    assert!(echo.wait().unwrap().success());
}

#[test]
fn a_child_echoes_over_both() {
    let folder = Folder::new("echo-child");
    let path = folder.join("s");
    for mut parent in [DuctParent::unix(&path), DuctParent::tcp("127.0.0.1", 0)] {
        parent.bind().unwrap();
        let address = parent.listener_address().unwrap().to_string();
        let flag = if address.starts_with('/') { "--unix" } else { "--tcp" };
        let mut echo = program().args(["--role", "child", flag, &address]).spawn().unwrap();
        assert!(parent.listen(SOON).unwrap());
        is_echoed(parent.duct().unwrap());
        parent.close();
        assert!(echo.wait().unwrap().success());
    }
}

fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

#[test]
fn wrong_usage_and_failure_have_their_statuses() {
    let wrong: [&[&str]; 5] = [
        &[],
        &["--role", "parent"],
        &["--role", "aunt", "--unix", "x"],
        &["--role", "child", "--tcp", "nowhere"],
        &["--role", "child", "--unix", "x", "--tcp", "127.0.0.1:1"],
    ];
    for args in wrong {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("usage:"));
    }
    let output = run(&["--role", "parent", "--unix", "/nowhere/s"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/s"));
}
