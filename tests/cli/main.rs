//! The command as a program sees it: what it reads and writes, and how it ends.

#[path = "../comm/broker.rs"]
mod broker;
mod ends;
mod messages;
mod mq;
mod nat;
mod packaging;
mod peers;
mod pool;
mod serve;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn natpipe(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_natpipe"));
    command.args(args).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    natpipe(args).output().unwrap()
}

/// A standard error, or output, whose reader has gone.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// An output that takes nothing.
fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A command that runs beside the test and ends with it.
struct Running {
    child: Child,
    /// The address that it listens on, from its first event.
    local: String,
}

impl Running {
    fn listening(args: &[&str]) -> Self {
        let mut child = natpipe(args)
            .arg("--json")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut events = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        events.read_line(&mut line).unwrap();
        let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no event: {line}"));
        assert_eq!(event["event"], "listening");
        std::thread::spawn(move || std::io::copy(&mut events, &mut std::io::sink()));
        Self { child, local: event["local"].as_str().unwrap().to_owned() }
    }

    /// Waits for its end.
    fn status(&mut self) -> i32 {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap();
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "the command does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn interfaces_are_a_table_for_people_and_json_for_programs() {
    let people = run(&["interfaces"]);
    assert!(people.status.success());
    let table = text(&people.stdout);
    assert!(
        table.contains("127.0.0.1/8") && table.contains("loopback") && table.contains("external unknown"),
        "{table}"
    );
    let programs: serde_json::Value = serde_json::from_slice(&run(&["interfaces", "--json"]).stdout).unwrap();
    let lo = programs.as_array().unwrap().iter().find(|i| i["flags"]["loopback"] == true).unwrap();
    assert_eq!(lo["addresses"][0]["ip"], "127.0.0.1");
    assert_eq!(lo["addresses"][0]["scope"], "loopback");
    assert!(lo["routes"][0]["external"].is_null());
}

#[test]
fn demo_moves_data_through_every_kind_and_says_so() {
    let people = run(&["demo", "--mib", "2"]);
    let shown = text(&people.stdout);
    assert!(people.status.success(), "{}", text(&people.stderr));
    for kind in ["peers", "TCP", "TLS", "relay", "UDP", "every byte arrived"] {
        assert!(shown.contains(kind), "{shown}");
    }
    let programs = text(&run(&["demo", "--mib", "1", "--json"]).stdout);
    let rows: Vec<serde_json::Value> = programs.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 6);
    assert!(rows.iter().all(|row| row["checked"] == true && row["rate"].as_f64().unwrap() > 0.0), "{programs}");
}

#[test]
fn link_carries_standard_input_to_a_server_and_its_answer_back_to_the_last_byte() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let spec = format!("tcp:{}", server.local_addr().unwrap());
    let mut child = natpipe(&["link", "stdio", &spec]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let data: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let (sent, mut stdin) = (data.clone(), child.stdin.take().unwrap());
    let writer = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let (mut stream, _) = server.accept().unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert!(got == data, "{} of {} bytes", got.len(), data.len());
    writer.join().unwrap();
    // The half-close came through; the answer goes the other way only now.
    stream.write_all(&data[..1_000_000]).unwrap();
    drop(stream);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(output.stdout == data[..1_000_000], "{} bytes came back", output.stdout.len());
}

#[test]
fn link_speaks_through_a_websocket() {
    use natpipe::frame::ws::{self, Message};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("ws://{}/some/path", listener.local_addr().unwrap());
    let mut child = natpipe(&["link", "stdio", &url]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through a websocket").unwrap();
    let heard = runtime.block_on(async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut accepted = ws::accept(stream, &ws::Conf::default()).await.unwrap();
        assert_eq!(accepted.request.uri().path(), "/some/path");
        let mut heard = Vec::new();
        accepted.socket.send(Message::binary(&b"and back"[..])).await.unwrap();
        while let Some(Ok(message)) = accepted.socket.next().await {
            if let Message::Binary(data) = message {
                heard.extend_from_slice(&data);
            }
        }
        heard
    });
    assert_eq!(heard, b"through a websocket");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout, b"and back");
}

#[test]
fn link_joins_a_listener_and_a_unix_socket() {
    let path = std::env::temp_dir().join(format!("natpipe-cli-{}", std::process::id()));
    let unix = format!("unix-listen:{}", path.display());
    let mut link = Running::listening(&["link", "tcp-listen:0", &unix]);
    let mut tcp = TcpStream::connect(&link.local).unwrap();
    let begun = Instant::now();
    let mut unix = loop {
        match std::os::unix::net::UnixStream::connect(&path) {
            Ok(stream) => break stream,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(10), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    tcp.write_all(b"over").unwrap();
    let mut got = [0; 4];
    unix.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"over");
    unix.write_all(b"back").unwrap();
    tcp.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"back");
    drop((tcp, unix));
    assert_eq!(link.status(), 0);
}

