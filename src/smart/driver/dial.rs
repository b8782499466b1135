//! Waits: connects, and connects again when that fails or ends, for as long as the socket lives.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::{Way, attend};
use crate::pipe::Pipe;
use crate::smart::core::Core;
use crate::smart::options::Options;
use crate::smart::{Endpoint, Event};

type Opened = Pin<Box<dyn Future<Output = Result<Pipe, String>> + Send>>;

/// What is opened anew for each connection.
pub(crate) enum Dial {
    At(Box<Endpoint>),
    By(Box<dyn Fn() -> Opened + Send + Sync>),
}

impl Dial {
    async fn open(
        &self,
        #[cfg_attr(not(feature = "ws"), allow(unused, reason = "a WebSocket needs them"))] options: &Options,
    ) -> Result<Pipe, String> {
        match self {
            Self::At(endpoint) => {
                let pipe = endpoint.client().await.map_err(|error| error.to_string())?;
                #[cfg(feature = "ws")]
                if let Some(url) = endpoint.url() {
                    return super::upgrade::asked(pipe, url, options.timing.patience, options.max_message).await;
                }
                Ok(pipe)
            }
            Self::By(open) => open().await,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::At(endpoint) => endpoint.to_string(),
            Self::By(_) => "a pipe".to_owned(),
        }
    }
}

/// Runs until the socket has ended.
pub(crate) async fn dial(core: Arc<Core>, to: Dial) {
    let mut failed = 0u32;
    loop {
        let opened = tokio::select! {
            () = core.ended() => return,
            opened = to.open(&core.options) => opened,
        };
        let why = match opened {
            Ok(pipe) => {
                let attended = attend(core.clone(), pipe, Way::Dialed).await;
                if attended.greeted {
                    failed = 0;
                }
                attended.cause.to_string()
            }
            Err(why) => why,
        };
        failed = failed.saturating_add(1);
        let again_in = core.options.reconnect.wait(failed, rand::random());
        tracing::debug!(to = to.shown(), why, ?again_in, "will connect again");
        core.tell(Event::NotReached { to: to.shown(), why, again_in });
        tokio::select! {
            () = core.ended() => return,
            () = tokio::time::sleep(again_in) => {}
        }
    }
}
