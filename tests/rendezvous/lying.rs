//! A server that listens in, changes, drops, doubles and invents what it passes on: what it can do is to be of no use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use natpipe::key::{Carrier, ServerUrl, tls};
use natpipe::rendezvous::{Client, Frame, RawPeer, SignalError, State};
use natpipe::{Identity, PeerId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::soon;

/// What becomes of a frame of a peer: frames for the peers that they name now.
type Lie = Box<dyn FnMut(PeerId, Frame) -> Vec<(PeerId, Frame)> + Send>;

/// What its connections share.
struct Mind {
    lie: Mutex<Lie>,
    heard: Mutex<Vec<u8>>,
    /// `None` for a peer: cut the connection.
    peers: Mutex<HashMap<PeerId, mpsc::Sender<Option<Frame>>>>,
}

struct Liar {
    url: ServerUrl,
    mind: Arc<Mind>,
    _task: JoinSet<()>,
}

impl Liar {
    async fn new(lie: impl FnMut(PeerId, Frame) -> Vec<(PeerId, Frame)> + Send + 'static) -> Self {
        let identity = Identity::generate().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = ServerUrl::new(Carrier::Natpipe, "127.0.0.1", port, identity.peer_id()).unwrap();
        let config = tls::server_config(&identity, tls::Allowed::anyone(), &[b"natpipe-rendezvous/1"]).unwrap();
        let mind = Arc::new(Mind { lie: Mutex::new(Box::new(lie)), heard: Mutex::default(), peers: Mutex::default() });
        let mut task = JoinSet::new();
        task.spawn(listen(listener, TlsAcceptor::from(config), mind.clone()));
        Self { url, mind, _task: task }
    }

    async fn peer(&self) -> (Client, PeerId) {
        let identity = Identity::generate().unwrap();
        (soon("the registration", Client::connect(&self.url, &identity)).await.unwrap(), identity.peer_id())
    }

    async fn tell(&self, peer: PeerId, frame: Option<Frame>) {
        let to = self.mind.peers.lock().unwrap()[&peer].clone();
        to.send(frame).await.unwrap();
    }
}

async fn listen(listener: TcpListener, tls: TlsAcceptor, mind: Arc<Mind>) {
    let mut sessions = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        sessions.spawn(session(stream, tls.clone(), mind.clone()));
    }
}

async fn session(stream: TcpStream, tls: TlsAcceptor, mind: Arc<Mind>) {
    let Ok(mut stream) = tls.accept(stream).await else { return };
    let peer = natpipe::key::tls::peer_of(stream.get_ref().1.peer_certificates()).unwrap();
    let (told, mut to_tell) = mpsc::channel(256);
    mind.peers.lock().unwrap().insert(peer, told);
    let mut received = BytesMut::new();
    let mut out = Vec::new();
    Frame::Welcome { version: 1, keepalive: 30, window: 1 << 20 }.write(&mut out);
    loop {
        stream.write_all(&out).await.unwrap();
        stream.flush().await.unwrap();
        out.clear();
        tokio::select! {
            frame = to_tell.recv() => match frame {
                Some(Some(frame)) => frame.write(&mut out),
                _ => return,
            },
            n = stream.read_buf(&mut received) => {
                if n.unwrap_or(0) == 0 {
                    return;
                }
                mind.heard.lock().unwrap().extend_from_slice(&received);
                while let Some(frame) = Frame::read(&mut received).unwrap() {
                    let lies = (mind.lie.lock().unwrap())(peer, frame);
                    for (to, frame) in lies {
                        let to = mind.peers.lock().unwrap().get(&to).cloned();
                        if let Some(to) = to {
                            let _ = to.send(Some(frame)).await;
                        }
                    }
                }
            }
        }
    }
}

/// Passed on as it should be.
fn honest(from: PeerId, frame: Frame) -> Option<(PeerId, RawPeer, Bytes)> {
    match frame {
        Frame::Signal { peer, sealed } => Some((PeerId::from_bytes(peer).unwrap(), *from.as_bytes(), sealed)),
        _ => None,
    }
}

