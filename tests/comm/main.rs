//! Producers, calls and consumers as their users see them: in memory, over pipes, and over a real broker.

mod amqp;
mod bad_input;
mod broker;
mod memory;
mod pika;
mod pipes;
mod storms;

use std::num::NonZeroU16;
use std::time::Duration;

use natpipe::comm::{Cancel, CommunicationError, Config, EventDrivenConsumer, Processor, Tally};
use tokio::task::JoinHandle;

/// Longer than anything here takes; a test that waits so long has failed.
const LONG: Duration = Duration::from_secs(60);

fn several(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).unwrap()
}

/// A consumer that runs beside the test.
struct Consuming {
    cancel: Cancel,
    task: JoinHandle<Result<Tally, CommunicationError>>,
}

impl Consuming {
    async fn begin(processor: impl Processor, conf: &Config) -> Self {
        Self::of(EventDrivenConsumer::new(processor, conf).await.unwrap())
    }

    fn of(consumer: EventDrivenConsumer) -> Self {
        Self { cancel: consumer.cancel(), task: tokio::spawn(consumer.start_consuming()) }
    }

    /// Stops it gracefully.
    async fn stop(self) -> Tally {
        self.cancel.cancel();
        self.end().await.unwrap()
    }

    async fn end(self) -> Result<Tally, CommunicationError> {
        tokio::time::timeout(LONG, self.task).await.expect("the consumer does not end").unwrap()
    }
}