/// The kernel pipes among a process's descriptors.
fn kernel_pipes(pid: u32) -> usize {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let is_pipe =
        |path: std::path::PathBuf| std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("pipe:"));
    entries.filter(|entry| entry.as_ref().is_ok_and(|entry| is_pipe(entry.path()))).count()
}

#[test]
fn two_sockets_are_joined_in_the_kernel_and_anything_else_is_copied() {
    let carried = |a: &mut TcpStream, b: &mut TcpStream| {
        a.write_all(b"there").unwrap();
        let mut got = [0; 5];
        b.read_exact(&mut got).unwrap();
        b.write_all(b"again").unwrap();
        a.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"again");
    };
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let link = Running::listening(&["link", "tcp-listen:0", &format!("tcp:{}", server.local_addr().unwrap())]);
    let before = kernel_pipes(link.child.id());
    let mut client = TcpStream::connect(&link.local).unwrap();
    let (mut far, _) = server.accept().unwrap();
    carried(&mut client, &mut far);
    // Bytes that came before the link are handed over first; then each direction is joined.
    let begun = Instant::now();
    while kernel_pipes(link.child.id()) != before + 4 {
        assert!(begun.elapsed() < Duration::from_secs(10), "two ends of a kernel pipe for each direction");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn link_answers_the_first_sender_of_datagrams() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let spec = format!("tcp:{}", server.local_addr().unwrap());
    let mut link = Running::listening(&["link", "udp-listen:0", &spec]);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(&link.local).unwrap();
    client.send(b"question").unwrap();
    let (mut stream, _) = server.accept().unwrap();
    let mut got = [0; 8];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"question");
    stream.write_all(b"answer!!").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(client.recv(&mut got).unwrap(), 8);
    assert_eq!(&got, b"answer!!");
    drop(stream);
    assert_eq!(link.status(), 0);
}

#[test]
fn echo_serves_every_client_of_streams_and_of_datagrams() {
    let tcp = Running::listening(&["echo", "tcp-listen:0"]);
    for n in 0..3u8 {
        let mut client = TcpStream::connect(&tcp.local).unwrap();
        client.write_all(&[n; 5]).unwrap();
        let mut got = [9; 5];
        client.read_exact(&mut got).unwrap();
        assert_eq!(got, [n; 5]);
    }
    let udp = Running::listening(&["echo", "udp-listen:127.0.0.1:0"]);
    for _ in 0..2 {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.connect(&udp.local).unwrap();
        client.send(b"ping").unwrap();
        let mut got = [0; 4];
        client.recv(&mut got).unwrap();
        assert_eq!(&got, b"ping");
    }
}

#[test]
fn a_peer_that_leaves_ends_the_link_though_standard_input_stays_open() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let spec = format!("tcp:{}", server.local_addr().unwrap());
    let mut child = natpipe(&["link", "stdio", &spec]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    drop(server.accept().unwrap());
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        // What is typed now can not arrive: the first bytes are refused, the next tell us so.
        let _ = stdin.write_all(b"anybody?");
        assert!(begun.elapsed() < Duration::from_secs(10), "the link does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_output_that_takes_no_more_ends_the_link_though_its_input_stays_open() {
    for (output, status) in [(unread as fn() -> Stdio, 0), (full, 1)] {
        for input in [Stdio::piped as fn() -> Stdio, Stdio::null] {
            let server = TcpListener::bind("127.0.0.1:0").unwrap();
            let spec = format!("tcp:{}", server.local_addr().unwrap());
            let mut link = natpipe(&["link", &spec, "stdio"]);
            link.stdin(input()).stdout(output()).stderr(Stdio::piped());
            let mut link = Running { child: link.spawn().unwrap(), local: spec };
            let (mut stream, _) = server.accept().unwrap();
            stream.write_all(b"for nobody").unwrap();
            assert_eq!(link.status(), status);
            let mut said = String::new();
            link.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            assert_eq!(said.contains("standard output cannot be written: No space left"), status == 1, "{said}");
        }
    }
}

#[test]
fn failures_are_one_line_that_says_why_and_exit_status_1() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let failed = run(&["link", &format!("tcp:{free}"), "stdio"]);
    assert_eq!(failed.status.code(), Some(1));
    let line = text(&failed.stderr);
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.contains(&free.to_string()) && line.contains("Connection refused"), "{line}");
    assert!(failed.stdout.is_empty());

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let failed = run(&["echo", &format!("tcp-listen:{}", taken.local_addr().unwrap())]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stderr).contains("another socket has this port"), "{}", text(&failed.stderr));
}

#[test]
fn wrong_usage_is_exit_status_2() {
    for args in [&["link", "tcp:nowhere", "stdio"][..], &["link", "stdio"], &["fly"], &["demo", "--mib", "0"], &[]] {
        assert_eq!(run(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = natpipe(&["interfaces"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
}

#[test]
fn completions_and_the_manual_page_are_there() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(text(&run(&["completions", shell]).stdout).contains("interfaces"), "{shell}");
    }
    let page = text(&run(&["man"]).stdout);
    assert!(page.starts_with(".ie") || page.contains(".TH natpipe"), "{page}");
}
