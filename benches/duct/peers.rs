//! Who carries the messages: ducts, a bare socket pair with the same frames, ipc-channel, multiprocessing.Pipe.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipc_channel::ipc::{IpcOneShotServer, IpcReceiver, IpcSender, channel};
use natpipe::duct::blocking::{Duct, DuctChild, start, start_with};
use natpipe::duct::{DuctOptions, Raw};

use crate::plays::{End, Play};

/// The blocking form, raw payloads.
pub struct OurEnd(pub Duct<Bytes, Raw>, pub Bytes);

impl End for OurEnd {
    fn send(&mut self) {
        self.0.send(&self.1).unwrap();
    }

    fn recv(&mut self) {
        let got = self.0.recv().unwrap();
        assert_eq!(got.len(), self.1.len());
    }
}

pub fn duct(play: &Play) -> Duration {
    let (mut child, duct) = start_with(play.child("duct"), DuctOptions::new(), Raw).unwrap();
    let took = play.parent_plays(&mut OurEnd(duct, play.message().into()));
    assert!(child.wait().unwrap().success());
    took
}

pub fn duct_child(play: &Play) {
    let mut child = DuctChild::from_env().unwrap().codec(Raw);
    child.connect().unwrap();
    play.child_plays(&mut OurEnd(child.into_duct().unwrap(), play.message().into()));
}

/// The blocking form, strings as JSON.
struct JsonEnd(Duct<String>, String);

impl End for JsonEnd {
    fn send(&mut self) {
        self.0.send(&self.1).unwrap();
    }

    fn recv(&mut self) {
        assert_eq!(self.0.recv().unwrap().len(), self.1.len());
    }
}

pub fn json(play: &Play) -> Duration {
    let (mut child, duct) = start(play.child("json")).unwrap();
    let took = play.parent_plays(&mut JsonEnd(duct, "x".repeat(play.size)));
    assert!(child.wait().unwrap().success());
    took
}

pub fn json_child(play: &Play) {
    let mut child = DuctChild::from_env().unwrap();
    child.connect().unwrap();
    play.child_plays(&mut JsonEnd(child.into_duct().unwrap(), "x".repeat(play.size)));
}

/// A socket pair: one `write` for a frame; one `read` for a small one, two for a large one.
struct Bare {
    socket: UnixStream,
    frame: Vec<u8>,
    buf: Vec<u8>,
}

impl Bare {
    fn new(socket: UnixStream, play: &Play) -> Self {
        let mut frame = vec![0x54];
        frame.extend_from_slice(&(play.size as u32).to_be_bytes());
        frame.extend_from_slice(&play.message());
        Self { socket, buf: vec![0; frame.len()], frame }
    }
}

impl End for Bare {
    fn send(&mut self) {
        self.socket.write_all(&self.frame).unwrap();
    }

    fn recv(&mut self) {
        let mut come = 0;
        while come < self.buf.len() {
            match self.socket.read(&mut self.buf[come..]).unwrap() {
                0 => panic!("the other end is gone"),
                n => come += n,
            }
        }
        assert_eq!(self.buf[0], 0x54);
        assert_eq!(u32::from_be_bytes(self.buf[1..5].try_into().unwrap()) as usize, self.buf.len() - 5);
    }
}

pub fn bare(play: &Play) -> Duration {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut child = play.child("bare").stdin(OwnedFd::from(theirs)).spawn().unwrap();
    let took = play.parent_plays(&mut Bare::new(ours, play));
    assert!(child.wait().unwrap().success());
    took
}

pub fn bare_child(play: &Play) {
    let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    play.child_plays(&mut Bare::new(socket, play));
}

/// ipc-channel: a channel for each direction, which go to the child by a server with a name.
struct Channels(IpcSender<Vec<u8>>, IpcReceiver<Vec<u8>>, Vec<u8>);

impl End for Channels {
    fn send(&mut self) {
        self.0.send(self.2.clone()).unwrap();
    }

    fn recv(&mut self) {
        assert_eq!(self.1.recv().unwrap().len(), self.2.len());
    }
}

type Hello = (IpcSender<Vec<u8>>, IpcReceiver<Vec<u8>>);

pub fn ipc_channel(play: &Play) -> Duration {
    let (server, name) = IpcOneShotServer::<Hello>::new().unwrap();
    let mut child = play.child("ipc-channel").arg(name).spawn().unwrap();
    let (_, (sends, receives)) = server.accept().unwrap();
    let took = play.parent_plays(&mut Channels(sends, receives, play.message()));
    assert!(child.wait().unwrap().success());
    took
}

pub fn ipc_channel_child(play: &Play, name: &str) {
    let ((to_us, ours), (theirs, to_them)) = (channel().unwrap(), channel().unwrap());
    IpcSender::<Hello>::connect(name.to_owned()).unwrap().send((to_us, to_them)).unwrap();
    play.child_plays(&mut Channels(theirs, ours, play.message()));
}

pub fn multiprocessing(play: &Play) -> Duration {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/duct/mp_pipe.py");
    let mut command = Command::new("python3");
    command.args([script, play.mode, &play.size.to_string(), &play.count.to_string()]);
    let output = command.stderr(Stdio::inherit()).output().expect("python3 is installed");
    assert!(output.status.success());
    let seconds = String::from_utf8(output.stdout).unwrap();
    Duration::from_secs_f64(seconds.trim().parse().unwrap())
}

/// The async form, raw payloads, each process on a runtime of one thread.
pub fn tasks(play: &Play) -> Duration {
    on_runtime(async {
        let command = play.child("tasks");
        let (mut child, duct) = natpipe::duct::start_with(command, DuctOptions::new(), Raw).unwrap();
        let message = Bytes::from(play.message());
        duct.recv().await.unwrap();
        let begun = Instant::now();
        for _ in 0..play.count {
            duct.send(&message).await.unwrap();
            if !play.is_one_way() {
                assert_eq!(duct.recv().await.unwrap().len(), play.size);
            }
        }
        if play.is_one_way() {
            duct.recv().await.unwrap();
        }
        let took = begun.elapsed();
        assert!(child.wait().unwrap().success());
        took
    })
}

pub fn tasks_child(play: &Play) {
    on_runtime(async {
        let mut child = natpipe::duct::DuctChild::from_env().unwrap().codec(Raw);
        child.connect().await.unwrap();
        let duct = child.into_duct().unwrap();
        let message = Bytes::from(play.message());
        duct.send(&message).await.unwrap();
        for _ in 0..play.count {
            assert_eq!(duct.recv().await.unwrap().len(), play.size);
            if !play.is_one_way() {
                duct.send(&message).await.unwrap();
            }
        }
        if play.is_one_way() {
            duct.send(&message).await.unwrap();
        }
        duct.close().await;
    });
}

fn on_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}
