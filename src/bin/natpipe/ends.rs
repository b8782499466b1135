//! Waits: the signals that stop a command, and what its end is then.

use std::io;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use crate::args::{Command, MqCommand, PoolRole};
use crate::spec::Spec;

/// How long goodbyes may take once a command is stopped, and how often it is looked whether they are said.
const PARTING: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(5);

/// What stops a command.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(unix), allow(dead_code, reason = "other systems have Ctrl-C alone"))]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// As an init system asks.
    Terminate,
}

impl Signal {
    /// What a shell says of a program that the signal has ended.
    pub fn status(self) -> u8 {
        match self {
            Self::Interrupt => 128 + 2,
            Self::Terminate => 128 + 15,
        }
    }
}

/// A signal has ended a command that finishes what it has in hand before all was done: more was wanted, or a second one came.
#[derive(Debug, thiserror::Error)]
#[error("stopped by a signal")]
pub struct Stopped(pub Signal);

/// As long as the process lives, none of these signals ends it by itself any more.
pub struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    pub fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    #[cfg(not(unix))]
    pub fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// The next one. Cancel safe.
    #[cfg(unix)]
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }

    #[cfg(not(unix))]
    pub async fn next(&mut self) -> Signal {
        drop(tokio::signal::ctrl_c().await);
        Signal::Interrupt
    }
}

/// What was let go says goodbye in tasks of its own: waits for them, for a moment.
pub async fn parted() {
    let tasks = Handle::current().metrics();
    let done = async {
        while tasks.num_alive_tasks() > 0 {
            sleep(LOOK).await;
        }
    };
    if timeout(PARTING, done).await.is_err() {
        tracing::debug!("not everybody has heard the goodbye");
    }
}

impl Command {
    /// True when a signal does not end it at once: it finishes what it has in hand. Where that was not all, it ends with [`Stopped`].
    pub fn finishes_what_it_has(&self) -> bool {
        matches!(self, Self::Serve(_) | Self::Mq { command: MqCommand::Consume { .. } })
    }

    /// True when it goes on until it is stopped, so that being stopped is no failure.
    pub fn goes_on(&self) -> bool {
        match self {
            Self::StunServer { .. } | Self::Serve(_) => true,
            Self::Echo { spec } => spec.listens(),
            Self::Listen(args) => !args.once && args.to.as_ref().is_some_and(|to| *to != Spec::Stdio),
            Self::Connect(args) => args.from.as_ref().is_some_and(Spec::listens),
            Self::Recv(args) => args.count.is_none(),
            Self::Pool { role: PoolRole::Bind(args) | PoolRole::Client(args) } => args.call.is_none(),
            Self::Mq { command: MqCommand::Consume { count, .. } } => count.is_none(),
            _ => false,
        }
    }
}
