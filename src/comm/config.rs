//! Holds: the configuration, with the seed's keys and those that it lacks.

use std::fmt;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use super::{ConfigError, Format};

/// Where to talk and how. Each setter is named as its key in YAML or TOML.
///
/// ```
/// # fn main() -> Result<(), natpipe::comm::ConfigError> {
/// let conf = natpipe::comm::Config::from_yaml("
/// mqconfig:
///     protocol: amqp
///     host: 192.168.152.184
///     vhost: test
///     routing_key: test
///     queue: test
///     user: test
///     password: test
/// ")?;
/// # let _ = conf;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Config {
    pub(crate) protocol: String,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) vhost: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) exchange: String,
    pub(crate) routing_key: Option<String>,
    pub(crate) queue: Option<String>,
    pub(crate) auto_delete: bool,
    pub(crate) durable: bool,
    pub(crate) declare: bool,
    pub(crate) tls: bool,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) heartbeat: u16,
    pub(crate) connect_timeout: Duration,
    pub(crate) timeout: Duration,
    pub(crate) prefetch: NonZeroU16,
    pub(crate) concurrency: Option<NonZeroU16>,
    pub(crate) confirms: bool,
    pub(crate) mandatory: bool,
    pub(crate) reconnect: bool,
    pub(crate) reconnect_wait: Duration,
    pub(crate) reconnect_max: Duration,
    pub(crate) max_tries: u32,
    pub(crate) dead_letter: Option<String>,
    pub(crate) format: Format,
    pub(crate) max_body: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            protocol: "memory".to_owned(),
            host: None,
            port: None,
            vhost: None,
            user: None,
            password: None,
            exchange: String::new(),
            routing_key: None,
            queue: None,
            auto_delete: false,
            durable: false,
            declare: true,
            tls: false,
            ca_file: None,
            heartbeat: 60,
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(30),
            prefetch: NonZeroU16::MIN,
            concurrency: None,
            confirms: true,
            mandatory: true,
            reconnect: true,
            reconnect_wait: Duration::from_millis(100),
            reconnect_max: Duration::from_secs(10),
            max_tries: 3,
            dead_letter: None,
            format: Format::Yaml,
            max_body: 16 << 20,
        }
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty => $value:expr;)*) => {$(
        $(#[$doc])*
        pub fn $name(mut self, $name: $type) -> Self {
            self.$name = $value;
            self
        }
    )*};
}

impl Config {
    /// The defaults, for a protocol: `memory` (in this process), `amqp`, `pipe`, or one that was
    /// [registered](super::register).
    pub fn new(protocol: impl Into<String>) -> Self {
        Self { protocol: protocol.into(), ..Self::default() }
    }

