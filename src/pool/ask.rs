//! Waits: asking members, and their answers as they come.

use std::future::{Future, IntoFuture, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use rand::RngExt;
use tokio::time::{Instant, Sleep, sleep_until};

use super::asking::Asking;
use super::core::Core;
use super::envelope::{self, Tag};
use super::member::Member;
use super::{AskError, Con, ConId, PackError, Packed, Target};

/// An answer, and who gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Who.
    pub con: ConId,
    /// What.
    pub msg: Packed,
}

pub(super) enum Whom {
    Rand,
    Avail,
    All,
    Match(Target),
    Named(ConId),
    One(Con),
}

/// A message that is about to be sent. Awaiting it sends it and gives the first answer; [`answers`](Self::answers) gives all,
/// [`send`](Self::send) wants none.
#[must_use = "nothing is sent until it is awaited"]
pub struct Ask {
    core: Option<Arc<Core>>,
    whom: Whom,
    packed: Result<Packed, PackError>,
    deadline: Option<Option<Duration>>,
}

impl Ask {
    pub(super) fn new(core: Arc<Core>, whom: Whom, packed: Result<Packed, PackError>) -> Self {
        Self { core: Some(core), whom, packed, deadline: None }
    }

    pub(super) fn to_one(con: Con, packed: Result<Packed, PackError>) -> Self {
        Self { core: None, whom: Whom::One(con), packed, deadline: None }
    }

    /// How long to wait for the answers, from the sending on; `None`: for ever. Default: the pool's.
    pub fn deadline(self, limit: impl Into<Option<Duration>>) -> Self {
        Self { deadline: Some(limit.into()), ..self }
    }

    /// Sends the message, and gives the answers of all who are asked, as they come. It waits while the queue of the one member
    /// that is asked is full; a publish does not wait, those whose queue is full end with [`AskError::Full`].
    ///
    /// # Errors
    /// [`AskError::NoMember`], [`AskError::TooLong`], [`AskError::Pack`], [`AskError::Gone`].
    ///
    /// Cancelling, as dropping the [`Answers`], tells natpipe members to stop.
    pub async fn answers(self) -> Result<Answers, AskError> {
        let (packed, members) = self.prepare()?;
        let Some(conf) = members.first().map(|member| member.conf.clone()) else { return Err(self.nobody()) };
        let tag: Tag = rand::rng().random();
        let frame = envelope::request(packed.as_bytes(), Some(&tag), None);
        let asking = Asking::new(conf.queue);
        let limit = self.deadline.unwrap_or(conf.deadline);
        let begun = Instant::now();
        let mut answers = Answers { asking, tag, members: Vec::new(), limit, begun, timer: None, over: false };
        if self.is_for_many() {
            answers.members.reserve_exact(members.len());
        }
        for member in members {
            if !self.is_for_many() {
                answers.in_time(poll_fn(|cx| member.poll_room(cx))).await?;
            }
            match push(&member, &frame, packed.as_bytes(), Some((tag, &answers.asking))) {
                Ok(()) => answers.members.push(member),
                Err(error) if self.is_for_many() => answers.fail(error),
                Err(error) => return Err(error),
            }
        }
        Ok(answers)
    }

