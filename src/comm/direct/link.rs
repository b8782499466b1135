//! Waits: one pipe between two processes, with what is on its way in both directions.
//!
//! Neither end can hold up the other for ever: each has a window of messages that are not yet answered, and always room for
//! as many answers; answers go before new messages.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::sleep;

use super::frame::{Address, Frame, GREETING, Why, longest};
use super::serve::Server;
use super::unfinished::Unfinished;
use crate::base::task::Nursery;
use crate::comm::memory::{Broker, OnItsWay};
use crate::comm::{CommunicationError, Config, Payload};
use crate::pipe::Pipe;

/// Messages on their way to the other end and not yet answered.
pub(super) const WINDOW: usize = 1024;
/// Frames that wait to be written, beside answers and words that a call is given up.
const WAITING: usize = 64;
/// Bytes after which what waits is written in one piece.
const PIECE: usize = 64 * 1024;
/// How long to wait before a message is sent again to a queue that was full, at first and at most.
const FULL_FIRST: Duration = Duration::from_millis(5);
const FULL_MOST: Duration = Duration::from_millis(200);

/// What comes back for a message.
enum Outcome {
    Taken,
    Answer(Payload),
    Refused(Why, String),
}

/// What is said to a message; an answer is on its way until it is written.
pub(super) type Reply = (Frame, Option<OnItsWay>);

/// Who waits for which outcome; `None` when the pipe has ended.
type Pending = Mutex<Option<HashMap<u64, oneshot::Sender<Outcome>>>>;

pub(super) struct Link {
    pipe: Pipe,
    target: String,
    out: mpsc::Sender<Frame>,
    pending: Arc<Pending>,
    next_id: AtomicU64,
    window: Arc<Semaphore>,
    greeted: watch::Receiver<bool>,
    _tasks: Mutex<Nursery<()>>,
}

/// What the other end may send.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) max_body: usize,
    /// What frames that have not come whole may take, with those of other links.
    pub(super) unfinished: Arc<Unfinished>,
}

impl Terms {
    /// Of a link that has no others beside it: one frame is all that can be unfinished.
    pub(super) fn alone(max_body: usize) -> Self {
        Self { max_body, unfinished: Unfinished::new(usize::MAX) }
    }
}

/// Dropping the last handle ends the tasks and closes the pipe.
impl Link {
    pub(super) async fn start(pipe: Pipe, broker: Arc<Broker>, terms: Terms) -> Self {
        let target = pipe.peer_addr().map_or_else(|| "the pipe's other end".to_owned(), ToString::to_string);
        // Each message on its way has a place kept for the word that nobody waits for it any more.
        let (out, frames) = mpsc::channel(WINDOW + WAITING);
        let (greets, greeted) = watch::channel(false);
        // Twice the window: what the other end has given up may still be on its way back.
        let (replies, answers) = mpsc::channel(2 * WINDOW + 1);
        let pending = Arc::new(Mutex::new(Some(HashMap::new())));
        let mut tasks = Nursery::new(&Handle::current());
        // There is room, as nothing else was sent yet.
        let _ = replies.try_send((Frame::Hello, None));
        tasks.begin(write(pipe.clone(), answers, frames));
        let reader = Reader { pipe: pipe.clone(), pending: pending.clone(), greets, terms };
        tasks.begin(reader.run(Server::new(broker, replies), target.clone()));
        let window = Arc::new(Semaphore::new(WINDOW));
        let (next_id, tasks) = (AtomicU64::new(0), Mutex::new(tasks));
        Self { pipe, target, out, pending, next_id, window, greeted, _tasks: tasks }
    }

    /// Waits until the other end has greeted, or the pipe has ended.
    pub(super) async fn greeted(&self) {
        // An error means the end.
        let _ = self.greeted.clone().wait_for(|greeted| *greeted).await;
    }

    pub(super) fn target(&self) -> &str {
        &self.target
    }

    pub(super) fn is_live(&self) -> bool {
        lock(&self.pending).is_some()
    }

    /// Waits until the pipe has ended.
    pub(super) async fn ended(&self) {
        self.pipe.ended().await;
    }

    pub(super) async fn close(&self) {
        self.pipe.close().await;
    }

