//! `natpipe send` and `natpipe recv`, alone, together, and killed over and over.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use natpipe::smart::{Delivery, Limits, Reconnect, Resend, SmartSocket};

use crate::{Running, natpipe, text};

fn feed(args: &[&str], input: &[u8]) -> Child {
    let mut child = natpipe(args).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child
}

/// What a command that ends by itself has written.
fn output(running: &mut Running) -> String {
    let out = running.child.stdout.take().unwrap();
    let read: Vec<String> = BufReader::new(out).lines().map(Result::unwrap).collect();
    assert_eq!(running.status(), 0);
    read.join("|")
}

#[test]
fn lines_are_messages_in_order() {
    let mut receiver = Running::listening(&["recv", "tcp-listen:0", "--count", "3"]);
    let to = format!("tcp:{}", receiver.local);
    let sender = feed(&["send", &to], b"one\n\nthe last has no newline");
    assert_eq!(output(&mut receiver), "one||the last has no newline");
    let sent = sender.wait_with_output().unwrap();
    assert!(sent.status.success(), "{}", text(&sent.stderr));
}

#[test]
fn lengths_carry_any_bytes() {
    let mut receiver = Running::listening(&["recv", "tcp-listen:0", "--count", "2", "--framing", "length"]);
    let to = format!("tcp:{}", receiver.local);
    let messages = b"\0\0\0\x03a\nb\0\0\0\0";
    let mut sender = feed(&["send", &to, "--framing", "length", "--delivery", "at-least-once"], messages);
    assert!(sender.wait().unwrap().success());
    let mut got = Vec::new();
    std::io::Read::read_to_end(&mut receiver.child.stdout.take().unwrap(), &mut got).unwrap();
    assert_eq!(got, messages);
}

#[test]
fn published_lines_go_to_all_and_topics_are_chosen() {
    let (mut news, mut all) = (
        Running::listening(&["recv", "tcp-listen:0", "--count", "2", "--topic", "news."]),
        Running::listening(&["recv", "tcp-listen:0", "--count", "3", "--with-identity"]),
    );
    let to = [format!("tcp:{}", news.local), format!("tcp:{}", all.local)];
    let who = "000102030405060708090a0b0c0d0e0f";
    let args = ["send", &to[0], &to[1], "--mode", "publish", "--peers", "2", "--identity", who];
    let mut sender = feed(&args, b"news.1\nsport.1\nnews.2\n");
    assert_eq!(output(&mut news), "news.1|news.2");
    assert_eq!(output(&mut all), format!("{who} news.1|{who} sport.1|{who} news.2"));
    assert!(sender.wait().unwrap().success());
}

#[test]
fn by_identity_only_the_one_that_is_named_gets_it() {
    let names = ["11111111111111111111111111111111", "22222222222222222222222222222222"];
    let at = |name| Running::listening(&["recv", "tcp-listen:0", "--count", "1", "--identity", name]);
    let (first, mut second) = (at(names[0]), at(names[1]));
    let to = [format!("tcp:{}", first.local), format!("tcp:{}", second.local)];
    let args = ["send", &to[0], &to[1], "--mode", "identity", "--to", names[1], "--peers", "2"];
    let mut sender = feed(&args, b"for the second\n");
    assert_eq!(output(&mut second), "for the second");
    assert!(sender.wait().unwrap().success());
    drop(first);
}

#[test]
fn what_can_not_be_delivered_is_a_failure_and_wrong_usage_is_said() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let to = format!("tcp:{nobody}");
    let failed = feed(&["send", &to, "--linger", "0.1"], b"to nobody\n").wait_with_output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stderr).contains("1 messages undelivered"), "{}", text(&failed.stderr));
    let udp = feed(&["recv", "udp-listen:0"], b"").wait_with_output().unwrap();
    assert!(text(&udp.stderr).contains("need a stream"), "{}", text(&udp.stderr));
    for wrong in [&["send"][..], &["send", &to, "--mode", "identity"], &["send", &to, "--to", "xyz"]] {
        assert_eq!(natpipe(wrong).output().unwrap().status.code(), Some(2), "{wrong:?}");
    }
}

/// A receiving process, whose whole lines go to the test; it may be killed at any moment.
struct Consumer {
    child: Child,
    bound: bool,
}

impl Consumer {
    fn start(bound: bool, at: &str, lines: &Sender<String>) -> Self {
        let spec = if bound { format!("tcp-listen:{at}") } else { format!("tcp:{at}") };
        let mut child = natpipe(&["recv", &spec]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (mut out, lines) = (BufReader::new(child.stdout.take().unwrap()), lines.clone());
        std::thread::spawn(move || {
            let mut line = String::new();
            // A line without its end was being written when the process was killed: it does not count.
            while out.read_line(&mut line).is_ok_and(|read| read > 0) && line.ends_with('\n') {
                if lines.send(line.trim_end().to_owned()).is_err() {
                    return;
                }
                line.clear();
            }
        });
        Self { child, bound }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for lines until `enough` of them were seen.
fn collect(lines: &Receiver<String>, seen: &mut BTreeSet<u64>, enough: usize) {
    let begun = Instant::now();
    while seen.len() < enough {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} of {enough} messages arrived", seen.len());
        if let Ok(line) = lines.recv_timeout(Duration::from_millis(100)) {
            seen.insert(line.parse().unwrap());
        }
    }
}

#[test]
fn processes_that_are_killed_a_hundred_times_lose_no_message() {
    const KILLS: usize = 100;
    const EACH: u64 = 200;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    // One consumer connects to the producer, the other one is bound and is connected to.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (producer, local) = runtime.block_on(async {
        let quick = Reconnect::exponential(Duration::from_millis(10), Duration::from_millis(100));
        let resend = Resend { after: Duration::from_millis(500), tries: u32::MAX, within: None };
        let producer = SmartSocket::builder()
            .delivery(Delivery::AtLeastOnce)
            .resend(resend)
            .reconnect(quick)
            .send_limits(Limits { messages: 1000, bytes: 1 << 20 })
            .build()
            .unwrap();
        let local = producer.bind("127.0.0.1:0").await.unwrap().to_string();
        producer.connect(port.as_str()).unwrap();
        (producer, local)
    });
    let (told, lines) = channel();
    let mut consumers = [Consumer::start(false, &local, &told), Consumer::start(true, &port, &told)];
    let sending = {
        let producer = producer.clone();
        runtime.spawn(async move {
            for n in 0..KILLS as u64 * EACH {
                producer.send(n.to_string()).await.unwrap();
            }
        })
    };
    let mut seen = BTreeSet::new();
    for kill in 0..KILLS {
        // Each time some of them have arrived, and many are on their way.
        collect(&lines, &mut seen, (kill + 1) * EACH as usize / 2);
        let victim = &mut consumers[kill % 2];
        let bound = victim.bound;
        // The old one is dead before the new one takes its place.
        victim.child.kill().unwrap();
        victim.child.wait().unwrap();
        *victim = Consumer::start(bound, if bound { &port } else { &local }, &told);
    }
    collect(&lines, &mut seen, KILLS * EACH as usize);
    assert!(seen.iter().copied().eq(0..KILLS as u64 * EACH));
    runtime.block_on(sending).unwrap();
    runtime.block_on(producer.close()).unwrap();
    assert!(producer.counters().resent > 0, "nothing was on its way when a process was killed");
}