fn passed((to, peer, sealed): (PeerId, RawPeer, Bytes)) -> (PeerId, Frame) {
    (to, Frame::Signal { peer, sealed })
}

/// Does something to the n-th signal, and passes on the others.
fn at_signal(
    n: usize,
    mut lie: impl FnMut(&mut Vec<(PeerId, Frame)>) + Send + 'static,
) -> impl FnMut(PeerId, Frame) -> Vec<(PeerId, Frame)> + Send + 'static {
    let mut count = 0;
    move |from, frame| {
        let Some(signal) = honest(from, frame) else { return Vec::new() };
        count += 1;
        let mut out = vec![passed(signal)];
        if count == n {
            lie(&mut out);
        }
        out
    }
}

#[tokio::test]
async fn the_server_sees_no_word_of_what_is_said() {
    let liar = Liar::new(|from, frame| honest(from, frame).map(passed).into_iter().collect()).await;
    let ((ann, _), (bob, to_bob)) = (liar.peer().await, liar.peer().await);
    let signal = ann.signal(to_bob).unwrap();
    let secret = "the address is 192.0.2.77 and the password is swordfish";
    signal.send(secret).await.unwrap();
    let heard = soon("the conversation", bob.accept()).await.unwrap();
    assert_eq!(soon("the message", heard.recv()).await.unwrap(), secret);
    heard.send(secret).await.unwrap();
    assert_eq!(soon("the answer", signal.recv()).await.unwrap(), secret);
    let seen = liar.mind.heard.lock().unwrap();
    assert!(seen.len() > 2 * secret.len());
    assert!(!seen.windows(8).any(|part| secret.as_bytes().windows(8).any(|word| word == part)));
}

#[tokio::test]
async fn a_changed_message_is_left_out_and_its_loss_is_noticed() {
    // The first signal begins the conversation.
    let changing = at_signal(3, |out| {
        let Frame::Signal { sealed, .. } = &mut out[0].1 else { return };
        let mut bytes = sealed.to_vec();
        let last = bytes.len() - 20;
        bytes[last] ^= 1;
        *sealed = bytes.into();
    });
    the_second_message_is_lost(Liar::new(changing).await).await;
}

#[tokio::test]
async fn a_dropped_message_is_noticed() {
    the_second_message_is_lost(Liar::new(at_signal(3, Vec::clear)).await).await;
}

async fn the_second_message_is_lost(liar: Liar) {
    let ((ann, _), (bob, to_bob)) = (liar.peer().await, liar.peer().await);
    let signal = ann.signal(to_bob).unwrap();
    for message in ["one", "two", "three"] {
        signal.send(message).await.unwrap();
    }
    let heard = soon("the conversation", bob.accept()).await.unwrap();
    assert_eq!(soon("a message", heard.recv()).await.unwrap(), "one");
    assert_eq!(soon("the loss", heard.recv()).await, Err(SignalError::Lost));
}

#[tokio::test]
async fn what_comes_twice_is_heard_once() {
    let doubling = |from, frame| {
        honest(from, frame).into_iter().flat_map(|signal| [passed(signal.clone()), passed(signal)]).collect()
    };
    let liar = Liar::new(doubling).await;
    let ((ann, _), (bob, to_bob)) = (liar.peer().await, liar.peer().await);
    let signal = ann.signal(to_bob).unwrap();
    let mut heard = None;
    for n in 0..20_u8 {
        signal.send([n]).await.unwrap();
        if heard.is_none() {
            heard = Some(soon("the conversation", bob.accept()).await.unwrap());
        }
        assert_eq!(soon("a message", heard.as_ref().unwrap().recv()).await.unwrap(), [n][..]);
    }
    let second = tokio::time::timeout(Duration::from_millis(100), bob.accept()).await;
    assert!(second.is_err(), "one conversation only: {second:?}");
}