    /// Sends the message without wanting an answer, and tells to how many members. It is queued, not yet sent, when this
    /// returns. Members whose queue is full are waited for, except by a publish, which leaves them out.
    ///
    /// # Errors
    /// As [`answers`](Self::answers). Cancelling: it is queued or not.
    pub async fn send(self) -> Result<usize, AskError> {
        let (packed, members) = self.prepare()?;
        if members.is_empty() {
            return Err(self.nobody());
        }
        let frame = envelope::request(packed.as_bytes(), None, None);
        let mut sent = 0;
        for member in members {
            if !self.is_for_many() {
                poll_fn(|cx| member.poll_room(cx)).await;
            }
            match push(&member, &frame, packed.as_bytes(), None) {
                Ok(()) => sent += 1,
                Err(error) if self.is_for_many() => tracing::debug!(%error, "left out"),
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }

    fn is_for_many(&self) -> bool {
        matches!(self.whom, Whom::All | Whom::Match(_))
    }

    fn nobody(&self) -> AskError {
        AskError::NoMember { pool: self.core.as_ref().map_or_else(String::new, |core| core.name.to_string()) }
    }

    fn prepare(&self) -> Result<(Packed, Vec<Arc<Member>>), AskError> {
        let packed = match &self.packed {
            Ok(packed) => packed.clone(),
            Err(error) => return Err(AskError::Pack { reason: error.to_string() }),
        };
        let members = self.choose();
        let limit = members.first().map_or(usize::MAX, |member| member.conf.max_message);
        let length = packed.as_bytes().len();
        if length > limit { Err(AskError::TooLong { length, limit }) } else { Ok((packed, members)) }
    }

    fn choose(&self) -> Vec<Arc<Member>> {
        let core = match (&self.core, &self.whom) {
            (_, Whom::One(con)) => return vec![con.0.clone()],
            (Some(core), _) => core,
            (None, _) => return Vec::new(),
        };
        core.with(|members| match &self.whom {
            Whom::All => members.to_vec(),
            Whom::Match(target) => members.iter().filter(|member| target.matches(&member.meta())).cloned().collect(),
            Whom::Named(id) => members.iter().filter(|member| member.id == *id).cloned().collect(),
            Whom::Rand => staying(members).next().cloned().into_iter().collect(),
            Whom::Avail => staying(members).min_by_key(|member| member.load()).cloned().into_iter().collect(),
            Whom::One(_) => Vec::new(),
        })
    }
}

/// Queues a message for a member: the frame that all share, unless the member has to be told our metadata.
fn push(member: &Member, shared: &Bytes, msg: &[u8], ask: Option<(Tag, &Arc<Asking>)>) -> Result<(), AskError> {
    let Some(meta) = member.take_due_meta() else { return member.push(shared.clone(), ask) };
    let frame = envelope::request(msg, ask.as_ref().map(|(tag, _)| tag), Some(&meta));
    member.push(frame, ask).inspect_err(|_| member.meta_is_due())
}

/// Those that are not about to leave, from a random one on, so that equals take turns.
fn staying(members: &[Arc<Member>]) -> impl Iterator<Item = &Arc<Member>> {
    let first = if members.is_empty() { 0 } else { rand::rng().random_range(0..members.len()) };
    let (behind, front) = members.split_at(first);
    front.iter().chain(behind).filter(|member| !member.is_leaving())
}

impl IntoFuture for Ask {
    type Output = Result<Packed, AskError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let mut answers = self.answers().await?;
            match answers.next().await {
                Some(reply) => Ok(reply?.msg),
                None => Err(AskError::NoAnswer { con: answers.members[0].id }),
            }
        })
    }
}

/// The answers to one ask, as they come: a `Stream`. A member that fails or goes away ends its part with an error and leaves the
/// others'. After the deadline comes one error, and then the end. Dropping it ends the ask: what still comes is dropped.
///
/// Whoever holds it and does not take from it holds up the connections that answer, when `max_qbytes` of answers wait.
pub struct Answers {
    asking: Arc<Asking>,
    tag: Tag,
    members: Vec<Arc<Member>>,
    limit: Option<Duration>,
    /// When it was sent.
    begun: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    over: bool,
}

impl Answers {
    /// The next answer; `None` after the last.
    ///
    /// # Errors
    /// [`AskError`], of one member, or [`AskError::TimedOut`] for all that have not answered. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Reply, AskError>> {
        poll_fn(|cx| self.poll_reply(cx)).await
    }

    /// How many members were asked.
    pub fn asked(&self) -> usize {
        self.members.len()
    }

    fn fail(&self, error: AskError) {
        self.asking.begin();
        self.asking.put(Some(Err(error)), true);
    }

    async fn in_time(&mut self, wait: impl Future<Output = ()>) -> Result<(), AskError> {
        let mut wait = std::pin::pin!(wait);
        poll_fn(|cx| match wait.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Ok(())),
            Poll::Pending => self.poll_time(cx).map(Err),
        })
        .await
    }

    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<AskError> {
        let Some(limit) = self.limit else { return Poll::Pending };
        // Further away than the clock can count is for ever.
        let Some(end) = self.begun.checked_add(limit) else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        timer.as_mut().poll(cx).map(|()| AskError::TimedOut { limit })
    }

    fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Reply, AskError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(reply) = self.asking.poll_next(cx) {
            self.over = reply.is_none();
            return Poll::Ready(reply);
        }
        self.poll_time(cx).map(|error| {
            self.over = true;
            Some(Err(error))
        })
    }
}

impl Stream for Answers {
    type Item = Result<Reply, AskError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_reply(cx)
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.asking.abandon();
        self.members.iter().for_each(|member| member.forget(&self.tag));
    }
}

impl std::fmt::Debug for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Answers(of {})", self.members.len())
    }
}
