//! `natpipe mq`: pushing, calling and consuming from a shell.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::broker::Broker;
use super::{full, natpipe, run, text, unread};

/// `mq` and what comes after it, with the shared broker and a queue.
fn mq(what: &str, queue: &str, rest: &[&str]) -> Vec<String> {
    let url = Broker::shared().url();
    let args = ["mq", what, "--url", &url, "--queue", queue];
    args.iter().chain(rest).map(|arg| (*arg).to_owned()).collect()
}

fn done(args: &[String]) -> Output {
    run(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

fn with_input(args: &[String], input: &[u8]) -> Output {
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let mut child = natpipe(&args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

#[track_caller]
fn good(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    text(&output.stdout)
}

/// A consumer that runs beside the test.
struct Consumer(Child);

impl Consumer {
    fn begin(args: &[String]) -> Self {
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        Self(natpipe(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// One at a pipe of its own, when it consumes, and the arguments by which others reach it.
    fn at_a_pipe(rest: &[&str]) -> (Self, [String; 4]) {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = ["--url", &format!("pipe://127.0.0.1:{port}"), "--queue", "q"].map(str::to_owned);
        let mut consuming = natpipe(&["mq", "consume"]);
        consuming.args(&at).args(rest).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = consuming.spawn().unwrap();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut String::new()).unwrap();
        (Self(child), at)
    }

    fn signal(&self, signal: Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_is_pushed_is_consumed_a_line_each() {
    let queue = "cli lines";
    for body in ["hello", "{a: [1, null]}", "\"two\\nlines\"", "42"] {
        good(done(&mq("push", queue, &[body])));
    }
    good(with_input(&mq("push", queue, &[]), b"from: standard input\n"));
    let lines = good(done(&mq("consume", queue, &["--count", "5"])));
    assert_eq!(lines, "hello\n{a: [1, null]}\n\"two\\nlines\"\n42\n{from: standard input}\n");
}

#[test]
fn bodies_have_the_format_that_is_asked_for() {
    let queue = "cli formats";
    good(done(&mq("push", queue, &["--set", "format=json", "{\"a\": 1}"])));
    good(done(&mq("push", queue, &["--set", "format=msgpack", "{a: 2}"])));
    good(with_input(&mq("push", queue, &["--set", "format=raw"]), b"\xff{raw"));
    let output = done(&mq("consume", queue, &["--count", "3", "--json", "--set", "format=raw"]));
    assert_eq!(good(output), "{\"a\":1}\n{\"a\":2}\n[255,123,114,97,119]\n");
    let refused = done(&mq("push", queue, &["--set", "format=json", "{no json"]));
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("no JSON"), "{refused:?}");
}

#[test]
fn a_command_answers_calls_and_its_exit_status_tells_errors_apart() {
    let queue = "cli exec";
    let command = "read word; case $word in bad) echo never >&2; exit 65;; ill) echo later >&2; exit 1;; *) echo \"got $word\";; esac";
    let consumer = Consumer::begin(&mq("consume", queue, &["--exec", command, "--set", "prefetch=4"]));
    let call = |body: &str| done(&mq("call", queue, &[body]));
    assert_eq!(good(call("this")), "got this\n");
    assert_eq!(good(with_input(&mq("call", queue, &["--json"]), b"that")), "\"got that\"\n");
    for (body, said) in [("bad", "[400] never"), ("ill", "[500] later")] {
        let output = call(body);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(said), "{output:?}");
    }
    consumer.signal(Signal::SIGKILL);
    let late = done(&mq("call", queue, &["--set", "timeout=0.2", "nobody"]));
    assert_eq!(late.status.code(), Some(1));
    assert!(text(&late.stderr).contains("within 200ms"), "{late:?}");
}

#[test]
fn ctrl_c_lets_it_finish_what_it_has_in_hand() {
    let queue = "cli graceful";
    let folder = std::env::temp_dir().join(format!("natpipe-mq-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (begun, go) = (folder.join("begun"), folder.join("go"));
    let command =
        format!("touch {}; while [ ! -e {} ]; do sleep 0.02; done; echo finished", begun.display(), go.display());
    let mut consumer = Consumer::begin(&mq("consume", queue, &["--exec", &command]));
    let args = mq("call", queue, &["x"]);
    let caller = std::thread::spawn(move || done(&args));
    while !begun.exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    consumer.signal(Signal::SIGINT);
    std::fs::write(go, "").unwrap();
    assert_eq!(good(caller.join().unwrap()), "finished\n");
    assert_eq!(consumer.0.wait().unwrap().code(), Some(0));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn who_is_stopped_before_the_count_has_the_status_of_the_signal() {
    for (rest, status) in [(&[][..], 0), (&["--count", "1"], 143)] {
        let (mut consumer, _) = Consumer::at_a_pipe(rest);
        consumer.signal(Signal::SIGTERM);
        assert_eq!(consumer.0.wait().unwrap().code(), Some(status), "{rest:?}");
    }
}

#[test]
fn a_second_signal_cuts_off_what_is_in_hand_and_its_status_tells() {
    let begun = std::env::temp_dir().join(format!("natpipe-mq-twice-{}", std::process::id()));
    let (mut consumer, at) = Consumer::at_a_pipe(&["--exec", &format!("touch {}; exec sleep 60", begun.display())]);
    good(natpipe(&["mq", "push", "x"]).args(&at).output().unwrap());
    while !begun.exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    while consumer.0.try_wait().unwrap().is_none() {
        consumer.signal(Signal::SIGINT);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(consumer.0.wait().unwrap().code(), Some(130));
    std::fs::remove_file(begun).unwrap();
}

#[test]
fn an_output_that_takes_no_more_is_a_failure_and_loses_no_message() {
    let queue = "cli full";
    good(done(&mq("push", queue, &["kept"])));
    let consume = |rest: &[&str], output: Stdio| {
        let args = mq("consume", queue, rest);
        natpipe(&args.iter().map(String::as_str).collect::<Vec<_>>()).stdout(output).output().unwrap()
    };
    for rest in [&[][..], &["--count", "1"]] {
        let full = consume(rest, full());
        let said = text(&full.stderr);
        assert_eq!(full.status.code(), Some(1), "{rest:?}: {said}");
        assert!(said.contains("natpipe: standard output cannot be written: No space left"), "{said}");
    }
    // Who reads no more has all that it wanted.
    let gone = consume(&["--count", "1"], unread());
    assert!(gone.status.success() && !text(&gone.stderr).contains("natpipe:"), "{gone:?}");
    assert_eq!(good(done(&mq("consume", queue, &["--count", "1"]))), "kept\n");
}

#[test]
fn what_is_wrong_is_said_in_a_line() {
    let url = Broker::shared().url();
    let of = |url: &str, rest: &[&str]| {
        let args: Vec<_> =
            ["mq", "push", "--url", url, "--queue", "q"].into_iter().chain(rest.iter().copied()).collect();
        run(&args)
    };
    let wrong = url.replace("test:test@", "test:secret@");
    for (output, said) in [
        (of(&wrong, &["x"]), "refuses the user `test`"),
        (of(&url.replace("/test", "/absent"), &["x"]), "`absent`"),
        (of("http://example.com", &["x"]), "no URL of a broker"),
        (of(&url, &["--set", "prefech=1", "x"]), "unknown key `prefech`"),
        (of(&url, &["--set", "port=0", "x"]), "`port`"),
        (of("pipe://127.0.0.1:1", &["x"]), "cannot connect to 127.0.0.1:1"),
        (of(&url, &["{no yaml"]), "no YAML"),
    ] {
        let line = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(line.contains(said) && !line.contains("secret"), "{line}");
    }
    assert_eq!(run(&["mq", "push", "--queue", "q", "x"]).status.code(), Some(2));
}

#[test]
fn two_processes_talk_over_a_pipe_with_no_broker() {
    let (_consumer, at) = Consumer::at_a_pipe(&["--exec", "tr a-z A-Z"]);
    assert_eq!(good(natpipe(&["mq", "call", "quiet"]).args(at).output().unwrap()), "QUIET\n");
}

#[test]
fn a_call_beyond_the_count_is_answered_by_nobody() {
    let folder = std::env::temp_dir().join(format!("natpipe-mq-count-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (begun, go) = (folder.join("begun"), folder.join("go"));
    let command =
        format!("touch {}; while [ ! -e {} ]; do sleep 0.02; done; echo finished", begun.display(), go.display());
    let (mut consumer, at) = Consumer::at_a_pipe(&["--count", "1", "--exec", &command, "--set", "prefetch=4"]);
    let call = |body, timeout| natpipe(&["mq", "call", body, "--set", timeout]).args(&at).output().unwrap();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| call("first", "timeout=30"));
        while !begun.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let second = call("second", "timeout=0.5");
        assert_eq!(second.status.code(), Some(1), "{second:?}");
        std::fs::write(&go, "").unwrap();
        assert_eq!(good(first.join().unwrap()), "finished\n");
    });
    assert_eq!(consumer.0.wait().unwrap().code(), Some(0));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn consumers_that_are_killed_lose_no_message() {
    const MESSAGES: usize = 3000;
    let queue = "cli killed";
    let args = mq("consume", queue, &["--set", "prefetch=20"]);
    let pusher = std::thread::spawn(move || {
        let url = Broker::shared().url();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let conf = ::natpipe::comm::Config::from_url(&url).unwrap().queue(queue);
            let producer = ::natpipe::comm::AsynchronProducer::new(&conf).await.unwrap();
            for n in 0..MESSAGES {
                producer.push_message(n as u64).await.unwrap();
            }
        });
    });
    let (mut seen, mut chance, mut kills, mut lines) = (HashSet::new(), 11_usize, 0, 0);
    while seen.len() < MESSAGES {
        let mut consumer = Consumer::begin(&args);
        let mut output = BufReader::new(consumer.0.stdout.take().unwrap()).lines();
        chance = (chance * 7919 + 13) % 900;
        for _ in 0..=chance {
            let line = output.next().expect("it has ended").unwrap();
            seen.insert(line.parse::<usize>().unwrap());
            lines += 1;
            if seen.len() == MESSAGES {
                break;
            }
        }
        consumer.signal(Signal::SIGKILL);
        kills += 1;
        // What it had printed before it died was processed as well.
        for line in output.map_while(Result::ok) {
            if let Ok(n) = line.parse::<usize>() {
                seen.insert(n);
                lines += 1;
            }
        }
    }
    pusher.join().unwrap();
    assert_eq!(seen, (0..MESSAGES).collect());
    assert!(kills > 2 && lines >= MESSAGES, "{kills} killed, {lines} lines");
}
