//! Waits: members that come in through another HTTP server, such as hyper or axum.

use std::sync::Arc;

use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;

use super::admit::{Admission, Origins};
use super::bind::{Entry, upgraded};
use super::core::Core;
use super::member::Birth;
use super::{BindError, Con, conf};
use crate::base::task;
use crate::frame::ws::{self, Refusal, Role};

/// A connection that another HTTP server is about to upgrade. Give its client the [`response`](Self::response), then give the
/// upgraded stream to [`serve`](Self::serve).
pub struct Upgrade {
    entry: Entry,
    birth: Birth,
    response: Response<()>,
}

impl Upgrade {
    pub(super) fn new<B>(core: Arc<Core>, origins: Origins, request: &Request<B>) -> Result<Self, Refusal> {
        let ws = core.conf.ws();
        let entry = Entry { core, ws, admission: Admission { path: None, origins, hook: None } };
        if !entry.admission.origins.admit(request.headers()) {
            return Err(Refusal::forbidden("pages of this origin may not connect"));
        }
        let response = ws::upgrade::response(request, &entry.ws)?;
        let spoken = response.headers().get(http::header::SEC_WEBSOCKET_PROTOCOL);
        let kin = spoken.is_some_and(|spoken| spoken == conf::SUBPROTOCOL);
        let birth = Birth { role: Role::Server, peer: None, path: request.uri().path().into(), kin };
        Ok(Self { entry, birth, response })
    }

    /// Status 101 and the headers that grant the WebSocket.
    pub fn response(&self) -> Response<()> {
        self.response.clone()
    }

    /// Makes a member of the upgraded stream; its pool owns it from then on.
    ///
    /// # Errors
    /// [`BindError::Upgrade`] when the pool is full or closed.
    pub async fn serve<S>(self, stream: S) -> Result<Con, BindError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (con, session) = upgraded(&self.entry, self.birth, stream).await?;
        task::drive(&Handle::current(), async move {
            session.await;
        });
        Ok(con)
    }
}