    setters! {
        /// The broker's name or address; of `pipe` the consumer's. `amqp` and `pipe` need it.
        host: impl Into<String> => Some(host.into());
        /// Its port. Default: 5672, with TLS 5671; `pipe` has none and needs it.
        port: u16 => Some(port);
        /// The virtual host. `amqp` needs it; in memory it keeps programs apart (default `/`).
        vhost: impl Into<String> => Some(vhost.into());
        /// The user. `amqp` needs it.
        user: impl Into<String> => Some(user.into());
        /// The password. `amqp` needs it. It is never logged.
        password: impl Into<String> => Some(password.into());
        /// The exchange, which has to exist (in memory it comes with its first queue). Default: `""`, which takes each
        /// message to the queue that its routing key names.
        exchange: impl Into<String> => exchange.into();
        /// Where a producer's messages go unless it says otherwise. Default: `queue`. A consumer at an exchange
        /// binds its queue with it.
        routing_key: impl Into<String> => Some(routing_key.into());
        /// The queue. A consumer needs it.
        queue: impl Into<String> => Some(queue.into());
        /// Whether the queue goes when its last consumer has gone. It has to be the same at all ends.
        /// Default: false.
        auto_delete: bool => auto_delete;
        /// Whether queue and messages survive the broker's restart. It has to be the same at all ends.
        /// Default: false, as the programs of seed 003 have it.
        durable: bool => durable;
        /// Whether the queue is declared when it is used. Default: true. Without, it has to exist, with
        /// whatever properties.
        declare: bool => declare;
        /// TLS to the broker. Default: false.
        tls: bool => tls;
        /// A file with the certificates (PEM) that the broker's has to be signed by, beside the system's.
        ca_file: impl Into<PathBuf> => Some(ca_file.into());
        /// Seconds between two signs of life; a connection without one for twice as long is dead. 0: none.
        /// With `pipe` the system gives them (TCP's keepalive, and on Linux its user timeout for what is on its way). Default: 60.
        heartbeat: u16 => heartbeat;
        /// How long connecting may take, in YAML in seconds; of a consumer with `pipe` how long who has connected may be silent.
        /// Default: 10 s.
        connect_timeout: Duration => connect_timeout;
        /// How long a push waits for its confirmation and a call for its answer, reconnecting included. In YAML in
        /// seconds. Default: 30 s.
        timeout: Duration => timeout;
        /// How many messages a consumer holds that are not yet settled. Default: 1.
        prefetch: NonZeroU16 => prefetch;
        /// How many of them are processed at a time. Default: as many as `prefetch`.
        concurrency: NonZeroU16 => Some(concurrency);
        /// Whether a push waits until the broker has confirmed the message. Default: true. Without, what is
        /// on its way is lost with the connection, and nobody learns whether there was a queue for it.
        confirms: bool => confirms;
        /// Whether a message that no queue takes is an error (with `confirms` only). Default: true.
        mandatory: bool => mandatory;
        /// Whether a connection that is lost is made again. Default: true.
        reconnect: bool => reconnect;
        /// How long to wait before the second attempt; each later one waits twice as long, with a random
        /// part. In YAML in seconds. Default: 0.1 s.
        reconnect_wait: Duration => reconnect_wait;
        /// The longest such wait. In YAML in seconds. Default: 10 s.
        reconnect_max: Duration => reconnect_max;
        /// How many times a pushed message is tried whose processor fails for the moment (5xx, panic). Default: 3.
        /// A call is tried once: its caller has the answer.
        max_tries: u32 => max_tries.max(1);
        /// The queue for pushed messages that were tried in vain, that have critical errors (4xx), or that cannot be
        /// read. Default: none, they are dropped, counted and logged.
        dead_letter: impl Into<String> => Some(dead_letter.into());
        /// The format of bodies. Default: YAML.
        format: Format => format;
        /// The longest body that is read or written, in bytes. Default: 16 MiB.
        max_body: usize => max_body;
    }

    /// The protocol.
    pub fn protocol(&self) -> &str {
        &self.protocol
    }

    /// The format of bodies.
    pub fn body_format(&self) -> Format {
        self.format
    }

    pub(crate) fn queue_name(&self) -> Result<&str, ConfigError> {
        let missing = || ConfigError::Missing { key: "queue", needed_by: "a consumer".to_owned() };
        self.queue.as_deref().filter(|queue| !queue.is_empty()).ok_or_else(missing)
    }

    /// The routing key of a message for which none was named.
    pub(crate) fn key_of_pushes(&self) -> Result<&str, ConfigError> {
        let missing = || ConfigError::Missing { key: "routing_key", needed_by: "a push that names none".to_owned() };
        self.routing_key.as_deref().or(self.queue.as_deref()).ok_or_else(missing)
    }

    pub(crate) fn needed<'a, T: ?Sized>(&self, key: &'static str, value: Option<&'a T>) -> Result<&'a T, ConfigError> {
        value.ok_or_else(|| ConfigError::Missing { key, needed_by: format!("the protocol `{}`", self.protocol) })
    }

    pub(crate) fn at_a_time(&self) -> usize {
        usize::from(self.concurrency.unwrap_or(self.prefetch).get())
    }
}

/// Everything but the password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("protocol", &self.protocol)
            .field("host", &self.host)
            .field("port", &self.port)
            .field("vhost", &self.vhost)
            .field("user", &self.user)
            .field("exchange", &self.exchange)
            .field("routing_key", &self.routing_key)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}
