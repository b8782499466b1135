//! Holds: what happens on the way to a peer.

use super::{Ended, PathInfo, PathKind};

/// Something that happened to the connection with a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A strategy was begun, or has come to something.
    Strategy {
        /// Which way.
        kind: PathKind,
        /// How it stands.
        state: StrategyState,
    },
    /// Everything goes this way from now on; `None` while there is no way.
    Path(Option<PathInfo>),
    /// It is over.
    Ended(Ended),
}

/// How a strategy stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StrategyState {
    /// It has begun.
    Started,
    /// It came to nothing.
    Failed {
        /// Why, for people.
        why: String,
    },
    /// It has found an authenticated path.
    Won,
}