    /// Pushes a message; while its queue is full, again and again.
    pub(super) async fn push(&self, conf: &Config, key: &str, payload: Payload) -> Result<(), CommunicationError> {
        let mut wait = FULL_FIRST;
        loop {
            match self.exchange(conf, key, &payload, Frame::Push).await? {
                Outcome::Taken => return Ok(()),
                Outcome::Refused(Why::Full, _) => {
                    sleep(wait).await;
                    wait = (wait * 2).min(FULL_MOST);
                }
                Outcome::Refused(Why::Unroutable, _) if !(conf.confirms && conf.mandatory) => return Ok(()),
                Outcome::Refused(why, reason) => return Err(self.refused(conf, key, why, reason)),
                Outcome::Answer(_) => return Err(self.broken("an answer to a push")),
            }
        }
    }

    /// Calls the other end; while the queue is full, again and again.
    pub(super) async fn call(&self, conf: &Config, key: &str, payload: Payload) -> Result<Payload, CommunicationError> {
        let mut wait = FULL_FIRST;
        loop {
            match self.exchange(conf, key, &payload, Frame::Call).await? {
                Outcome::Answer(answer) => return Ok(answer),
                Outcome::Refused(Why::Full, _) => {
                    sleep(wait).await;
                    wait = (wait * 2).min(FULL_MOST);
                }
                Outcome::Refused(why, reason) => return Err(self.refused(conf, key, why, reason)),
                Outcome::Taken => return Err(self.broken("a confirmation of a call")),
            }
        }
    }

    /// Sends a message and waits for what comes back.
    async fn exchange(
        &self,
        conf: &Config,
        key: &str,
        payload: &Payload,
        kind: fn(u64, Address, Payload) -> Frame,
    ) -> Result<Outcome, CommunicationError> {
        let to = address(conf, key)?;
        let _place = self.window.acquire().await.map_err(|_| CommunicationError::Closed)?;
        let word = self.out.reserve().await.map_err(|_| self.lost(false))?;
        let mut waiting = self.begin(word)?;
        self.out.send(kind(waiting.id, to, payload.clone())).await.map_err(|_| self.lost(false))?;
        waiting.sent = true;
        let outcome = (&mut waiting.outcome).await.map_err(|_| self.lost(true))?;
        waiting.sent = false;
        Ok(outcome)
    }

    fn begin<'a>(&'a self, word: mpsc::Permit<'a, Frame>) -> Result<Waiting<'a>, CommunicationError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, outcome) = oneshot::channel();
        let mut pending = lock(&self.pending);
        pending.as_mut().ok_or_else(|| self.lost(false))?.insert(id, sender);
        Ok(Waiting { link: self, id, outcome, word: Some(word), sent: false })
    }

    fn lost(&self, sent: bool) -> CommunicationError {
        CommunicationError::Lost { target: self.target.clone(), sent, why: "the pipe has ended".to_owned() }
    }

    fn broken(&self, why: &str) -> CommunicationError {
        CommunicationError::Protocol { target: self.target.clone(), why: why.to_owned() }
    }

    fn refused(&self, conf: &Config, key: &str, why: Why, reason: String) -> CommunicationError {
        let target = self.target.clone();
        match why {
            Why::Full => CommunicationError::Full { queue: key.to_owned() },
            Why::Unroutable => {
                CommunicationError::Unroutable { exchange: conf.exchange.clone(), routing_key: key.to_owned() }
            }
            Why::NotFound => CommunicationError::NotFound { target, what: reason },
            Why::Differs => CommunicationError::QueueDiffers { queue: key.to_owned(), why: reason },
            Why::Refused => CommunicationError::Refused { target, why: reason },
        }
    }
}

/// Someone who waits for an outcome; dropped while the message is on its way, it tells the other end.
struct Waiting<'a> {
    link: &'a Link,
    id: u64,
    outcome: oneshot::Receiver<Outcome>,
    /// The place for it: were it lost, the other end would count a call that is none any more.
    word: Option<mpsc::Permit<'a, Frame>>,
    sent: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(pending) = lock(&self.link.pending).as_mut() {
            pending.remove(&self.id);
        }
        if let Some(word) = self.word.take().filter(|_| self.sent) {
            word.send(Frame::GiveUp(self.id));
        }
    }
}

