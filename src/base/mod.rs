//! What every floor stands on, private to the crate: owned tasks (the only place where a task is
//! spawned) and bounded queues.

pub(crate) mod attention;
pub(crate) mod queue;
pub(crate) mod task;
pub(crate) mod turn;
