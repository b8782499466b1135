//! Waits: one call of a router, as the replies that it makes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use tokio::time::Sleep;

use super::answer::{Kind, Values};
use super::envelope::{self, Part};
use super::router::Routing;
use super::{Answer, Packed};

/// A running router; as a stream, its replies. It ends after the last.
pub(super) struct Call {
    /// What the replies are tagged with; nothing: none are wanted.
    pub(super) tag: Option<Bytes>,
    count: u64,
    doing: Doing,
    limit: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
    most: usize,
}

enum Doing {
    Routing(Routing),
    Streaming(Values),
    Done,
}

impl Call {
    /// Begins a call; `most` is the longest message that may be answered.
    pub(super) fn begin(
        route: impl FnOnce() -> Routing,
        tag: Option<Bytes>,
        limit: Option<Duration>,
        most: usize,
    ) -> Self {
        let routing = catch_unwind(AssertUnwindSafe(route))
            .unwrap_or_else(|panic| Box::pin(std::future::ready(Answer::failed(said(&*panic)))));
        Self { tag, count: 0, doing: Doing::Routing(routing), limit, timer: None, most }
    }

    fn part(&mut self, part: &Part<'_>) -> Option<Bytes> {
        self.count += 1;
        self.timer = None;
        self.tag.as_ref().map(|tag| envelope::reply(part, tag, self.count))
    }

    fn value(&mut self, value: &Packed, only: bool) -> Option<Bytes> {
        if value.as_bytes().len() > self.most {
            return self.fail(&format!(
                "the answer has {} bytes, over the limit of {}",
                value.as_bytes().len(),
                self.most
            ));
        }
        self.part(&if only { Part::Only(value.as_bytes()) } else { Part::Next(value.as_bytes()) })
    }

    fn fail(&mut self, why: &str) -> Option<Bytes> {
        self.doing = Doing::Done;
        if self.tag.is_none() {
            tracing::debug!(why, "a router failed, and nobody waits for its answer");
        }
        self.part(&Part::Failed(why))
    }

    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        let Some(limit) = self.limit else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(limit)
    }

    /// The next reply, if one is wanted.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let polled = match &mut self.doing {
            Doing::Routing(routing) => match guarded(|| routing.as_mut().poll(cx)) {
                Ok(Poll::Ready(answer)) => return Poll::Ready(self.answered(answer)),
                Ok(Poll::Pending) => Ok(()),
                Err(why) => Err(why),
            },
            Doing::Streaming(values) => match guarded(|| values.as_mut().poll_next(cx)) {
                Ok(Poll::Ready(Some(Ok(value)))) => return Poll::Ready(self.value(&value, false)),
                Ok(Poll::Ready(Some(Err(why)))) => Err(why),
                Ok(Poll::Ready(None)) => {
                    self.doing = Doing::Done;
                    return Poll::Ready(self.part(&Part::End));
                }
                Ok(Poll::Pending) => Ok(()),
                Err(why) => Err(why),
            },
            Doing::Done => Ok(()),
        };
        if let Err(why) = polled {
            return Poll::Ready(self.fail(&why));
        }
        let limit = ready!(self.poll_time(cx));
        Poll::Ready(self.fail(&format!("no answer within {limit:?}")))
    }

    fn answered(&mut self, answer: Answer) -> Option<Bytes> {
        self.doing = Doing::Done;
        match answer.0 {
            Kind::None => self.part(&Part::End),
            Kind::One(value) => self.value(&value, true),
            Kind::Failed(why) => self.fail(&why),
            Kind::Stream(values) => {
                self.doing = Doing::Streaming(values);
                None
            }
        }
    }
}

impl Stream for Call {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        while !matches!(self.doing, Doing::Done) {
            if let Some(frame) = ready!(self.poll_part(cx)) {
                return Poll::Ready(Some(frame));
            }
        }
        Poll::Ready(None)
    }
}

fn guarded<T>(poll: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(poll)).map_err(|panic| said(&*panic))
}

/// What a panic said.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("without a word"))
}
