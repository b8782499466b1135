//! Decides: what an error of lapin or of the broker means to the user.

use lapin::{Error, ErrorKind};

use crate::comm::{CommunicationError, Config};

/// What was being done.
#[derive(Clone, Copy)]
pub(super) enum Doing<'a> {
    Connecting(&'a Config),
    /// Opening a channel on a connection that was there.
    Opening,
    Declaring(&'a str),
    /// Waiting for a confirmation or an answer: the message is on its way.
    Waiting,
    Consuming,
}

/// Codes of AMQP 0-9-1.
const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;
const PRECONDITION_FAILED: u16 = 406;
const NOT_ALLOWED: u16 = 530;

/// The error for the user.
pub(super) fn fault(target: &str, doing: Doing<'_>, error: &Error) -> CommunicationError {
    let target = target.to_owned();
    if let ErrorKind::ProtocolError(said) = error.kind() {
        let why = said.get_message().to_string();
        return match (said.get_id(), doing) {
            (ACCESS_REFUSED, Doing::Connecting(conf)) => {
                CommunicationError::Credentials { target, user: conf.user.clone().unwrap_or_default(), why }
            }
            // RabbitMQ answers so to a virtual host that is absent, or that the user may not enter.
            (NOT_ALLOWED, Doing::Connecting(conf)) => {
                CommunicationError::Vhost { target, vhost: conf.vhost.clone().unwrap_or_default(), why }
            }
            (PRECONDITION_FAILED | RESOURCE_LOCKED, Doing::Declaring(queue)) => {
                CommunicationError::QueueDiffers { queue: queue.to_owned(), why }
            }
            (NOT_FOUND, _) => CommunicationError::NotFound { target, what: why },
            (ACCESS_REFUSED, _) => CommunicationError::Refused { target, why },
            (_, Doing::Connecting(_)) => CommunicationError::Connect { target, why },
            _ => lost(target, doing, why),
        };
    }
    match doing {
        Doing::Connecting(_) => CommunicationError::Connect { target, why: error.to_string() },
        _ => lost(target, doing, error.to_string()),
    }
}

fn lost(target: String, doing: Doing<'_>, why: String) -> CommunicationError {
    CommunicationError::Lost { target, sent: matches!(doing, Doing::Waiting), why }
}

/// True when the channel was known to be closed, so that nothing was sent.
pub(super) fn nothing_was_sent(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidChannel(_) | ErrorKind::InvalidChannelState(..) | ErrorKind::InvalidConnectionState(_)
    )
}

/// True when connecting again cannot help. While a broker comes up it may not know its virtual hosts
/// yet, so that one is not final for who was in before.
pub(super) fn is_final(error: &CommunicationError) -> bool {
    match error {
        CommunicationError::Connect { .. }
        | CommunicationError::Lost { .. }
        | CommunicationError::Vhost { .. }
        | CommunicationError::TimedOut { .. } => false,
        // A queue that is not declared by us may be declared again by its owner.
        CommunicationError::NotFound { .. } => false,
        _ => true,
    }
}
