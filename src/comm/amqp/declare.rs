//! Waits: declaring queues, each on a channel of its own, as a refusal closes it.

use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;

use super::connect::Broker;
use super::fault::{Doing, fault};
use super::headers::short;
use crate::comm::{CommunicationError, Config};

/// Declares a queue by name as the configuration says: non-exclusive, for all.
pub(super) async fn queue(broker: &Broker, conf: &Config, name: &str) -> Result<(), CommunicationError> {
    let options =
        QueueDeclareOptions { durable: conf.durable, auto_delete: conf.auto_delete, ..QueueDeclareOptions::default() };
    declare(broker, name, options).await
}

/// Declares what a consumer needs: its queue, the one for dead letters, and the way from its exchange.
pub(super) async fn for_consumer(broker: &Broker, conf: &Config) -> Result<(), CommunicationError> {
    let name = conf.queue_name()?;
    if conf.declare {
        queue(broker, conf, name).await?;
    }
    if let Some(dead) = &conf.dead_letter {
        declare(broker, dead, QueueDeclareOptions { durable: conf.durable, ..QueueDeclareOptions::default() }).await?;
    }
    if !conf.exchange.is_empty() {
        bind(broker, conf, name).await?;
    }
    Ok(())
}

async fn declare(broker: &Broker, name: &str, options: QueueDeclareOptions) -> Result<(), CommunicationError> {
    let channel = broker.channel().await?;
    let declared = channel.queue_declare(short("queue", name)?, options, FieldTable::default()).await;
    declared.map(drop).map_err(|error| fault(broker.target(), Doing::Declaring(name), &error))
}

async fn bind(broker: &Broker, conf: &Config, queue: &str) -> Result<(), CommunicationError> {
    let channel = broker.channel().await?;
    let (name, key) = (short("queue", queue)?, short("routing_key", conf.key_of_pushes()?)?);
    let exchange = short("exchange", &conf.exchange)?;
    let bound = channel.queue_bind(name, exchange, key, QueueBindOptions::default(), FieldTable::default()).await;
    bound.map_err(|error| fault(broker.target(), Doing::Declaring(queue), &error))
}
