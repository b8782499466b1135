//! Waits: pushing messages and calling, whatever carries them.

use std::fmt;

use tokio::time::timeout;

use super::{Backend, BodyError, CallError, CommunicationError, Config, Outlet, Payload, Response, Value, registry};

/// Pushes messages to whoever consumes them. Many pushes may be on their way at once.
///
/// Dropping it closes it; what is on its way then fails with its future.
pub struct AsynchronProducer {
    way: Way,
}

/// Calls a remote processor and awaits the result. Many calls may be in flight at once.
///
/// Dropping it closes it.
pub struct RpcProducer {
    way: Way,
}

impl AsynchronProducer {
    /// A producer for the `protocol` of the configuration, connected.
    ///
    /// # Errors
    /// [`CommunicationError`]: the configuration is at fault, or the broker cannot be reached.
    pub async fn new(conf: &Config) -> Result<Self, CommunicationError> {
        Self::over(&*registry::backend(&conf.protocol)?, conf).await
    }

    /// A producer over a backend of one's own, whatever `protocol` says.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub async fn over(backend: &dyn Backend, conf: &Config) -> Result<Self, CommunicationError> {
        Ok(Self { way: Way::open(backend, conf, false).await? })
    }

    /// Pushes a message with the configured routing key. It returns when the broker has taken it.
    ///
    /// # Errors
    /// [`CommunicationError`], within `timeout`. After `Lost` with `sent` and after `TimedOut` it may have arrived.
    ///
    /// Cancelling gives up waiting; the message may be pushed or not.
    pub async fn push_message(&self, message: impl Into<Value>) -> Result<(), CommunicationError> {
        self.push_message_to(self.way.conf.key_of_pushes()?, message).await
    }

    /// Pushes a message with another routing key.
    ///
    /// # Errors
    /// As [`push_message`](Self::push_message).
    pub async fn push_message_to(&self, key: &str, message: impl Into<Value>) -> Result<(), CommunicationError> {
        let payload = self.way.payload(&message.into())?;
        let within = self.way.conf.timeout;
        match timeout(within, self.way.outlet.push(key, payload)).await {
            Ok(result) => result,
            Err(_) => Err(self.way.timed_out("confirmation")),
        }
    }

    /// Closes it and waits until its connection is closed.
    pub async fn close(&self) {
        self.way.outlet.close().await;
    }
}

impl RpcProducer {
    /// A producer for the `protocol` of the configuration, connected.
    ///
    /// # Errors
    /// As [`AsynchronProducer::new`].
    pub async fn new(conf: &Config) -> Result<Self, CommunicationError> {
        Self::over(&*registry::backend(&conf.protocol)?, conf).await
    }

    /// A producer over a backend of one's own, whatever `protocol` says.
    ///
    /// # Errors
    /// As [`AsynchronProducer::new`].
    pub async fn over(backend: &dyn Backend, conf: &Config) -> Result<Self, CommunicationError> {
        Ok(Self { way: Way::open(backend, conf, true).await? })
    }

    /// Calls the processor behind the configured routing key and returns its result.
    ///
    /// # Errors
    /// [`CallError::Application`] when the processor said no, [`CallError::Communication`] when there is no
    /// answer within `timeout`.
    ///
    /// Cancelling gives up waiting; the call may still be carried out, and its answer is ignored.
    pub async fn push_message(&self, message: impl Into<Value>) -> Result<Value, CallError> {
        let key = self.way.conf.key_of_pushes().map_err(CommunicationError::from)?;
        self.push_message_to(key, message).await
    }

    /// Calls the processor behind another routing key.
    ///
    /// # Errors
    /// As [`push_message`](Self::push_message).
    pub async fn push_message_to(&self, key: &str, message: impl Into<Value>) -> Result<Value, CallError> {
        let payload = self.way.payload(&message.into())?;
        let within = self.way.conf.timeout;
        let answer = match timeout(within, self.way.outlet.call(key, payload)).await {
            Ok(answer) => answer?,
            Err(_) => return Err(self.way.timed_out("answer").into()),
        };
        let response = self.way.response(&answer)?;
        let code = response.http_code;
        match response.check() {
            Some(result) => Ok(result?),
            None => {
                let why = format!("the answer has the code {code}, which is no result and no error");
                Err(CommunicationError::Protocol { target: self.way.target(), why }.into())
            }
        }
    }

    /// Closes it and waits until its connection is closed. Calls in flight fail.
    pub async fn close(&self) {
        self.way.outlet.close().await;
    }
}

/// What both kinds of producer have.
struct Way {
    outlet: Box<dyn Outlet>,
    conf: Config,
}

impl Way {
    async fn open(backend: &dyn Backend, conf: &Config, calls: bool) -> Result<Self, CommunicationError> {
        Ok(Self { outlet: backend.outlet(conf, calls).await?, conf: conf.clone() })
    }

    fn payload(&self, message: &Value) -> Result<Payload, BodyError> {
        let body = self.conf.format.encode(message)?;
        self.short_enough(body.len())?;
        Ok(Payload { body, format: Some(self.conf.format), code: None })
    }

    fn response(&self, answer: &Payload) -> Result<Response, BodyError> {
        self.short_enough(answer.body.len())?;
        Response::decode(answer.format.unwrap_or(self.conf.format), answer.code, &answer.body)
    }

    fn short_enough(&self, size: usize) -> Result<(), BodyError> {
        let limit = self.conf.max_body;
        if size > limit { Err(BodyError::TooLong { size, limit }) } else { Ok(()) }
    }

    fn target(&self) -> String {
        match &self.conf.host {
            Some(host) => format!("{} at {host}", self.conf.protocol),
            None => self.conf.protocol.clone(),
        }
    }

    fn timed_out(&self, what: &'static str) -> CommunicationError {
        CommunicationError::TimedOut { what, target: self.target(), after: self.conf.timeout }
    }
}

impl fmt::Debug for AsynchronProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsynchronProducer({})", self.way.target())
    }
}

impl fmt::Debug for RpcProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RpcProducer({})", self.way.target())
    }
}
