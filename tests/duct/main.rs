//! Message ducts on real sockets, pipes and processes.

#![cfg(unix)]

mod asynchronous;
mod bad_input;
mod blocking;
mod descriptors;
mod example;
mod over_pipes;
mod processes;

use std::path::{Path, PathBuf};
use std::time::Duration;

use natpipe::duct::DuctOptions;

/// Long enough for anything that comes.
const SOON: Duration = Duration::from_secs(20);
/// For what is not to come.
const BRIEF: Duration = Duration::from_millis(30);
/// For an end that reads nothing for a while: longer than a close waits for a send that does not move.
const PAUSE: Duration = Duration::from_secs(1);

/// A folder of the test's own, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("natpipe-duct-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

/// Tries that follow each other quickly.
fn hasty(tries: u32) -> DuctOptions {
    DuctOptions::new().connect_retry_count(tries).connect_retry_delay(Duration::from_millis(20))
}

/// A message as it goes over the wire.
fn wire(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x54];
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}
