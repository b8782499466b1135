//! Waits: one connection from its HELLO to its end: reads and writes in one task, many messages at
//! a time.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWrite;
use tokio::time::sleep_until;

use crate::pipe::{End, Pipe, PipeStream, RecvError};
use crate::smart::core::Core;
use crate::smart::desk::{Joined, Load, PeerKey};
use crate::smart::inbox::Batch;
use crate::smart::lane::{Lane, Wish};
use crate::smart::protocol::{Envelope, Frames, Incoming, MessageId, Run, Session, VERSION};
use crate::smart::{Candidate, Cause, Event, Identity};

/// The longest first frame: HELLO is 18 bytes, and another version's may be longer.
const FIRST_FRAME: usize = 1024;
/// What stands in a frame beside a message: its type and its id.
const AROUND: usize = 17;
/// Parts that one system call writes.
const PARTS: usize = 64;
/// How long the goodbye may take, in which the peer reads what was sent to it.
const GOODBYE: Duration = Duration::from_secs(2);

/// How a connection went.
pub(crate) struct Attended {
    pub(crate) greeted: bool,
    pub(crate) cause: Cause,
}

/// How a connection came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Its peer connected: it may speak WebSocket.
    Accepted,
    /// This end connected, and will again.
    Dialed,
    /// The user gave it.
    Given,
}

/// Attends to a connection to its end.
pub(crate) async fn attend(core: Arc<Core>, pipe: Pipe, way: Way) -> Attended {
    let lane = Arc::new(Lane::new(pipe.peer_addr().cloned()));
    core.enter(&lane);
    #[cfg(feature = "ws")]
    let pipe = match opened(&core, &lane, pipe, way).await {
        Ok(pipe) => pipe,
        Err(cause) => {
            refuse(&core, &lane, &cause);
            return Attended { greeted: false, cause };
        }
    };
    let mut connection = Connection::new(core, lane, pipe, way == Way::Dialed).await;
    let cause = connection.work().await;
    if cause == Cause::Closed {
        connection.say_goodbye().await;
    }
    connection.leave(cause).await
}

/// The pipe to speak on, within a WebSocket where the peer begins one.
#[cfg(feature = "ws")]
async fn opened(core: &Core, lane: &Lane, pipe: Pipe, way: Way) -> Result<Pipe, Cause> {
    if way != Way::Accepted {
        return Ok(pipe);
    }
    let options = &core.options;
    let called = async {
        loop {
            match lane.wish() {
                Some(Wish::Close) => return Cause::Closed,
                Some(Wish::Displace) => return Cause::Displaced,
                None => lane.call.wait().await,
            }
        }
    };
    tokio::select! {
        cause = called => Err(cause),
        opened = super::upgrade::accepted(pipe, options.timing.patience, options.max_message) => opened,
    }
}

/// A connection is over that never counted.
fn refuse(core: &Core, lane: &Arc<Lane>, cause: &Cause) {
    tracing::debug!(addr = ?lane.addr, %cause, "a connection was refused");
    core.forget_greeting(lane);
    core.tell(Event::Refused { addr: lane.addr.clone(), cause: cause.clone() });
}

/// What the writing side is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Out {
    /// Everything has left.
    Idle,
    /// A load is being written.
    Writing,
    /// It is written, and a layer below may still hold some of it.
    Flushing,
}

struct Connection {
    core: Arc<Core>,
    lane: Arc<Lane>,
    pipe: Pipe,
    stream: PipeStream,
    comes_back: bool,
    session: Session,
    frames: Frames,
    peer: Option<(Identity, PeerKey)>,
    load: Load,
    out: Out,
    /// What the inbox had no room for; nothing is read meanwhile.
    stalled: Option<Batch>,
    acks: Vec<MessageId>,
}

impl Connection {
    async fn new(core: Arc<Core>, lane: Arc<Lane>, pipe: Pipe, comes_back: bool) -> Self {
        let mut hello = Vec::new();
        Envelope::Hello { version: VERSION, identity: core.options.identity }.encode(&mut hello);
        Self {
            session: Session::new(Instant::now(), core.options.timing),
            stream: pipe.clone().into_stream().await,
            frames: Frames::new(FIRST_FRAME),
            peer: None,
            load: Load::of_control(hello),
            out: Out::Writing,
            stalled: None,
            acks: Vec::new(),
            core,
            lane,
            pipe,
            comes_back,
        }
    }

