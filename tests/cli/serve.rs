//! `natpipe serve`: what it prints, what it serves, and how it stops.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use natpipe::key::ServerUrl;
use natpipe::rendezvous::{Client, State};
use natpipe::{Identity, stun};

use super::{natpipe, run, text};

struct Serving {
    child: Child,
    event: serde_json::Value,
    /// Kept open: the server must not fail to write.
    _stdout: BufReader<std::process::ChildStdout>,
}

impl Serving {
    fn new(args: &[&str]) -> Self {
        let mut child =
            natpipe(&["serve", "--json"]).args(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no event: {line}"));
        assert_eq!(event["event"], "serving");
        Self { child, event, _stdout: stdout }
    }

    fn get(&self, what: &str) -> &str {
        self.event[what].as_str().unwrap()
    }

    /// Asks it to stop, as an init system does.
    fn terminate(&mut self) -> Option<i32> {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "it does not stop");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn http(addr: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn serve_prints_a_url_at_which_peers_meet_and_says_goodbye() {
    let mut server = Serving::new(&["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
    let url: ServerUrl = server.get("url").parse().unwrap();
    runtime().block_on(async {
        let (ann, bob) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let at_ann = Client::connect(&url, &ann).await.unwrap();
        let at_bob = Client::connect(&url, &bob).await.unwrap();
        let to_bob = at_ann.signal(bob.peer_id()).unwrap();
        to_bob.send("hello").await.unwrap();
        assert_eq!(at_bob.accept().await.unwrap().recv().await.unwrap(), "hello");
        let addr: SocketAddr = server.get("local").parse().unwrap();
        stun::Client::new().server(addr).ask().await.unwrap();

        let metrics = server.get("metrics");
        let answer = http(metrics, "GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        for line in ["\nnatpipe_peers 2\n", "\nnatpipe_stun_answers_total 1\n", "\nnatpipe_handshakes_failed_total 0\n"]
        {
            assert!(answer.contains(line), "{line} in {answer}");
        }
        assert!(http(metrics, "GET /health HTTP/1.0\r\n\r\n").ends_with("\r\n\r\nok\n"));
        assert!(http(metrics, "GET /other HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));

        let mut state = at_ann.state();
        assert_eq!(server.terminate(), Some(0));
        let lost = state.wait_for(|state| matches!(state, State::Connecting { .. })).await.unwrap().clone();
        assert!(format!("{lost:?}").contains("the server stops"), "{lost:?}");
    });
}

#[test]
fn with_an_identity_file_the_url_stays() {
    let dir = std::env::temp_dir().join(format!("natpipe-serve-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let file = dir.join("key");
    let file = file.to_str().unwrap();
    let keys: Vec<String> = (0..2)
        .map(|_| {
            let mut server = Serving::new(&["--listen", "127.0.0.1:0", "--identity", file, "--host", "meet.example"]);
            let url: ServerUrl = server.get("url").parse().unwrap();
            assert_eq!(url.host(), "meet.example");
            assert_eq!(server.terminate(), Some(0));
            url.key().to_string()
        })
        .collect();
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(keys[0], keys[1]);
}

#[test]
fn a_port_that_is_taken_is_said_with_the_address() {
    let server = Serving::new(&["--listen", "127.0.0.1:0"]);
    let output = run(&["serve", "--listen", server.get("local")]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains(server.get("local")) && said.lines().count() == 1, "{said}");
}