#[tokio::test]
async fn nobody_is_taken_for_somebody_else() {
    let somebody_else = Identity::generate().unwrap().peer_id();
    let renaming = move |from: PeerId, frame| {
        let renamed = |(to, _, sealed)| (to, Frame::Signal { peer: *somebody_else.as_bytes(), sealed });
        honest(from, frame).into_iter().flat_map(|signal| [renamed(signal.clone()), passed(signal)]).collect()
    };
    let liar = Liar::new(renaming).await;
    let ((ann, from_ann), (bob, to_bob)) = (liar.peer().await, liar.peer().await);
    let signal = ann.signal(to_bob).unwrap();
    signal.send("it is me").await.unwrap();
    let heard = soon("the conversation", bob.accept()).await.unwrap();
    assert_eq!((heard.peer(), soon("the message", heard.recv()).await.unwrap()), (from_ann, "it is me".into()));
}

#[tokio::test]
async fn a_server_that_sends_more_than_it_may_is_left_and_tried_again() {
    let flooding = |from, frame| match frame {
        Frame::Open { channel, .. } => {
            vec![(from, Frame::Data { channel, bytes: vec![0; 16_000].into() }); 100]
        }
        frame => honest(from, frame).map(passed).into_iter().collect(),
    };
    let liar = Liar::new(flooding).await;
    let ((ann, _), (_bob, to_bob)) = (liar.peer().await, liar.peer().await);
    let signal = ann.signal(to_bob).unwrap();
    let mut state = ann.state();
    let mut stream = signal.relay_stream().unwrap();
    let why =
        soon("the loss", state.wait_for(|state| matches!(state, State::Connecting { .. }))).await.unwrap().clone();
    assert!(format!("{why:?}").contains("more of a stream than it may"), "{why:?}");
    assert!(soon("the end", stream.read_to_end(&mut Vec::new())).await.is_err());
    soon("the return", state.wait_for(|state| *state == State::Connected)).await.unwrap();
}

#[tokio::test]
async fn who_was_cut_off_tells_the_other_end_when_it_is_back() {
    let liar = Liar::new(|from, frame| honest(from, frame).map(passed).into_iter().collect()).await;
    let ((ann, from_ann), (bob, to_bob)) = (liar.peer().await, liar.peer().await);
    let signal = ann.signal(to_bob).unwrap();
    signal.send("hello").await.unwrap();
    let heard = soon("the conversation", bob.accept()).await.unwrap();
    assert_eq!(soon("the message", heard.recv()).await.unwrap(), "hello");
    liar.tell(from_ann, None).await;
    assert_eq!(soon("the end", heard.recv()).await, Err(SignalError::Ended));
    assert_eq!(soon("the end", signal.recv()).await, Err(SignalError::ServerLost));
}

#[tokio::test]
async fn a_conversation_that_is_played_again_is_never_live() {
    let recorded = Arc::new(Mutex::new(Vec::new()));
    let tape = recorded.clone();
    let liar = Liar::new(move |from, frame| {
        let signal = honest(from, frame);
        if let Some((to, peer, sealed)) = signal.clone() {
            tape.lock().unwrap().push((to, Frame::Signal { peer, sealed }));
        }
        signal.map(passed).into_iter().collect()
    })
    .await;
    let ((ann, _), (bob, to_bob)) = (liar.peer().await, liar.peer().await);
    let signal = ann.signal(to_bob).unwrap();
    signal.send("open the door").await.unwrap();
    let heard = soon("the conversation", bob.accept()).await.unwrap();
    assert_eq!(soon("the message", heard.recv()).await.unwrap(), "open the door");
    heard.send("who is there?").await.unwrap();
    soon("the answer", signal.recv()).await.unwrap();
    signal.send("Ann").await.unwrap();
    soon("the message", heard.recv()).await.unwrap();
    assert!(heard.is_live());
    drop((signal, heard));
    drop(ann);
    let played: Vec<_> = recorded.lock().unwrap().iter().filter(|(to, _)| *to == to_bob).cloned().collect();
    for (_, frame) in played {
        liar.tell(to_bob, Some(frame)).await;
    }
    let ghost = soon("the replay", bob.accept()).await.unwrap();
    assert_eq!(soon("the message", ghost.recv()).await.unwrap(), "open the door");
    assert!(!ghost.is_live());
    let more = tokio::time::timeout(Duration::from_millis(100), ghost.recv()).await;
    assert!(more.is_err() && !ghost.is_live(), "no more can be played: {more:?}");
}
