//! Every program in `examples/`, started as a user starts it, with real arguments and the other ends that it wants: routers of
//! the lab, a broker, a browser, a Python. `cargo test` builds them.

#![cfg(all(feature = "lab", target_os = "linux"))]

#[path = "../interop/beside.rs"]
mod beside;
#[path = "../comm/broker.rs"]
mod broker;
mod messages;
mod nats;
mod pipes;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

natpipe::lab_tests!();

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop").join(name)
}

/// An example, as a command.
fn example(name: &str) -> Command {
    let deps = std::env::current_exe().unwrap();
    let path = deps.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(path.exists(), "no {}: `cargo build --examples` makes it", path.display());
    Command::new(path)
}

/// An example that runs beside the test, and ends with it.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        Self::begun(command, Command::spawn)
    }

    /// With what starts it: a host of the lab, for instance.
    fn begun(command: &mut Command, start: impl FnOnce(&mut Command) -> std::io::Result<Child>) -> Self {
        let mut child = start(command.stdin(Stdio::piped()).stdout(Stdio::piped())).unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// Its next line.
    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "it ended: {:?}", self.child.wait());
        line.trim_end().to_owned()
    }

    /// Writes this to its input, which stays open.
    fn say(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Closes its input, and has what it still says until it ends, which has to be well.
    #[track_caller]
    fn end(mut self) -> String {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success(), "{rest}");
        rest
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended can not be ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What an example that ends by itself says.
#[track_caller]
fn said(command: &mut Command) -> String {
    Running::start(command).end()
}

#[test]
fn no_example_is_left_out() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests =
        ["examples/main.rs", "examples/messages.rs", "examples/nats.rs", "examples/pipes.rs", "duct/example.rs"]
            .map(|file| std::fs::read_to_string(root.join("tests").join(file)).unwrap())
            .concat();
    for file in std::fs::read_dir(root.join("examples")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let started = [format!("example(\"{name}\")"), format!("examples/{name}\"")];
        assert!(started.iter().any(|way| tests.contains(way)), "no test runs the example {name}");
    }
}
