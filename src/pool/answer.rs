//! Holds: what a router gives back: nothing, one value, a stream of values, or a failure.

use std::fmt::Display;
use std::pin::Pin;

use futures_core::Stream;
use futures_util::StreamExt;
use serde::Serialize;

use super::{Pack, Packed};

pub(super) type Values = Pin<Box<dyn Stream<Item = Result<Packed, String>> + Send>>;

/// What a router answers. A router that returns a value answers with it; one that wants more returns this.
pub struct Answer(pub(super) Kind);

pub(super) enum Kind {
    None,
    One(Packed),
    Stream(Values),
    Failed(String),
}

impl Answer {
    /// Nothing: the asker learns that no answer comes.
    pub fn none() -> Self {
        Self(Kind::None)
    }

    /// One value.
    pub fn one(value: impl Pack) -> Self {
        match value.pack() {
            Ok(packed) => Self(Kind::One(packed)),
            Err(error) => Self::failed(error),
        }
    }

    /// Each value of a stream, as it comes. The stream is dropped when the asker wants no more, or is gone.
    pub fn stream<S>(values: S) -> Self
    where
        S: Stream<Item: Pack> + Send + 'static,
    {
        Self(Kind::Stream(Box::pin(values.map(|value| value.pack().map_err(|error| error.to_string())))))
    }

    /// Each value of a stream, until one is a failure: that ends the answers.
    pub fn stream_of<S, T, E>(values: S) -> Self
    where
        S: Stream<Item = Result<T, E>> + Send + 'static,
        T: Pack,
        E: Display,
    {
        let packed = |value: Result<T, E>| match value {
            Ok(value) => value.pack().map_err(|error| error.to_string()),
            Err(why) => Err(why.to_string()),
        };
        Self(Kind::Stream(Box::pin(values.map(packed))))
    }

    /// A failure: the asker gets it as [`AskError::Router`](super::AskError::Router).
    pub fn failed(why: impl Display) -> Self {
        Self(Kind::Failed(why.to_string()))
    }
}

/// What a router may return: a value that serializes, or an [`Answer`]. A `Result` answers as serde
/// writes it; to answer with its error, make an [`Answer`] of it by `Answer::from`. `()` answers nil; for no
/// answer return [`Answer::none`].
pub trait IntoAnswer {
    /// The answer.
    fn into_answer(self) -> Answer;
}

impl<T: Serialize> IntoAnswer for T {
    fn into_answer(self) -> Answer {
        Answer::one(self)
    }
}

impl IntoAnswer for Packed {
    fn into_answer(self) -> Answer {
        Answer::one(self)
    }
}

impl IntoAnswer for Answer {
    fn into_answer(self) -> Answer {
        self
    }
}

/// So that a router can use `?` within: `Answer::from(async { … }.await)`.
impl<E: Display> From<Result<Answer, E>> for Answer {
    fn from(result: Result<Answer, E>) -> Self {
        result.unwrap_or_else(Answer::failed)
    }
}
