//! Waits: sends again, and gives up, what is not acknowledged.

use std::sync::Arc;
use std::time::Instant;

use crate::smart::core::Core;

/// Runs until the socket has ended.
pub(crate) async fn clerk(core: Arc<Core>) {
    loop {
        let due = core.at_desk(|desk| desk.poll_timeout());
        let wait = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = core.ended() => return,
            () = core.clerk.wait() => {}
            () = wait => core.at_desk(|desk| desk.handle_timeout(Instant::now())),
        }
    }
}
