//! A broker of MQTT 3.1.1 that does what the test wants: the few packets that are needed, by hand.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// How it behaves.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manners {
    /// It refuses version 5, as old brokers do.
    pub(super) only_311: bool,
    /// How often each message is delivered.
    pub(super) copies: usize,
    /// Of so many messages the first is not delivered.
    pub(super) loses_one_of: usize,
    /// Delivers everything that was ever published to a topic again with each message.
    pub(super) replays: bool,
    /// Messages wait for a time that differs, and overtake each other.
    pub(super) shuffles: bool,
    /// It acknowledges nothing that is published.
    pub(super) deaf: bool,
}

#[derive(Default)]
struct Topics {
    subscribers: HashMap<String, Vec<mpsc::Sender<Vec<u8>>>>,
    kept: HashMap<String, Vec<Vec<u8>>>,
    published: usize,
}

pub(super) struct Fake {
    addr: SocketAddr,
    topics: Arc<Mutex<Topics>>,
    task: tokio::task::JoinHandle<()>,
}

impl Fake {
    pub(super) async fn new(manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let topics = Arc::new(Mutex::new(Topics::default()));
        let all = topics.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, all.clone(), manners));
            }
        });
        Self { addr, topics, task }
    }

    pub(super) fn url(&self) -> String {
        format!("mqtt://{}", self.addr)
    }

    pub(super) fn published(&self) -> usize {
        self.topics.lock().unwrap().published
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, topics: Arc<Mutex<Topics>>, manners: Manners) {
    let (mut reading, writing) = stream.into_split();
    let (give, out) = mpsc::channel(10_000);
    tokio::spawn(write(writing, out));
    while let Some((kind, body)) = packet(&mut reading).await {
        let answer = match kind >> 4 {
            1 if manners.only_311 && body[6] != 4 => vec![0x20, 2, 0, 1],
            1 if body[6] == 5 => vec![0x20, 3, 0, 0, 0],
            1 => vec![0x20, 2, 0, 0],
            8 => {
                let topic = text(&body[2..]);
                topics.lock().unwrap().subscribers.entry(topic).or_default().push(give.clone());
                vec![0x90, 3, body[0], body[1], 1]
            }
            3 => publish(kind, &body, &topics, manners),
            12 => vec![0xD0, 0],
            14 => return,
            _ => vec![],
        };
        if !answer.is_empty() && give.send(answer).await.is_err() {
            return;
        }
    }
}

async fn write(mut writing: OwnedWriteHalf, mut out: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = out.recv().await {
        if writing.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Takes a message of version 3.1.1 and delivers it as the manners want. The answer.
fn publish(kind: u8, body: &[u8], topics: &Mutex<Topics>, manners: Manners) -> Vec<u8> {
    let topic = text(body);
    let at = 2 + topic.len();
    let (id, payload) =
        if kind & 6 == 0 { (None, &body[at..]) } else { (Some([body[at], body[at + 1]]), &body[at + 2..]) };
    let mut topics = topics.lock().unwrap();
    let n = topics.published;
    topics.published += 1;
    let kept = topics.kept.entry(topic.clone()).or_default();
    kept.push(payload.to_vec());
    let mut due = vec![payload.to_vec(); manners.copies];
    if manners.replays {
        due = kept.clone();
    }
    if manners.loses_one_of > 0 && n.is_multiple_of(manners.loses_one_of) {
        due.clear();
    }
    for (at, payload) in due.into_iter().enumerate() {
        // At most once: what acknowledges is natpipe itself.
        let mut delivered = [&(topic.len() as u16).to_be_bytes()[..], topic.as_bytes(), &payload].concat();
        let mut packet = vec![0x30];
        length(delivered.len(), &mut packet);
        packet.append(&mut delivered);
        for subscriber in topics.subscribers.get(&topic).into_iter().flatten() {
            let subscriber = subscriber.clone();
            let late = if manners.shuffles { (n * 37 + at * 53) % 120 } else { 0 };
            let packet = packet.clone();
            if late == 0 {
                let _ = subscriber.try_send(packet);
                continue;
            }
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(late as u64)).await;
                let _ = subscriber.send(packet).await;
            });
        }
    }
    match id {
        Some([high, low]) if !manners.deaf => vec![0x40, 2, high, low],
        _ => vec![],
    }
}

fn text(bytes: &[u8]) -> String {
    let len = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    String::from_utf8(bytes[2..2 + len].to_vec()).unwrap()
}

fn length(mut len: usize, out: &mut Vec<u8>) {
    loop {
        let more = if len > 127 { 0x80 } else { 0 };
        out.push((len & 127) as u8 | more);
        len >>= 7;
        if more == 0 {
            return;
        }
    }
}

async fn packet(reading: &mut (impl AsyncReadExt + Unpin)) -> Option<(u8, Vec<u8>)> {
    let kind = reading.read_u8().await.ok()?;
    let (mut len, mut shift) = (0_usize, 0);
    loop {
        let byte = reading.read_u8().await.ok()?;
        len |= usize::from(byte & 127) << shift;
        shift += 7;
        if byte & 128 == 0 {
            break;
        }
    }
    let mut body = vec![0; len];
    reading.read_exact(&mut body).await.ok()?;
    Some((kind, body))
}
