//! Other people's programs against natpipe, through the routers of the lab. `.ci/test` installs them; a program that
//! is missing fails its test.

#![cfg(all(feature = "lab", target_os = "linux"))]

mod beside;
mod duct;
mod nginx;
mod pool;
mod punch;
mod smart;
mod stun;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

natpipe::lab_tests!();

/// A Python with the packages of `interop/requirements.txt`.
fn python() -> Command {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python");
    assert!(python.exists(), "no {}: `.ci/test` makes it", python.display());
    Command::new(python)
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop").join(name)
}

/// What a program that ended well has written.
#[track_caller]
fn said(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    out.into_owned()
}
