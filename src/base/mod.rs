//! What every floor stands on, private to the crate: owned tasks (the only place where a task is
//! spawned), bounded queues, token buckets and backoff.

pub(crate) mod attention;
#[cfg(any(feature = "comm", feature = "peer"))]
pub(crate) mod backoff;
#[cfg(feature = "turn")]
pub(crate) mod bell;
#[cfg(feature = "peer")]
pub(crate) mod bucket;
#[cfg(feature = "turn")]
pub(crate) mod percent;
#[cfg(feature = "stun")]
pub(crate) mod public;
pub(crate) mod queue;
pub(crate) mod task;
pub(crate) mod turn;
