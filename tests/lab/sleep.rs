//! A machine that sleeps while bytes are under way: its process stands still, its NAT forgets, the other end gives its paths up;
//! when it wakes everything goes on. `NATPIPE_RUNS` says how often.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use natpipe::lab::{Host, Internet, Kind, Link};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ring::digest::{Context, SHA256};

use super::peers::meeting;

/// The other end gives a path up that owes an answer for ten seconds.
const SLEEP: Duration = Duration::from_secs(20);

const PIECE: usize = 64 << 10;
const PIECES: u32 = 600;

/// `natpipe` at one end, ended with the test.
struct End(Child);

impl End {
    fn start(host: &Host, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_natpipe"));
        command.args(args).args(["--json", "--no-public"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(host.start(&mut command).unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // One that has ended can not be ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The ticket; what else is said there is read, too, so that the process does not wait for it.
fn ticket(events: ChildStderr) -> String {
    let mut lines = BufReader::new(events).lines();
    let found = lines.by_ref().find_map(|line| {
        let event: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        Some(event["ticket"].as_str()?.to_owned())
    });
    thread::spawn(move || lines.for_each(drop));
    found.expect("a ticket")
}

/// Tells when bytes come; at the end, their sum.
fn receive(mut from: impl Read + Send + 'static) -> (mpsc::Receiver<Instant>, thread::JoinHandle<(usize, Vec<u8>)>) {
    let (tell, told) = mpsc::channel();
    let receiving = thread::spawn(move || {
        let (mut sum, mut bytes, mut buffer) = (Context::new(&SHA256), 0, vec![0; PIECE]);
        loop {
            let got = from.read(&mut buffer).unwrap();
            if got == 0 {
                return (bytes, sum.finish().as_ref().to_vec());
            }
            sum.update(&buffer[..got]);
            bytes += got;
            // The test may have seen enough.
            let _ = tell.send(Instant::now());
        }
    });
    (told, receiving)
}

/// Sends all bytes, slowly enough for something to happen in the midst of them.
fn send(mut to: impl Write + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut sum = Context::new(&SHA256);
        for at in 0..PIECES {
            let piece: Vec<u8> = (0..PIECE as u32).map(|n| (n.wrapping_mul(at | 1) >> 7) as u8).collect();
            sum.update(&piece);
            to.write_all(&piece).unwrap();
            thread::sleep(Duration::from_millis(5));
        }
        sum.finish().as_ref().to_vec()
    })
}

/// The caller or the answerer sleeps. The longest time in which nothing came after it woke.
fn goes_on_after_a_sleep(of: usize) -> Duration {
    let internet = Internet::with_link(Link::steady(Duration::from_millis(10)), 1).unwrap();
    let meeting = meeting(&internet);
    let hosts = [internet.behind(Kind::Home).unwrap(), internet.behind(Kind::Home).unwrap()];
    let (via, stun) = (meeting.url().to_string(), meeting.stun().to_string());
    let mut answerer = End::start(&hosts[1], &["listen", "--via", &via, "--stun", &stun]);
    let ticket = ticket(answerer.0.stderr.take().unwrap());
    let mut caller = End::start(&hosts[0], &["connect", &ticket, "--stun", &stun]);
    let events = caller.0.stderr.take().unwrap();
    thread::spawn(move || BufReader::new(events).lines().for_each(drop));
    let (came, receiving) = receive(answerer.0.stdout.take().unwrap());
    let sending = send(caller.0.stdin.take().unwrap());
    drop(answerer.0.stdin.take());
    for _ in 0..PIECES / 3 {
        came.recv_timeout(Duration::from_secs(30)).expect("bytes come");
    }
    let sleeper = [&caller, &answerer][of];
    sleeper.signal(Signal::SIGSTOP);
    thread::sleep(SLEEP / 2);
    let forgotten = hosts[of].router().unwrap().run(|| Command::new("conntrack").arg("-F").output());
    assert!(forgotten.unwrap().status.success());
    thread::sleep(SLEEP / 2);
    sleeper.signal(Signal::SIGCONT);
    let woke = Instant::now();
    // What was on its way may still come; all the more is there to wait for afterwards.
    let mut times = vec![woke];
    loop {
        match came.recv_timeout(Duration::from_secs(90)) {
            Ok(at) if at > woke => times.push(at),
            Ok(_) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("nothing comes, {} pieces after it woke", times.len() - 1),
        }
    }
    let (bytes, got) = receiving.join().unwrap();
    assert_eq!((bytes, got), (PIECE * PIECES as usize, sending.join().unwrap()), "every byte once and in order");
    assert!(caller.0.wait().unwrap().success() && answerer.0.wait().unwrap().success());
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

fn slept(of: usize, who: &str) {
    let runs = std::env::var("NATPIPE_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(1);
    let mut seen: Vec<Duration> = (0..runs).map(|_| goes_on_after_a_sleep(of)).collect();
    seen.sort_unstable();
    let (median, worst) = (seen[seen.len() / 2], seen[seen.len() - 1]);
    println!("{who} slept: {runs} of {runs}; longest silence after waking: median {median:?}, worst {worst:?}");
}

#[test]
fn when_the_callers_machine_has_slept_the_pipe_goes_on() {
    slept(0, "the caller");
}

#[test]
fn when_the_answerers_machine_has_slept_the_pipe_goes_on() {
    slept(1, "the answerer");
}
