//! The backend for AMQP 0-9-1 brokers (RabbitMQ), over lapin.
//!
//! `connect` opens connections, `fault` decides what an error of the broker means, `headers` what a message's properties say,
//! `declare` how a queue is declared; `outlet` and `calls` are a producer's end, `inlet` and `settle` a consumer's. A lost
//! connection is made again by its user: a producer's with the next message, a consumer's at once.

mod calls;
mod connect;
mod declare;
mod fault;
mod headers;
mod inlet;
mod outlet;
mod settle;
mod url;

use super::{Backend, Boxed, CommunicationError, Config, Counters, Inlet, Outlet};

/// The backend registered as `amqp`.
#[derive(Debug, Default)]
pub struct Amqp(());

impl Amqp {
    /// It holds nothing: each producer and consumer has a connection of its own.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Backend for Amqp {
    fn outlet<'a>(&'a self, conf: &'a Config, calls: bool) -> Boxed<'a, Result<Box<dyn Outlet>, CommunicationError>> {
        Box::pin(async move { Ok(Box::new(outlet::AmqpOutlet::open(conf, calls).await?) as Box<dyn Outlet>) })
    }

    fn inlet<'a>(
        &'a self,
        conf: &'a Config,
        counters: Counters,
    ) -> Boxed<'a, Result<Box<dyn Inlet>, CommunicationError>> {
        Box::pin(async move { Ok(Box::new(inlet::AmqpInlet::open(conf, counters).await?) as Box<dyn Inlet>) })
    }
}
