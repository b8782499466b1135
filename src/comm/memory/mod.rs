//! A broker in this process, with the semantics of the one outside: so that programs and their tests
//! run with no broker at all.
//!
//! `queue` decides what a queue holds and gives, `answers` counts what goes back to callers, `broker` waits for room and for messages, `ends` are what producers and
//! consumers hold. It declares, routes, confirms, limits, redelivers, retries and buries the dead as AMQP
//! does; it forgets everything with the process, so `durable` is compared and means no more.

mod answers;
mod broker;
mod ends;
mod queue;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

pub(super) use answers::{Answer, OnItsWay, ReplyTo};
pub(super) use broker::{Broker, Properties, Stored};
pub(super) use ends::MemoryInlet;

use super::{Backend, Boxed, CommunicationError, Config, Counters, Inlet, Outlet};
use ends::MemoryOutlet;

/// Brokers in this process, one for each virtual host.
///
/// The one registered as `memory` is the same for the whole process; a [`Memory::new`] of one's own is
/// apart from all others.
#[derive(Debug, Default)]
pub struct Memory {
    brokers: Mutex<HashMap<String, Arc<Broker>>>,
}

impl Memory {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    fn broker(&self, conf: &Config) -> Arc<Broker> {
        let vhost = conf.vhost.as_deref().unwrap_or("/");
        let mut brokers = self.brokers.lock().unwrap_or_else(PoisonError::into_inner);
        brokers.entry(vhost.to_owned()).or_default().clone()
    }
}

impl Backend for Memory {
    fn outlet<'a>(&'a self, conf: &'a Config, _calls: bool) -> Boxed<'a, Result<Box<dyn Outlet>, CommunicationError>> {
        let outlet = MemoryOutlet::new(self.broker(conf), conf);
        Box::pin(async move { Ok(Box::new(outlet) as Box<dyn Outlet>) })
    }

    fn inlet<'a>(
        &'a self,
        conf: &'a Config,
        counters: Counters,
    ) -> Boxed<'a, Result<Box<dyn Inlet>, CommunicationError>> {
        Box::pin(async move { Ok(Box::new(MemoryInlet::open(self.broker(conf), conf, counters)?) as Box<dyn Inlet>) })
    }
}
