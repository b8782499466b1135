//! What must hold of any bytes on a WebSocket: the messages are those of a plain reading of RFC 6455 section 5, up to the first
//! fault, however the stream is cut; and a request is granted or not, however it is cut.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use natpipe::frame::ws::{Conf, Incoming, Message, Role, UpgradeError, WebSocket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};

const LIMIT: usize = 3000;

#[derive(Debug, PartialEq)]
enum Said {
    Binary(Vec<u8>),
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close,
    Fault,
}

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
}

/// The first byte of the input says how the rest is cut, and which end reads. Returns how many messages came.
pub fn frames(input: &[u8]) -> usize {
    let Some((how, bytes)) = input.split_first() else { return 0 };
    let (role, cut) = (if how & 1 == 0 { Role::Server } else { Role::Client }, 1 + usize::from(how >> 1) * 8);
    let said = RUNTIME.with(|runtime| runtime.block_on(read(bytes, cut, role)));
    assert_eq!(said, plain(bytes, role));
    said.iter().filter(|said| **said != Said::Fault).count()
}

async fn read(bytes: &[u8], cut: usize, role: Role) -> Vec<Said> {
    let conf = Conf::default().max_message(LIMIT);
    let mut socket = WebSocket::after_upgrade(Cut::new(bytes, cut), &b""[..], role, &conf).await;
    let mut said = Vec::new();
    while let Some(next) = socket.next().await {
        said.push(match next {
            Ok(Message::Binary(data)) => Said::Binary(data.to_vec()),
            Ok(Message::Text(text)) => Said::Text(text),
            Ok(Message::Ping(data)) => Said::Ping(data.to_vec()),
            Ok(Message::Pong(data)) => Said::Pong(data.to_vec()),
            Ok(Message::Close(_)) => Said::Close,
            Ok(other) => panic!("{other:?}"),
            Err(_) => Said::Fault,
        });
    }
    said
}

/// One frame in the plainest way, unmasked.
struct Frame<'a> {
    head: u8,
    payload: Vec<u8>,
    rest: &'a [u8],
}

fn frame(bytes: &[u8], role: Role) -> Option<Frame<'_>> {
    let [head, second, rest @ ..] = bytes else { return None };
    let (len, rest) = match second & 0x7f {
        126 => rest.split_first_chunk().map(|(len, rest)| (u64::from(u16::from_be_bytes(*len)), rest))?,
        127 => rest.split_first_chunk().map(|(len, rest)| (u64::from_be_bytes(*len), rest))?,
        len => (u64::from(len), rest),
    };
    let masked = second & 0x80 != 0;
    if masked != (role == Role::Server) || len > LIMIT as u64 {
        return None;
    }
    let (mask, rest) = if masked { rest.split_first_chunk().map(|(m, r)| (*m, r))? } else { ([0; 4], rest) };
    let (payload, rest) = rest.split_at_checked(len as usize)?;
    let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    Some(Frame { head: *head, payload, rest })
}

fn plain(mut bytes: &[u8], role: Role) -> Vec<Said> {
    let mut said = Vec::new();
    // The message that is begun, and whether it is text.
    let mut open: Option<(bool, Vec<u8>)> = None;
    while let Some(Frame { head, payload, rest }) = frame(bytes, role) {
        bytes = rest;
        let (fin, opcode) = (head & 0x80 != 0, head & 0x0f);
        if head & 0x70 != 0 || (opcode >= 8 && (!fin || payload.len() > 125)) {
            break;
        }
        let part = match (opcode, open.take()) {
            (0, Some((text, mut begun))) => {
                begun.extend_from_slice(&payload);
                (text, begun)
            }
            (1 | 2, None) => (opcode == 1, payload),
            (8, _) => {
                let good = payload.is_empty() || (payload.len() > 1 && std::str::from_utf8(&payload[2..]).is_ok());
                if good {
                    said.push(Said::Close);
                    return said;
                }
                break;
            }
            (9 | 10, begun) => {
                said.push(if opcode == 9 { Said::Ping(payload) } else { Said::Pong(payload) });
                open = begun;
                continue;
            }
            _ => break,
        };
        let (text, data) = part;
        // What can not become UTF-8 any more is a fault at once.
        let unfit = text && std::str::from_utf8(&data).is_err_and(|error| fin || error.error_len().is_some());
        if unfit || data.len() > LIMIT {
            break;
        }
        match (fin, text) {
            (false, _) => open = Some((text, data)),
            (true, true) => said.push(Said::Text(String::from_utf8(data).expect("it was looked at"))),
            (true, false) => said.push(Said::Binary(data)),
        }
    }
    said.push(Said::Fault);
    said
}

/// A request is granted, or not, however it is cut; who is refused has been answered. True when it was granted.
pub fn request(input: &[u8]) -> bool {
    let whole = asked(input, input.len().max(1));
    for cut in [1, 7, 100] {
        let (granted, rest) = (asked(input, cut).0, &whole.0);
        assert_eq!(&granted, rest, "in parts of {cut}");
    }
    if whole.1 {
        assert!(whole.2.starts_with(b"HTTP/1.1 4") || whole.2.starts_with(b"HTTP/1.1 505"));
    }
    whole.0.is_some()
}

/// The path and how many headers, where it can be granted; whether it was refused; what was answered.
fn asked(input: &[u8], cut: usize) -> (Option<(String, usize)>, bool, Vec<u8>) {
    let mut stream = Cut::new(input, cut);
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (granted, refused) = match Incoming::read(&mut stream, &Conf::default()).await {
                Ok(incoming) => {
                    let request = incoming.request();
                    (Some((request.uri().to_string(), request.headers().len())), false)
                }
                Err(error) => (None, matches!(error, UpgradeError::Refused(_))),
            };
            (granted, refused, stream.written)
        })
    })
}

/// Gives bytes in parts, and takes everything.
struct Cut {
    bytes: Vec<u8>,
    at: usize,
    cut: usize,
    written: Vec<u8>,
}

impl Cut {
    fn new(bytes: &[u8], cut: usize) -> Self {
        Self { bytes: bytes.to_vec(), at: 0, cut, written: Vec::new() }
    }
}

impl AsyncRead for Cut {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let end = (self.at + self.cut.min(buf.remaining())).min(self.bytes.len());
        buf.put_slice(&self.bytes[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Cut {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.written.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
