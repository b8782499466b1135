//! Holds: what can be set on a duct.

use std::time::Duration;

/// Options of a duct; the defaults are the seed's where it has one.
#[derive(Clone, Debug)]
pub struct DuctOptions {
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_message: usize,
    pub(crate) connect_retry_count: u32,
    pub(crate) connect_retry_delay: Duration,
    pub(crate) gather: bool,
    pub(crate) max_descriptors: usize,
}

impl Default for DuctOptions {
    fn default() -> Self {
        Self {
            timeout: Some(Duration::from_secs(30)),
            max_message: 64 << 20,
            connect_retry_count: 3,
            connect_retry_delay: Duration::from_secs(3),
            gather: true,
            max_descriptors: 0,
        }
    }
}

impl DuctOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long `send` and `recv` wait, each try to connect over TCP, and `close` for an end that takes nothing of what was sent.
    /// Default 30 s; `None`: for ever.
    pub fn timeout(self, limit: impl Into<Option<Duration>>) -> Self {
        Self { timeout: limit.into(), ..self }
    }

    /// The longest payload, in bytes, that is sent or received. Default 64 MiB. A longer one that is announced ends the
    /// receiving; memory is taken only as the bytes come.
    pub fn max_message(self, bytes: usize) -> Self {
        Self { max_message: bytes, ..self }
    }

    /// How often a child tries again when the address is absent or refuses. Default 3.
    pub fn connect_retry_count(self, tries: u32) -> Self {
        Self { connect_retry_count: tries, ..self }
    }

    /// The pause before each of these tries. Default 3 s.
    pub fn connect_retry_delay(self, pause: Duration) -> Self {
        Self { connect_retry_delay: pause, ..self }
    }

    /// Whether messages that are sent less than 20 µs apart share system calls. Default true: the first leaves at once,
    /// and those that follow wait for 64 KiB of them or about 50 µs, whichever comes first; receiving, `flush`,
    /// `close`, dropping the duct and an orderly exit of the process (`std::process::exit`, the end of `main`) send
    /// them before. Off: when `send` returns, the kernel has the message.
    pub fn gather(self, on: bool) -> Self {
        Self { gather: on, ..self }
    }

    /// How many descriptors are taken with one message (Unix sockets). Default 0; at most 253. More than that, and
    /// those of a message that is received by `recv`, are closed.
    pub fn max_descriptors(self, most: usize) -> Self {
        Self { max_descriptors: most.min(crate::net::rights::MOST), ..self }
    }
}
