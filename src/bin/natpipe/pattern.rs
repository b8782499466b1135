//! Waits: bytes that everybody knows beforehand, through a pipe, each of them checked.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use natpipe::Pipe;

/// Bytes of one send.
const PART: usize = 1 << 16;

/// How long the next bytes may take: the other end may be looking for a better path.
const PATIENCE: Duration = Duration::from_secs(60);

/// The byte at a place of the stream: its neighbours differ, and so do places a power of two apart.
fn byte_at(place: usize) -> u8 {
    (place % 251) as u8
}

pub async fn send(pipe: &Pipe, total: usize) -> Result<()> {
    send_from(pipe, 0, total).await
}

/// The same without the first bytes, which were sent.
pub async fn send_from(pipe: &Pipe, mut sent: usize, total: usize) -> Result<()> {
    let pattern: Vec<u8> = (0..PART + 251).map(byte_at).collect();
    while sent < total {
        let part = PART.min(total - sent);
        let from = sent % 251;
        pipe.send(&pattern[from..from + part]).await?;
        sent += part;
    }
    Ok(pipe.finish().await?)
}

/// Until `total` bytes have come, which are the right ones.
pub async fn check(pipe: &Pipe, total: usize) -> Result<()> {
    let pattern: Vec<u8> = (0..PART + 251).map(byte_at).collect();
    let mut got = 0;
    while got < total {
        let received = pipe.recv_within(PATIENCE).await;
        let data = received.with_context(|| format!("after {got} of {total} bytes"))?.data;
        for part in data.chunks(PART) {
            let from = got % 251;
            ensure!(part == &pattern[from..from + part.len()], "bytes changed after {got} of {total}");
            got += part.len();
        }
    }
    ensure!(got == total, "{got} bytes came of {total}");
    Ok(())
}
