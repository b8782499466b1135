//! Waits: a consumer's process, listening for those who push to it and call it.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::link::Link;
use crate::base::task::Nursery;
use crate::comm::CommunicationError;
use crate::comm::memory::Broker;
use crate::pipe::{NetConf, Pipe, Proto, pipe_open};

/// Processes that may be connected at a time; those beyond are turned away.
const LINKS: usize = 1024;

/// Dropping it closes its listener and all connections.
pub(super) struct Server {
    broker: Arc<Broker>,
    _accepting: Nursery<()>,
}

impl Server {
    pub(super) async fn listen(host: &str, port: u16, max_body: usize) -> Result<Self, CommunicationError> {
        // A consumer that begins again where it has just ended finds its port free.
        let net = NetConf::default().reuse_addr(true).nodelay(true);
        let listening = pipe_open(Proto::Tcp).bind((host, port)).conf(net).await;
        let server = listening.map_err(|error| CommunicationError::Connect {
            target: format!("{host}:{port}"),
            why: error.to_string(),
        })?;
        let broker = Arc::new(Broker::default());
        let mut accepting = Nursery::new(&Handle::current());
        accepting.begin(accept(server, broker.clone(), max_body));
        Ok(Self { broker, _accepting: accepting })
    }

    pub(super) fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }
}

async fn accept(server: Pipe, broker: Arc<Broker>, max_body: usize) {
    let mut links = Nursery::new(&Handle::current());
    loop {
        tokio::select! {
            _ = links.next(), if !links.is_empty() => {}
            pipe = server.accept() => match pipe {
                Ok(_) if links.len() >= LINKS => tracing::warn!("{LINKS} are connected, one more is turned away"),
                Ok(pipe) => links.begin(serve(pipe, broker.clone(), max_body)),
                Err(error) => {
                    tracing::warn!(%error, "nobody can connect any more");
                    return;
                }
            },
        }
    }
}

async fn serve(pipe: Pipe, broker: Arc<Broker>, max_body: usize) {
    Link::start(pipe, broker, max_body).await.ended().await;
}
