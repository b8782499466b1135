//! Ducts on pipes: in memory, TCP, TLS; whatever stands at the other end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use natpipe::duct::blocking::Duct;
use natpipe::duct::{AttachError, DuctOptions, Json, RecvError, SendError};
use natpipe::pipe::tls::{Identity, TlsClient, TlsServer};
use natpipe::{NetConf, Pipe, Proto, pipe_open};
use tokio::runtime::Runtime;

use crate::{BRIEF, SOON, wire};

fn on(pipe: Pipe, runtime: &Runtime) -> Duct<String> {
    Duct::over(pipe, runtime.handle(), DuctOptions::new().timeout(SOON), Json).unwrap()
}

#[track_caller]
fn talk(a: &Duct<String>, b: &Duct<String>) {
    for text in ["hello!".to_owned(), String::new(), "x".repeat(50_000)] {
        a.send(&text).unwrap();
        assert_eq!(b.recv().unwrap(), text);
        b.send(&text).unwrap();
        assert!(a.poll(SOON).unwrap());
        assert_eq!(a.recv().unwrap(), text);
    }
    assert!(!a.poll(BRIEF).unwrap());
    assert!(matches!(a.recv_within(BRIEF), Err(RecvError::TimedOut { .. })));
    (0..500).for_each(|n| a.send(&n.to_string()).unwrap());
    (0..500).for_each(|n| assert_eq!(b.recv().unwrap(), n.to_string()));
}

#[test]
fn a_duct_works_on_a_pipe_in_memory() {
    let runtime = Runtime::new().unwrap();
    let (a, b) = runtime.block_on(async { Pipe::pair(1 << 20, NetConf::default()).unwrap() });
    let (a, b) = (on(a, &runtime), on(b, &runtime));
    talk(&a, &b);
    assert!(a.descriptor().is_none());
    let error = a.send_with_descriptors(&"x".into(), &[]).unwrap_err();
    assert!(matches!(error, SendError::Descriptors { .. }));
    b.close();
    assert!(matches!(a.recv(), Err(RecvError::RemoteDuctClosed { inside: false })));
    assert!(matches!(b.recv(), Err(RecvError::NotConnected)));
}

#[test]
fn a_duct_works_on_a_tls_pipe() {
    let runtime = Runtime::new().unwrap();
    let (a, b) = runtime.block_on(async {
        let identity = Identity::self_signed(&["127.0.0.1"]).unwrap();
        let serving = NetConf::default().tls_server(TlsServer::new(identity.clone()).unwrap());
        let trusting = NetConf::default().tls_client(TlsClient::trusting(&identity.root_pem()).unwrap());
        let server = pipe_open(Proto::Tcp).bind("127.0.0.1:0").conf(serving).await.unwrap();
        let client = pipe_open(Proto::Tcp).dest(server.local_addr()).conf(trusting).await.unwrap();
        let accepted = server.accept().await.unwrap();
        server.stop_listening().await;
        (accepted, client)
    });
    talk(&on(a, &runtime), &on(b, &runtime));
}

#[test]
fn the_other_end_of_the_pipe_may_be_a_bare_socket() {
    let runtime = Runtime::new().unwrap();
    let (server, address) = runtime.block_on(async {
        let server = pipe_open(Proto::Tcp).bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().ip().unwrap();
        (server, address)
    });
    let mut socket = TcpStream::connect(address).unwrap();
    let duct = on(runtime.block_on(server.accept()).unwrap(), &runtime);
    let bytes = [wire(b"\"one\""), wire(b"\"two\"")].concat();
    socket.write_all(&bytes[..3]).unwrap();
    assert!(!duct.poll(BRIEF).unwrap(), "what came stays");
    socket.write_all(&bytes[3..]).unwrap();
    assert_eq!((duct.recv().unwrap(), duct.recv().unwrap()), ("one".into(), "two".into()));
    duct.send(&"three".into()).unwrap();
    let mut got = [0; 12];
    socket.read_exact(&mut got).unwrap();
    assert_eq!(got[..], wire(b"\"three\""));
    socket.write_all(&bytes[..7]).unwrap();
    drop(socket);
    assert!(matches!(duct.recv(), Err(RecvError::RemoteDuctClosed { inside: true })));
}

#[test]
fn halves_work_on_a_pipe_from_two_threads() {
    let runtime = Runtime::new().unwrap();
    let (a, b) = runtime.block_on(async { Pipe::pair(1000, NetConf::default()).unwrap() });
    let (a, b) = (on(a, &runtime), on(b, &runtime));
    let (sender, receiver) = a.split();
    thread::scope(|scope| {
        scope.spawn(|| (0..200).for_each(|n| sender.send(&"x".repeat(n)).unwrap()));
        scope.spawn(|| (0..200).for_each(|n| b.send(&"y".repeat(n)).unwrap()));
        scope.spawn(|| (0..200).for_each(|n| assert_eq!(receiver.recv().unwrap().len(), n)));
        scope.spawn(|| (0..200).for_each(|n| assert_eq!(b.recv().unwrap().len(), n)));
    });
}

#[test]
fn a_pipe_of_datagrams_is_refused() {
    let runtime = Runtime::new().unwrap();
    let pipe = runtime.block_on(async { pipe_open(Proto::Udp).bind("127.0.0.1:0").await.unwrap() });
    let error = Duct::<u8, _>::over(pipe, runtime.handle(), DuctOptions::new(), Json).unwrap_err();
    assert!(matches!(error, AttachError::Datagrams { .. }), "{error}");
}
