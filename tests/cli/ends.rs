//! How commands end: by a signal, and when what they carry breaks.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use super::peers::Told;
use super::{Running, natpipe, unread};

/// How long the goodbye of what is stopped may take before it is cut off.
const PARTING: Duration = Duration::from_secs(1);

fn send(signal: Signal, child: &Child) {
    kill(nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

/// A ticket's two ends, connected.
fn connected(listen: &[&str], connect: &[&str]) -> [Told; 2] {
    let mut listen = Told::start(&[&["listen"], listen].concat());
    let ticket = listen.event("ticket")["ticket"].as_str().unwrap().to_owned();
    let mut connect = Told::start(&[&["connect", &ticket], connect].concat());
    connect.event("path");
    [listen, connect]
}

/// How it ended, and what it said last.
fn end_of(told: &mut Told) -> (Option<i32>, String) {
    let mut said = String::new();
    told.events.read_to_string(&mut said).unwrap();
    (told.child.wait().unwrap().code(), said)
}

#[test]
fn who_is_stopped_says_goodbye_and_has_the_status_of_the_signal() {
    for (signal, status) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let heard = (0..3).any(|_| goodbye_is_heard(signal, status));
        assert!(heard, "each time it takes longer than {PARTING:?} to say goodbye");
    }
}

/// Stops who is connected: the other end sees an end. Where it does not, though there was time to tell it, this fails; where the
/// goodbye was cut off because the machine stalled, nothing is learnt: false.
fn goodbye_is_heard(signal: Signal, status: i32) -> bool {
    let [mut listen, mut connect] = connected(&["--patience", "30"], &[]);
    drop(listen.child.stdin.take());
    connect.child.stdin.as_mut().unwrap().write_all(b"half").unwrap();
    let mut half = [0; 4];
    let mut output = listen.child.stdout.take().unwrap();
    output.read_exact(&mut half).unwrap();
    let stopped = Instant::now();
    send(signal, &connect.child);
    assert_eq!(connect.child.wait().unwrap().code(), Some(status));
    let took = stopped.elapsed();
    let mut rest = Vec::new();
    output.read_to_end(&mut rest).unwrap();
    assert!(&half == b"half" && rest.is_empty());
    // Without a goodbye it waits for another path, and fails.
    let (status, said) = end_of(&mut listen);
    assert!(status == Some(0) || took >= PARTING, "no goodbye, for which {took:?} were enough: {said}");
    status == Some(0)
}

#[test]
fn stopping_is_the_end_of_what_serves_and_cuts_off_anything_else() {
    for (args, status) in [
        (&["echo", "tcp-listen:0"][..], 0),
        (&["stun-server", "--listen", "127.0.0.1:0"], 0),
        (&["recv", "tcp-listen:0"], 0),
        (&["pool", "bind", "127.0.0.1:0"], 0),
        (&["recv", "tcp-listen:0", "--count", "1"], 130),
        (&["link", "tcp-listen:0", "tcp-listen:0"], 130),
    ] {
        let mut running = Running::listening(args);
        send(Signal::SIGINT, &running.child);
        assert_eq!(running.status(), status, "{args:?}");
    }
}

#[test]
fn a_standard_error_that_nobody_reads_changes_no_status() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut fails = natpipe(&["link", &format!("tcp:{free}"), "stdio"]);
    assert_eq!(fails.stderr(unread()).status().unwrap().code(), Some(1));
    let mut serves = natpipe(&["serve", "--listen", "127.0.0.1:0"]);
    serves.env("RUST_LOG", "debug").stdout(Stdio::piped()).stderr(unread());
    let mut serves = Running { child: serves.spawn().unwrap(), local: String::new() };
    // Its sentences come after the URL: it ends with 0 only if it has outlived them.
    BufReader::new(serves.child.stdout.as_mut().unwrap()).read_line(&mut serves.local).unwrap();
    send(Signal::SIGTERM, &serves.child);
    assert_eq!(serves.status(), 0);
}

#[test]
fn one_pipe_that_comes_to_nothing_is_a_failure() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let [mut listen, _connect] = connected(&["--once", "--to", &format!("tcp:{free}")], &[]);
    let (status, said) = end_of(&mut listen);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("Connection refused"), "{said}");
}

#[test]
fn a_near_end_that_breaks_is_a_failure_at_either_side() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = format!("tcp:{}", server.local_addr().unwrap());
    // What the other end says has come: both have opened it.
    let breaks = |other: &mut Told| {
        let (mut stream, _) = server.accept().unwrap();
        other.child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    };
    let [mut listen, mut connect] = connected(&[], &["--from", &near]);
    breaks(&mut listen);
    let (status, said) = end_of(&mut connect);
    assert!(status == Some(1) && said.contains(&format!("{near} broke: connection reset")), "{said}");
    let [mut listen, mut connect] = connected(&["--once", "--to", &near], &[]);
    breaks(&mut connect);
    let (status, said) = end_of(&mut listen);
    assert!(status == Some(1) && said.contains(&format!("{near} broke: connection reset")), "{said}");
}
