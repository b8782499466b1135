//! Waits: a consumer's process, listening for those who push to it and call it.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::timeout;

use super::frame::longest;
use super::link::{Link, Terms};
use super::signs_of_life;
use super::unfinished::Unfinished;
use crate::base::task::Nursery;
use crate::comm::memory::Broker;
use crate::comm::{CommunicationError, Config};
use crate::pipe::{NetConf, Pipe, Proto, pipe_open};

/// Processes that may be connected at a time; those beyond are turned away.
const LINKS: usize = 1024;
/// What they may keep of messages that have not come whole, in bytes, all of them together; one message always has room.
const UNFINISHED: usize = 256 << 20;

/// Dropping it closes its listener and all connections.
pub(super) struct Server {
    broker: Arc<Broker>,
    _accepting: Nursery<()>,
}

impl Server {
    pub(super) async fn listen(host: &str, port: u16, conf: &Config) -> Result<Self, CommunicationError> {
        // A consumer that begins again where it has just ended finds its port free.
        let net = signs_of_life(NetConf::default().reuse_addr(true).nodelay(true), conf);
        let listening = pipe_open(Proto::Tcp).bind((host, port)).conf(net).await;
        let server = listening.map_err(|error| CommunicationError::Connect {
            target: format!("{host}:{port}"),
            why: error.to_string(),
        })?;
        let broker = Arc::new(Broker::default());
        let mut accepting = Nursery::new(&Handle::current());
        let unfinished = Unfinished::new(UNFINISHED.max(longest(conf.max_body)));
        let terms = Terms { max_body: conf.max_body, unfinished };
        accepting.begin(accept(server, broker.clone(), terms, conf.connect_timeout));
        Ok(Self { broker, _accepting: accepting })
    }

    pub(super) fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }
}

/// Takes those who connect, who have to greet within a limit.
async fn accept(server: Pipe, broker: Arc<Broker>, terms: Terms, greeting: Duration) {
    let mut links = Nursery::new(&Handle::current());
    loop {
        tokio::select! {
            _ = links.next(), if !links.is_empty() => {}
            pipe = server.accept() => match pipe {
                Ok(_) if links.len() >= LINKS => tracing::warn!("{LINKS} are connected, one more is turned away"),
                Ok(pipe) => links.begin(serve(pipe, broker.clone(), terms.clone(), greeting)),
                Err(error) => {
                    tracing::warn!(%error, "nobody can connect any more");
                    return;
                }
            },
        }
    }
}

async fn serve(pipe: Pipe, broker: Arc<Broker>, terms: Terms, greeting: Duration) {
    let link = Link::start(pipe, broker, terms).await;
    // Who says nothing would keep its place from others for ever.
    if timeout(greeting, link.greeted()).await.is_err() {
        tracing::debug!(target = link.target(), "somebody has connected and said nothing");
        return link.close().await;
    }
    link.ended().await;
}
