//! `natpipe punch` as people and programs use it: two commands behind two home routers, and no server that knows of them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use natpipe::lab::{Host, Internet, Kind, Link};
use serde_json::Value;

use super::punch::{Middle, middle};

/// A command in a host, whose events are read one by one.
struct Told {
    child: Child,
    events: BufReader<ChildStderr>,
}

impl Told {
    fn start(host: &Host, middle: &Middle, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_natpipe"));
        command.arg("punch").arg("--json").args(args);
        command.args(middle.stun.iter().flat_map(|server| ["--stun".to_owned(), server.to_string()]));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = host.start(&mut command).unwrap();
        let events = BufReader::new(child.stderr.take().unwrap());
        Self { child, events }
    }

    /// The next event of this name; others are passed over. A sentence that is no event is what it failed with.
    fn event(&mut self, name: &str) -> Value {
        loop {
            let mut line = String::new();
            assert_ne!(self.events.read_line(&mut line).unwrap(), 0, "it ended without `{name}`");
            let event: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("it failed: {line}"));
            if event["event"] == name {
                return event;
            }
        }
    }

    fn say(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Ends its input, and waits for what it writes and how it ends.
    fn out(&mut self) -> (Vec<u8>, bool) {
        drop(self.child.stdin.take());
        let mut out = Vec::new();
        self.child.stdout.take().unwrap().read_to_end(&mut out).unwrap();
        (out, self.child.wait().unwrap().success())
    }

    /// The sentence that it fails with, within the limit.
    fn fails(&mut self, limit: Duration) -> String {
        let begun = Instant::now();
        let mut last = String::new();
        for line in (&mut self.events).lines() {
            last = line.unwrap();
        }
        assert_eq!(self.child.wait().unwrap().code(), Some(1), "{last}");
        assert!(begun.elapsed() < limit, "it took {:?}: {last}", begun.elapsed());
        last
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        // One that has ended can not be ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn data(len: u32) -> Vec<u8> {
    (0..len).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Both directions to the last byte, through the hole.
fn carries(mut a: Told, mut b: Told, proto: &str) {
    let [one, other] = [&mut a, &mut b].map(|end| end.event("punched"));
    for event in [&one, &other] {
        assert_eq!(event["proto"], proto);
        assert!(event["attempts"].as_u64().unwrap() > 0, "{event}");
        assert!(event["plan"].as_str().unwrap().contains("keep their ports"), "{event}");
    }
    println!("{one}\n{other}");
    let (there, back) = (data(2_000_003), data(300_007));
    std::thread::scope(|scope| {
        for (end, bytes) in [(&mut a, &there), (&mut b, &back)] {
            let mut input = end.child.stdin.take().unwrap();
            scope.spawn(move || input.write_all(bytes).unwrap());
        }
        let [at_a, at_b] = [&mut a, &mut b].map(|end| scope.spawn(|| end.out()));
        assert!(at_b.join().unwrap() == (there.clone(), true), "every byte arrives at the one end");
        assert!(at_a.join().unwrap() == (back.clone(), true), "and at the other");
    });
}

fn two_homes() -> (Internet, Middle, Host, Host) {
    let internet = Internet::with_link(Link::steady(Duration::from_millis(10)), 1).unwrap();
    let middle = middle(&internet);
    let (a, b) = (internet.behind(Kind::Home).unwrap(), internet.behind(Kind::Home).unwrap());
    (internet, middle, a, b)
}

/// Each end's line is pasted at the other, the second some time after the first.
fn by_hand(proto: &str, pause: Duration) {
    let (_internet, middle, a, b) = two_homes();
    let mut ends = [&a, &b].map(|host| Told::start(host, &middle, &["--manual", "--proto", proto]));
    let lines = [0, 1].map(|end| ends[end].event("line")["line"].as_str().unwrap().to_owned());
    assert!(lines.iter().all(|line| line.len() < 400), "{lines:?}");
    ends[0].say(&format!("{}\n", lines[1]));
    std::thread::sleep(pause);
    ends[1].say(&format!("\n{}\n", lines[0]));
    let [a, b] = ends;
    carries(a, b, proto);
}

#[test]
fn two_people_paste_their_lines_and_have_a_pipe_over_udp() {
    by_hand("udp", Duration::from_secs(3));
}

#[test]
fn two_people_paste_their_lines_and_have_a_pipe_over_tcp() {
    by_hand("tcp", Duration::from_secs(3));
}

#[test]
fn a_line_that_is_none_and_our_own_line_are_refused() {
    let (_internet, middle, a, _) = two_homes();
    let mut end = Told::start(&a, &middle, &["--manual"]);
    let line = end.event("line")["line"].as_str().unwrap().to_owned();
    end.say(&format!("{line}\n"));
    assert!(end.fails(Duration::from_secs(5)).contains("our own line"));
    for (wrong, why) in [("hello", "no line"), (&line[..60], "changed or cut off")] {
        let mut end = Told::start(&a, &middle, &["--manual"]);
        end.event("line");
        end.say(&format!("{wrong}\n"));
        let said = end.fails(Duration::from_secs(5));
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn who_never_pastes_ends_the_other_in_bounded_time() {
    let (_internet, middle, a, b) = two_homes();
    let mut silent = Told::start(&b, &middle, &["--manual"]);
    let line = silent.event("line")["line"].as_str().unwrap().to_owned();
    let mut end = Told::start(&a, &middle, &["--manual", "--wait", "2"]);
    end.event("line");
    end.say(&format!("{line}\n"));
    let said = end.fails(Duration::from_secs(10));
    assert!(said.contains("nothing came through over UDP within 2s") && said.contains("packets sent"), "{said}");
}

/// Both meet at a third party, which joins them and sees no data.
fn through(proto: &str) {
    let (_internet, middle, a, b) = two_homes();
    let doors = middle.doors.map(|door| format!("tcp:{door}"));
    let [a, b] = [(&a, &doors[0]), (&b, &doors[1])]
        .map(|(host, door)| Told::start(host, &middle, &["--through", door, "--proto", proto]));
    carries(a, b, proto);
}

#[test]
fn through_a_third_party_two_commands_have_a_pipe_over_udp() {
    through("udp");
}

#[test]
fn through_a_third_party_two_commands_have_a_pipe_over_tcp() {
    through("tcp");
}

/// One end is behind a router, and the other listens for it.
#[test]
fn straight_through_a_stream_to_the_other_end_as_well() {
    let (internet, middle, a, _) = two_homes();
    let open = internet.host("open").unwrap();
    let listens = format!("tcp-listen:{}:7000", open.v4().unwrap());
    let connects = listens.replace("-listen", "");
    let mut b = Told::start(&open, &middle, &["--through", &listens, "--proto", "udp"]);
    b.event("listening");
    let a = Told::start(&a, &middle, &["--through", &connects, "--proto", "udp"]);
    carries(a, b, "udp");
}

/// A third party that says nothing, breaks off, or is somebody else.
#[test]
fn a_channel_that_breaks_in_the_middle_is_told_in_bounded_time() {
    let (internet, middle, a, _) = two_homes();
    let third = internet.host("third").unwrap();
    let listener = third.run(|| std::net::TcpListener::bind((third.v4().unwrap(), 0))).unwrap();
    let door = format!("tcp:{}", SocketAddr::from((third.v4().unwrap(), listener.local_addr().unwrap().port())));
    // What it says before it breaks off: nothing, garbage, or its own key and then half a greeting.
    let key = natpipe::Identity::generate().unwrap().peer_id();
    let introduction = [&[0, 47][..], b"natpipe-hole/1 ", key.as_bytes()].concat();
    let greeting = [&introduction[..], &[0, 200, 3, 1]].concat();
    for (said, why) in [
        (&b""[..], "broke while the keys were exchanged"),
        (b"\x00\x05hello", "is no `natpipe punch`"),
        (b"\xff\xffhello", "broke while the keys were exchanged"),
        (&introduction, "broke while awaiting the peer"),
        (&greeting, "broke while awaiting the peer"),
    ] {
        let mut end = Told::start(&a, &middle, &["--through", &door]);
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(said).unwrap();
        // It hears us first: a reset would overtake what we say.
        stream.read_exact(&mut [0; 49]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let told = end.fails(Duration::from_secs(5));
        assert!(told.contains(why), "{why}: {told}");
    }
    let mut end = Told::start(&a, &middle, &["--through", &door, "--wait", "1"]);
    let silent = listener.accept().unwrap();
    let told = end.fails(Duration::from_secs(10));
    assert!(told.contains("nobody came to the other end of the channel within 1s"), "{told}");
    drop(silent);
    let mut end = Told::start(&a, &middle, &["--through", &door, "--peer", &key.to_string()]);
    let (mut stream, _) = listener.accept().unwrap();
    let other = natpipe::Identity::generate().unwrap().peer_id();
    stream.write_all(&[&[0, 47][..], b"natpipe-hole/1 ", other.as_bytes()].concat()).unwrap();
    let told = end.fails(Duration::from_secs(5));
    assert!(told.contains("not the one that --peer names"), "{told}");
}
