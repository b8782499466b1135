//! Waits: a consumer: takes messages, has them processed, settles them.

use std::fmt;
use std::sync::Arc;

use super::hands::Hands;
use super::pace::Pace;
use super::processor::{self, Processor, Request};
use super::verdict::verdict;
use super::{
    Backend, BodyError, Cancel, CommunicationError, Config, Counters, Fate, Inlet, Job, Payload, Response, Settle,
    Tally, registry,
};

/// Calls a processor for each message of a queue; when the message is a call, the result is the answer.
///
/// A message is settled after it was processed: a consumer that dies in between leaves it to the next
/// one, so each is processed at least once. Dropping a consumer drops what it has in hand; to finish it,
/// [`cancel`](Self::cancel) it.
pub struct EventDrivenConsumer {
    inlet: Box<dyn Inlet>,
    work: Arc<Work>,
    cancel: Cancel,
    at_a_time: usize,
}

/// What each job needs.
pub(super) struct Work {
    processor: Box<dyn Processor>,
    conf: Config,
    counters: Counters,
    pub(super) pace: Pace,
}

/// A job that is processed and not yet settled.
pub(super) struct Processed {
    settle: Box<dyn Settle>,
    is_call: bool,
    answer: Option<Payload>,
    fate: Fate,
}

impl EventDrivenConsumer {
    /// A consumer for the `protocol` of the configuration, connected, with its queue declared.
    ///
    /// # Errors
    /// [`CommunicationError`]: the configuration is at fault, the broker cannot be reached, or the queue
    /// exists with other properties.
    pub async fn new(processor: impl Processor, conf: &Config) -> Result<Self, CommunicationError> {
        Self::over(&*registry::backend(&conf.protocol)?, processor, conf).await
    }

    /// A consumer over a backend of one's own, whatever `protocol` says.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub async fn over(
        backend: &dyn Backend,
        processor: impl Processor,
        conf: &Config,
    ) -> Result<Self, CommunicationError> {
        conf.queue_name()?;
        let counters = Counters::default();
        let inlet = backend.inlet(conf, counters.clone()).await?;
        let work = Work { processor: Box::new(processor), conf: conf.clone(), counters, pace: Pace::default() };
        Ok(Self { inlet, work: Arc::new(work), cancel: Cancel::new(), at_a_time: conf.at_a_time() })
    }

    /// Stops it: it takes no more messages, finishes and answers those in hand, and `start_consuming`
    /// returns.
    pub fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }

    /// Lets another event stop it as well, as one for several consumers.
    pub fn cancel_event(self, cancel: Cancel) -> Self {
        Self { cancel, ..self }
    }

    /// What it has done so far, also while it consumes.
    pub fn counters(&self) -> Counters {
        self.work.counters.clone()
    }

    /// Processes messages until it is cancelled, and returns what it has done. A lost connection is made again.
    ///
    /// # Errors
    /// When no more messages will ever come: the queue exists with other properties now, the broker
    /// refuses us, or the connection is lost with `reconnect` off. What was in hand is finished before.
    ///
    /// Cancelling drops what is in hand, unsettled: it is delivered again.
    pub async fn start_consuming(mut self) -> Result<Tally, CommunicationError> {
        let mut jobs = Hands::new(self.work.clone());
        let result = self.consume(&mut jobs).await;
        self.inlet.stop().await;
        while !jobs.is_empty() {
            jobs.next().await;
        }
        self.inlet.close().await;
        result.map(|()| self.work.counters.tally())
    }

    async fn consume(&mut self, jobs: &mut Hands) -> Result<(), CommunicationError> {
        let cancel = self.cancel.clone();
        let cancelled = cancel.cancelled();
        tokio::pin!(cancelled);
        loop {
            let room = jobs.len() < self.at_a_time;
            tokio::select! {
                biased;
                () = &mut cancelled => return Ok(()),
                () = jobs.next(), if !jobs.is_empty() => {}
                job = self.inlet.next(), if room => jobs.begin(job?).await,
            }
        }
    }
}

impl Work {
    pub(super) async fn process(&self, job: Job) -> Processed {
        let Job { payload, is_call, tries, redelivered, settle } = job;
        let response = match self.read(&payload) {
            Ok(body) => {
                let request = Request { body, raw: payload.body, is_call, redelivered, tries };
                self.run(request).await
            }
            Err(error) => {
                self.counters.count_unreadable();
                tracing::warn!(%error, "a message cannot be read");
                Response::new(400, error.to_string())
            }
        };
        let fate = verdict(&response, is_call, tries, self.conf.max_tries);
        let answer = is_call.then(|| self.answer(&response, payload.format));
        self.count(&fate);
        Processed { settle, is_call, answer, fate }
    }

    pub(super) async fn settle(&self, processed: Processed) {
        let Processed { settle, is_call, answer, fate } = processed;
        match settle.settle(answer, fate).await {
            Ok(()) if is_call => self.counters.count_answered(),
            Ok(()) => {}
            Err(error) => {
                self.counters.count_unsettled();
                tracing::warn!(%error, "a message was not settled and will come again");
            }
        }
    }

    fn read(&self, payload: &Payload) -> Result<super::Value, BodyError> {
        let (size, limit) = (payload.body.len(), self.conf.max_body);
        if size > limit {
            return Err(BodyError::TooLong { size, limit });
        }
        payload.format.unwrap_or(self.conf.format).decode(&payload.body)
    }

    async fn run(&self, request: Request) -> Response {
        self.counters.count_processed();
        match processor::run(&*self.processor, request).await {
            Some(response) => response,
            None => {
                self.counters.count_panicked();
                Response::new(500, "Internal Server Error")
            }
        }
    }

    /// The answer, in the format of the question; or that it could not be written in it.
    fn answer(&self, response: &Response, format: Option<super::Format>) -> Payload {
        let format = format.unwrap_or(self.conf.format);
        let limit = self.conf.max_body;
        let encode = |response: &Response| {
            let body = response.encode(format)?;
            let size = body.len();
            if size > limit { Err(BodyError::TooLong { size, limit }) } else { Ok((response.http_code, body)) }
        };
        let (code, body) = encode(response)
            .or_else(|error| encode(&Response::new(500, error.to_string())))
            .unwrap_or((500, bytes::Bytes::new()));
        Payload { body, format: Some(format), code: (format == super::Format::Raw).then_some(code) }
    }

    fn count(&self, fate: &Fate) {
        match fate {
            Fate::Retry => self.counters.count_retried(),
            Fate::Dead(why) => {
                self.counters.count_dead();
                tracing::warn!(why, dead_letter = ?self.conf.dead_letter, "a message is given up");
            }
            Fate::Done | Fate::Leave => {}
        }
    }
}

impl fmt::Debug for EventDrivenConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventDrivenConsumer({} {:?})", self.work.conf.protocol, self.work.conf.queue)
    }
}
