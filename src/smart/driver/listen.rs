//! Waits: takes the clients of a server for as long as the socket lives.

use std::sync::Arc;

use super::attend;
use crate::pipe::Pipe;
use crate::smart::core::Core;

/// Runs until the server or the socket has ended.
pub(crate) async fn listen(core: Arc<Core>, server: Pipe) {
    loop {
        tokio::select! {
            () = core.ended() => break,
            client = server.accept() => match client {
                Ok(pipe) => {
                    let of_client = core.clone();
                    core.begin(async move {
                        attend(of_client, pipe, false).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(local = %server.local_addr(), %error, "a bound address has ended");
                    break;
                }
            },
        }
    }
    // Its connections end by themselves, each with its goodbye.
    server.stop_listening().await;
}
