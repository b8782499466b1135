//! What a program does that uses lapin and nothing else, as plainly as it goes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection};
use tokio::sync::oneshot;

use crate::broker::Broker;

pub const TEXT: &str = "a message of some length, as they are";
/// The same as the YAML that it is.
const BODY: &[u8] = b"\"a message of some length, as they are\"\n";
const ANSWER: &[u8] = b"!!python/object:occo.util.communication.comm.Response {data: \"a message of some length, as they are\", finalize: true, http_code: 200}\n";

/// What is on the messages of a call beside what it cannot do without.
#[derive(Clone, Copy, PartialEq)]
pub enum Dress {
    /// Nothing.
    Plain,
    /// The properties, flags and identifiers that natpipe's have.
    AsOurs,
}

impl Dress {
    fn call(self, id: String, properties: BasicProperties) -> (String, BasicProperties) {
        match self {
            Self::Plain => (id, properties),
            Self::AsOurs => (
                // As long as ours.
                format!("{id:0>36}"),
                properties.with_content_type(TYPE.into()).with_expiration("30000".into()),
            ),
        }
    }

    fn answer(self, properties: BasicProperties) -> (BasicPublishOptions, BasicProperties) {
        match self {
            Self::Plain => (BasicPublishOptions::default(), properties),
            Self::AsOurs => {
                let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
                (options, properties.with_content_type(TYPE.into()))
            }
        }
    }
}

const TYPE: &str = "application/x-yaml";

async fn connect(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, Default::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

/// A queue that nobody used before.
pub async fn fresh(broker: &Broker, name: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("{name} {}", NEXT.fetch_add(1, Ordering::Relaxed));
    let (_connection, channel) = connect(&broker.url()).await;
    channel.queue_declare(name.as_str().into(), Default::default(), FieldTable::default()).await.unwrap();
    name
}

/// Waits until so many messages are in the queue, then deletes it.
pub async fn arrived(broker: &Broker, queue: &str, count: usize) {
    let (_connection, channel) = connect(&broker.url()).await;
    let passive = QueueDeclareOptions { passive: true, ..Default::default() };
    loop {
        let found = channel.queue_declare(queue.into(), passive, FieldTable::default()).await.unwrap();
        if found.message_count() as usize >= count {
            break;
        }
        tokio::task::yield_now().await;
    }
    channel.queue_delete(queue.into(), Default::default()).await.unwrap();
}

pub async fn pushes(broker: &Broker, confirms: bool, count: usize, flying: usize) -> f64 {
    let queue = fresh(broker, "bare pushes").await;
    let (connection, channel) = connect(&broker.url()).await;
    if confirms {
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    }
    let begun = Instant::now();
    let tasks: Vec<_> = (0..flying)
        .map(|_| {
            let (channel, queue) = (channel.clone(), queue.clone());
            tokio::spawn(async move {
                for _ in 0..count / flying {
                    let options = BasicPublishOptions { mandatory: confirms, ..Default::default() };
                    let sent = channel
                        .basic_publish("".into(), queue.as_str().into(), options, BODY, BasicProperties::default())
                        .await
                        .unwrap();
                    sent.await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    arrived(broker, &queue, count / flying * flying).await;
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    connection.close(200, "".into()).await.unwrap();
    rate
}

/// Answers every call with the same bytes.
pub async fn consume(url: String, queue: String, dress: Dress) {
    let (_connection, channel) = connect(&url).await;
    channel.basic_qos(64, BasicQosOptions::default()).await.unwrap();
    let options = BasicConsumeOptions::default();
    let mut calls = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.unwrap();
    while let Some(Ok(call)) = calls.next().await {
        let id = call.properties.correlation_id().clone().unwrap();
        let to = call.properties.reply_to().clone().unwrap();
        let (options, ours) = dress.answer(BasicProperties::default().with_correlation_id(id));
        drop(channel.basic_publish("".into(), to, options, ANSWER, ours).await.unwrap());
        call.acker.ack(BasicAckOptions::default()).await.unwrap();
    }
}

pub async fn calls(broker: &Broker, count: usize, flying: usize, dress: Dress) -> f64 {
    let queue = fresh(broker, "bare calls").await;
    let consumer = tokio::spawn(consume(broker.url(), queue.clone(), dress));
    let (connection, channel) = connect(&broker.url()).await;
    let exclusive = QueueDeclareOptions { exclusive: true, ..Default::default() };
    let replies = channel.queue_declare("".into(), exclusive, FieldTable::default()).await.unwrap().name().clone();
    let no_ack = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let mut answers = channel.basic_consume(replies.clone(), "".into(), no_ack, FieldTable::default()).await.unwrap();
    let waiting: Arc<Mutex<HashMap<String, oneshot::Sender<Vec<u8>>>>> = Arc::default();
    let table = waiting.clone();
    let reader = tokio::spawn(async move {
        while let Some(Ok(answer)) = answers.next().await {
            let id = answer.properties.correlation_id().clone().unwrap();
            if let Some(caller) = table.lock().unwrap().remove(id.as_str()) {
                caller.send(answer.data).unwrap();
            }
        }
    });
    let begun = Instant::now();
    let tasks: Vec<_> = (0..flying)
        .map(|task| {
            let (channel, queue, replies, waiting) = (channel.clone(), queue.clone(), replies.clone(), waiting.clone());
            tokio::spawn(async move {
                for n in 0..count / flying {
                    let (id, ours) =
                        dress.call(format!("{task} {n}"), BasicProperties::default().with_reply_to(replies.clone()));
                    let (sender, answer) = oneshot::channel();
                    waiting.lock().unwrap().insert(id.clone(), sender);
                    let ours = ours.with_correlation_id(id.into());
                    let options = BasicPublishOptions::default();
                    drop(channel.basic_publish("".into(), queue.as_str().into(), options, BODY, ours).await.unwrap());
                    assert_eq!(answer.await.unwrap(), ANSWER);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    connection.close(200, "".into()).await.unwrap();
    reader.abort();
    consumer.abort();
    rate
}