    /// Runs to the end, and tells why it came.
    async fn work(&mut self) -> Cause {
        let mut timer = pin!(sleep_until(self.session.poll_timeout().into()));
        // HELLO leaves before anything is read: the peer should know with whom it talks though it be refused.
        let greeted = tokio::select! {
            biased;
            wrote = write(&mut self.stream, &self.load, self.out) => self.handle_wrote(wrote),
            () = std::future::ready(()) => Ok(()),
        };
        if let Err(cause) = greeted {
            return cause;
        }
        loop {
            let due = self.session.poll_timeout().into();
            if due < timer.deadline() {
                timer.as_mut().reset(due);
            }
            let done = tokio::select! {
                read = read(&self.pipe, &mut self.frames), if self.stalled.is_none() => self.handle_read(read),
                wrote = write(&mut self.stream, &self.load, self.out), if self.out != Out::Idle => {
                    self.handle_wrote(wrote)
                }
                () = self.core.inbox.room(), if self.stalled.is_some() => self.handle_room(),
                () = self.lane.call.wait() => self.handle_call(),
                () = &mut timer => {
                    let done = self.handle_timer().await;
                    timer.as_mut().reset(self.session.poll_timeout().into());
                    done
                }
            };
            if let Err(cause) = done {
                return cause;
            }
        }
    }

    fn handle_read(&mut self, read: Result<(), RecvError>) -> Result<(), Cause> {
        match read {
            Ok(()) => {}
            Err(RecvError::Ended(end)) => return Err(Cause::Ended(end)),
            Err(_) => return Err(Cause::Ended(End::Broken(io::ErrorKind::Other))),
        }
        let now = Instant::now();
        self.session.handle_read(now);
        self.sift(now)
    }

    /// Goes through what was read, as far as there is room for it.
    fn sift(&mut self, now: Instant) -> Result<(), Cause> {
        while self.stalled.is_none() {
            if let Some(peer) = self.peer
                && let Some(run) = self.frames.run()
            {
                self.deliver(now, peer, run);
                continue;
            }
            let Some(frame) = self.frames.next()? else { break };
            let incoming = self.session.handle_frame(now, frame)?;
            self.handle(incoming)?;
        }
        self.frames.rest();
        if let Some((_, key)) = self.peer
            && !self.acks.is_empty()
        {
            let acks = std::mem::take(&mut self.acks);
            self.core.at_desk(|desk| acks.iter().for_each(|id| desk.handle_ack(key, id)));
        }
        Ok(())
    }

    fn deliver(&mut self, now: Instant, (from, key): (Identity, PeerKey), run: Run) {
        self.lane.count(run.messages(), run.bytes());
        let batch = Batch::new(from, key, run);
        if self.core.inbox.is_full() {
            self.stalled = Some(batch);
            self.session.handle_reading(now, false);
        } else {
            self.core.inbox.put(batch);
        }
    }

    fn handle(&mut self, incoming: Incoming) -> Result<(), Cause> {
        match (incoming, self.peer) {
            (Incoming::Greeted(identity), _) => self.greet(identity)?,
            (Incoming::Acknowledged(id), _) => self.acks.push(id),
            (Incoming::Subscribed(topic), Some((_, key))) => {
                self.core.at_desk(|desk| desk.handle_topic(key, topic, true));
            }
            (Incoming::Unsubscribed(topic), Some((_, key))) => {
                self.core.at_desk(|desk| desk.handle_topic(key, topic, false));
            }
            // Messages come as runs.
            _ => {}
        }
        Ok(())
    }

    /// The peer has said who it is: from now on it counts, unless somebody objects.
    fn greet(&mut self, identity: Identity) -> Result<(), Cause> {
        if let Some(admits) = &self.core.options.admit {
            let certificate = self.pipe.peer_certificate();
            let candidate = Candidate { identity, addr: self.lane.addr.clone(), certificate };
            if !admits(&candidate) {
                return Err(Cause::NotAdmitted(identity));
            }
        }
        let key = self.core.join(&self.lane, Joined { identity, comes_back: self.comes_back })?;
        self.peer = Some((identity, key));
        self.frames.set_limit(self.core.options.max_message + AROUND);
        if self.out != Out::Writing {
            self.look(Instant::now());
        }
        Ok(())
    }

    /// Takes what is to be written next, once everything before has been.
    fn look(&mut self, now: Instant) {
        if let Some((_, key)) = self.peer
            && self.core.take(now, key, &mut self.load)
        {
            self.out = Out::Writing;
        }
    }

