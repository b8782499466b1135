//! The peers in other languages.

use std::path::Path;
use std::process::Command;

fn said(command: &mut Command) -> f64 {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().parse().unwrap_or_else(|_| panic!("no figure: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Microseconds for each message, echoed by `websockets`.
pub fn python(size: usize, count: usize, window: usize) -> f64 {
    let mut command = Command::new(root().join("target/python/bin/python"));
    said(command.arg(root().join("interop/pool/bench_echo.py")).args([size, count, window].map(|n| n.to_string())))
}

/// Microseconds for each message, by `ws`.
pub fn node(what: &str, numbers: [usize; 3]) -> f64 {
    let mut command = Command::new("node");
    command.env("NODE_PLACE", root().join("target/node")).arg(root().join("interop/pool/bench_ws.mjs"));
    said(command.arg(what).args(numbers.map(|n| n.to_string())))
}
