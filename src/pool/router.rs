//! Holds: routers, and what they know of a message.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::{Answer, Con, IntoAnswer, Packed, Unpack};

pub(super) type Routing = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Where a message came from: the pool and the connection, to which the router can send back.
#[derive(Clone, Debug)]
pub struct Context {
    pub(super) pool: Arc<str>,
    pub(super) con: Con,
}

impl Context {
    /// The name of the pool.
    pub fn pool(&self) -> &str {
        &self.pool
    }

    /// The connection: its metadata, and a way to send to it.
    pub fn con(&self) -> &Con {
        &self.con
    }
}

/// What handles the messages that come in: made of any async function of a [`Context`] and a message. Calls run beside one
/// another, those of one connection in one task; one that panics is told to its asker as a failure.
#[derive(Clone)]
pub struct Router(Arc<dyn Fn(Context, Packed) -> Routing + Send + Sync>);

impl Router {
    /// A router of a function; a message that does not become `M` is answered with a failure.
    pub fn new<F, M, R>(function: F) -> Self
    where
        F: Fn(Context, M) -> R + Send + Sync + 'static,
        M: Unpack,
        R: Future<Output: IntoAnswer> + Send + 'static,
    {
        Self(Arc::new(move |ctx, packed| match M::unpack(packed) {
            Ok(msg) => {
                let routing = function(ctx, msg);
                Box::pin(async move { routing.await.into_answer() })
            }
            Err(error) => Box::pin(std::future::ready(Answer::failed(error))),
        }))
    }

    pub(super) fn route(&self, ctx: Context, packed: Packed) -> Routing {
        (self.0)(ctx, packed)
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Router")
    }
}
