//! Pools over real sockets, from outside: TCP, TLS and Unix, members that come and go, and what hostile ones do.

mod autobahn;
mod hostile;
mod members;
mod mounted;

use std::path::PathBuf;
use std::time::Duration;

use natpipe::pool::{Context, Packed, Pool};

fn echo(name: &str) -> Pool {
    Pool::create(name, |_: Context, msg: Packed| async move { msg })
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("nothing within half a minute")
}

fn socket_path(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("pool-{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}