fn address(conf: &Config, key: &str) -> Result<Address, CommunicationError> {
    for (name, text) in [("exchange", conf.exchange.as_str()), ("routing_key", key)] {
        if text.len() > 255 {
            let value = format!("a text of {} bytes", text.len());
            let (key, wanted) = (name.to_owned(), "up to 255 bytes");
            return Err(crate::comm::ConfigError::Invalid { key, value, wanted }.into());
        }
    }
    let (exchange, key) = (conf.exchange.clone(), key.to_owned());
    let (auto_delete, durable) = (conf.auto_delete, conf.durable);
    Ok(Address { exchange, key, auto_delete, durable, declare: conf.declare })
}

/// Writes what waits, answers first, several frames in one piece.
async fn write(pipe: Pipe, mut answers: mpsc::Receiver<Reply>, mut frames: mpsc::Receiver<Frame>) {
    let (mut piece, mut on_their_way) = (BytesMut::new(), Vec::new());
    loop {
        let mut next = tokio::select! {
            biased;
            Some(answer) = answers.recv() => Some(answer),
            Some(frame) = frames.recv() => Some((frame, None)),
            else => return,
        };
        while let Some((frame, on_its_way)) = next {
            frame.write(&mut piece);
            on_their_way.extend(on_its_way);
            let waits = piece.len() < PIECE;
            next = waits.then(|| answers.try_recv().ok().or_else(|| Some((frames.try_recv().ok()?, None)))).flatten();
        }
        if let Err(error) = pipe.send(&piece).await {
            tracing::debug!(%error, "the pipe takes nothing more");
            return;
        }
        on_their_way.clear();
        // A single long body does not keep its memory.
        if piece.capacity() > 4 * PIECE { piece = BytesMut::new() } else { piece.clear() }
    }
}

struct Reader {
    pipe: Pipe,
    pending: Arc<Pending>,
    greets: watch::Sender<bool>,
    terms: Terms,
}

impl Reader {
    /// Reads until the pipe ends, then lets go of all who wait.
    async fn run(self, mut server: Server, target: String) {
        if let Err(why) = self.read(&mut server).await {
            tracing::warn!(%why, target, "the other end is not understood, the pipe is closed");
        }
        lock(&self.pending).take();
        self.pipe.close().await;
    }

    async fn read(&self, server: &mut Server) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let (mut buffer, mut kept) = (BytesMut::new(), self.terms.unfinished.share());
        // Who has not greeted may be anybody.
        let (mut greeted, mut most) = (false, GREETING);
        loop {
            while let Some(frame) = Frame::read(&mut buffer, most)? {
                match (greeted, frame) {
                    (false, Frame::Hello) => {
                        (greeted, most) = (true, longest(self.terms.max_body));
                        self.greets.send_replace(true);
                    }
                    (false, _) => return Err("the first frame is no greeting".into()),
                    (true, frame) => self.handle(frame, server)?,
                }
                server.room().await;
            }
            kept.handle_kept(buffer.len())?;
            tokio::select! {
                biased;
                () = server.settled() => {}
                message = self.pipe.recv_within(None) => match message {
                    Ok(message) => buffer.extend_from_slice(&message.data),
                    Err(_) => return Ok(()),
                },
            }
        }
    }

    fn handle(&self, frame: Frame, server: &mut Server) -> Result<(), &'static str> {
        match frame {
            Frame::Hello => return Err("a second greeting"),
            Frame::Push(id, to, payload) => server.push(id, &to, payload)?,
            Frame::Call(id, to, payload) => server.call(id, &to, payload)?,
            Frame::GiveUp(id) => server.give_up(id),
            Frame::Taken(id) => self.resolve(id, Outcome::Taken),
            Frame::Answer(id, answer) => self.resolve(id, Outcome::Answer(answer)),
            Frame::Refused(id, why, reason) => self.resolve(id, Outcome::Refused(why, reason)),
        }
        Ok(())
    }

    /// An outcome of something that nobody waits for is ignored.
    fn resolve(&self, id: u64, outcome: Outcome) {
        let waiting = lock(&self.pending).as_mut().and_then(|pending| pending.remove(&id));
        if let Some(waiting) = waiting {
            let _ = waiting.send(outcome);
        }
    }
}

fn lock(pending: &Pending) -> MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Outcome>>>> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}