    fn handle_wrote(&mut self, wrote: io::Result<usize>) -> Result<(), Cause> {
        let now = Instant::now();
        match (wrote, self.out) {
            (Err(error), _) => return Err(Cause::Write(error.kind())),
            (Ok(0), Out::Writing) => return Err(Cause::Write(io::ErrorKind::WriteZero)),
            (Ok(n), Out::Writing) => {
                self.load.handle_written(n);
                self.session.handle_sent(now);
                if self.load.is_written() {
                    self.out = Out::Flushing;
                    self.look(now);
                }
            }
            (Ok(_), _) => self.out = Out::Idle,
        }
        Ok(())
    }

    fn handle_room(&mut self) -> Result<(), Cause> {
        let now = Instant::now();
        if let Some(batch) = self.stalled.take() {
            self.core.inbox.put(batch);
        }
        self.session.handle_reading(now, true);
        self.sift(now)
    }

    /// Somebody has something for this connection.
    fn handle_call(&mut self) -> Result<(), Cause> {
        match self.lane.wish() {
            Some(Wish::Close) => return Err(Cause::Closed),
            Some(Wish::Displace) if self.peer.is_none() => return Err(Cause::Displaced),
            _ => {}
        }
        if self.out != Out::Writing {
            self.look(Instant::now());
        }
        Ok(())
    }

    async fn handle_timer(&mut self) -> Result<(), Cause> {
        // What lies there unread is a sign of life, and both may have come while this machine was busy.
        tokio::select! {
            biased;
            read = read(&self.pipe, &mut self.frames), if self.stalled.is_none() => self.handle_read(read)?,
            () = std::future::ready(()) => {}
        }
        self.handle_timeout()
    }

    fn handle_timeout(&mut self) -> Result<(), Cause> {
        let now = Instant::now();
        let beats = self.session.handle_timeout(now)?;
        if let (true, Out::Idle, Some((_, key))) = (beats, self.out, self.peer) {
            self.core.at_desk(|desk| desk.beat(key));
            self.look(now);
        }
        Ok(())
    }

    /// Half-closes, and lets the peer read to its end: what it has not read would be lost with a
    /// connection that is closed while bytes of its own lie unread here.
    async fn say_goodbye(&mut self) {
        let stream = &mut self.stream;
        let pipe = &self.pipe;
        let goodbye = async {
            if poll_fn(|cx| Pin::new(&mut *stream).poll_shutdown(cx)).await.is_ok() {
                while pipe.recv_within(None).await.is_ok() {}
            }
        };
        if tokio::time::timeout(GOODBYE, goodbye).await.is_err() {
            tracing::debug!(addr = ?self.lane.addr, "the peer did not say goodbye");
        }
    }

    async fn leave(self, cause: Cause) -> Attended {
        let Self { core, lane, pipe, stream, peer, load, .. } = self;
        match peer {
            Some((identity, key)) => {
                tracing::debug!(%identity, addr = ?lane.addr, %cause, "a peer is gone");
                core.leave(key, load);
                core.tell(Event::Disconnected { identity, cause: cause.clone() });
            }
            None => refuse(&core, &lane, &cause),
        }
        drop(stream);
        pipe.close().await;
        Attended { greeted: peer.is_some(), cause }
    }
}

/// Reads once: into the buffer of the frames where much comes, else into none that would have to be
/// held meanwhile. Cancel safe.
async fn read(pipe: &Pipe, frames: &mut Frames) -> Result<(), RecvError> {
    if frames.wants_buffer() {
        let came = pipe.recv_into(frames.buffer()).await?;
        frames.handle_read(came);
    } else {
        frames.push(pipe.recv_within(None).await?.data);
    }
    Ok(())
}

/// Writes what one system call takes of a load, or passes on what a layer below holds. Cancel safe.
async fn write(stream: &mut PipeStream, load: &Load, out: Out) -> io::Result<usize> {
    poll_fn(|cx| {
        if out == Out::Flushing {
            return Pin::new(&mut *stream).poll_flush(cx).map_ok(|()| 0);
        }
        let mut parts = [IoSlice::new(&[]); PARTS];
        let count = load.parts(&mut parts);
        Pin::new(&mut *stream).poll_write_vectored(cx, parts.get(..count).unwrap_or_default())
    })
    .await
}
