//! `listen`, `connect`, `lab` and `demo` as programs see them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStderr, Stdio};

use natpipe::Ticket;
use serde_json::Value;

use super::{natpipe, run, text};

#[allow(dead_code, reason = "not all of it is needed here")]
#[path = "../mqtt/mosquitto.rs"]
mod mosquitto;

/// A command whose events on standard error are read one by one.
pub(super) struct Told {
    pub(super) child: Child,
    pub(super) events: BufReader<ChildStderr>,
}

impl Told {
    pub(super) fn start(args: &[&str]) -> Self {
        Self::start_plain(&[args, &["--no-public"]].concat())
    }

    fn start_plain(args: &[&str]) -> Self {
        let mut command = natpipe(args);
        command.arg("--json").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let events = BufReader::new(child.stderr.take().unwrap());
        Self { child, events }
    }

    /// The next event of this name; others are passed over.
    pub(super) fn event(&mut self, name: &str) -> Value {
        loop {
            let mut line = String::new();
            assert_ne!(self.events.read_line(&mut line).unwrap(), 0, "it ended without `{name}`");
            let event: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no event: {line}"));
            if event["event"] == name {
                return event;
            }
        }
    }

    pub(super) fn ends_well(mut self) -> (Vec<u8>, Vec<Value>) {
        let mut out = Vec::new();
        self.child.stdout.take().unwrap().read_to_end(&mut out).unwrap();
        let mut text = String::new();
        self.events.read_to_string(&mut text).unwrap();
        let rest: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(self.child.wait().unwrap().success(), "{rest:?}");
        (out, rest)
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        // One that has ended can not be ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A rendezvous server, with its URL.
struct Serving {
    child: Child,
    url: String,
}

impl Serving {
    fn start() -> Self {
        let mut command = natpipe(&["serve", "--listen", "127.0.0.1:0", "--json"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["event"], "serving");
        Self { child, url: event["url"].as_str().unwrap().to_owned() }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn data(len: u32) -> Vec<u8> {
    (0..len).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// As `tar c . | natpipe listen` and `natpipe connect T | tar x`, with something said the other way as well.
fn to_the_last_byte(options: &[&str]) -> Vec<Value> {
    let mut listen = Told::start(&[&["listen"], options].concat());
    let ticket = listen.event("ticket")["ticket"].as_str().unwrap().to_owned();
    assert!(ticket.len() < 300, "{} characters", ticket.len());
    let mut connect = Told::start(&[&["connect", &ticket], options].concat());
    let (there, back) = (data(3_000_001), data(700_001));
    let (mut to_listen, mut to_connect) = (listen.child.stdin.take().unwrap(), connect.child.stdin.take().unwrap());
    let (sent, answered) = (there.clone(), back.clone());
    let writers = [
        std::thread::spawn(move || to_listen.write_all(&sent).unwrap()),
        std::thread::spawn(move || to_connect.write_all(&answered).unwrap()),
    ];
    let reader = std::thread::spawn(move || listen.ends_well());
    let (got, events) = connect.ends_well();
    let (got_back, _) = reader.join().unwrap();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    assert!(got == there && got_back == back, "{} and {} bytes", got.len(), got_back.len());
    let closed = events.iter().find(|event| event["event"] == "closed").unwrap();
    assert_eq!((closed["sent"].as_u64(), closed["received"].as_u64()), (Some(700_001), Some(3_000_001)));
    events
}

#[test]
fn listen_and_connect_carry_both_directions_to_the_last_byte_and_end_by_themselves() {
    let events = to_the_last_byte(&[]);
    let path = events.iter().find(|event| event["event"] == "path").unwrap();
    assert_eq!(path["kind"], "direct");
    assert!(path["remote"].as_str().is_some_and(|remote| remote.contains(':')), "{path}");
    let won = |event: &&Value| event["event"] == "strategy" && event["state"] == "won";
    assert!(events.iter().any(|event| won(&event)), "{events:?}");
}

#[test]
fn a_peer_is_an_end_of_a_link() {
    let mut listen = Told::start(&["listen"]);
    let ticket = listen.event("ticket")["ticket"].as_str().unwrap().to_owned();
    let mut link = Told::start_plain(&["link", "stdio", &format!("peer:{ticket}")]);
    let (there, back) = (data(2_000_001), data(300_001));
    let (mut to_listen, mut to_link) = (listen.child.stdin.take().unwrap(), link.child.stdin.take().unwrap());
    let (sent, answered) = (there.clone(), back.clone());
    let writers = [
        std::thread::spawn(move || to_listen.write_all(&sent).unwrap()),
        std::thread::spawn(move || to_link.write_all(&answered).unwrap()),
    ];
    let reader = std::thread::spawn(move || listen.ends_well());
    let (got, _) = link.ends_well();
    let (got_back, _) = reader.join().unwrap();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    assert!(got == there && got_back == back, "{} and {} bytes", got.len(), got_back.len());
}

#[test]
fn the_same_through_a_server_alone() {
    let server = Serving::start();
    let events = to_the_last_byte(&["--via", &server.url, "--relay-only"]);
    assert!(events.iter().any(|event| event["event"] == "path" && event["kind"] == "relay"), "{events:?}");
}

#[test]
fn many_connections_are_forwarded_over_one_and_half_closed_each_for_itself() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("tcp:{}", target.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in target.incoming() {
            std::thread::spawn(move || {
                let mut client = client.unwrap();
                let mut heard = Vec::new();
                client.read_to_end(&mut heard).unwrap();
                heard.reverse();
                client.write_all(&heard).unwrap();
            });
        }
    });
    let mut listen = Told::start(&["listen", "--to", &to]);
    let ticket = listen.event("ticket")["ticket"].as_str().unwrap().to_owned();
    let mut connect = Told::start(&["connect", &ticket, "--from", "tcp-listen:0"]);
    let local = connect.event("listening")["local"].as_str().unwrap().to_owned();
    let talks: Vec<_> = (0..20_u32)
        .map(|n| {
            let local = local.clone();
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(local).unwrap();
                let mut said = data(50_000 + n);
                stream.write_all(&said).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                let mut heard = Vec::new();
                stream.read_to_end(&mut heard).unwrap();
                said.reverse();
                assert!(heard == said, "{} of {} bytes", heard.len(), said.len());
            })
        })
        .collect();
    talks.into_iter().for_each(|talk| talk.join().unwrap());
}

#[test]
fn datagrams_are_forwarded_and_answered() {
    let echo = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = format!("udp:{}", echo.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut buf = [0; 2000];
        while let Ok((len, from)) = echo.recv_from(&mut buf) {
            echo.send_to(&buf[..len], from).unwrap();
        }
    });
    let mut listen = Told::start(&["listen", "--to", &to]);
    let ticket = listen.event("ticket")["ticket"].as_str().unwrap().to_owned();
    let mut connect = Told::start(&["connect", &ticket, "--from", "udp-listen:0"]);
    let local = connect.event("listening")["local"].as_str().unwrap().to_owned();
    for said in ["one", "another"] {
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
        let mut buf = [0; 2000];
        // Each may be lost.
        let heard = (0..30).find_map(|_| {
            client.send_to(said.as_bytes(), &local).unwrap();
            client.recv(&mut buf).ok()
        });
        assert_eq!(heard.map(|len| &buf[..len]), Some(said.as_bytes()));
    }
}

/// A ticket without the addresses of its peer: so it takes the place to meet.
fn places_only(ticket: &str) -> String {
    let ticket: Ticket = ticket.parse().unwrap();
    ticket.brokers().iter().cloned().fold(Ticket::new(ticket.peer()), Ticket::with_broker).to_string()
}

#[test]
fn a_broker_is_a_place_to_meet_with_a_login_and_a_certificate_of_its_own() {
    use mosquitto::{Listener, Mosquitto};
    let file = Mosquitto::write("passwords-cli", "ann:swordfish\n");
    let mut hashed = std::process::Command::new("mosquitto_passwd");
    assert!(hashed.arg("-U").arg(&file).status().expect("mosquitto is installed").success());
    let options = format!("allow_anonymous false\npassword_file {}", file.display());
    let broker = Mosquitto::with(&[Listener::Tls, Listener::WebTls], &options);
    let ca = Mosquitto::write("ca-cli", &broker.certificate());
    let ca = ca.to_str().unwrap();
    let places = [
        format!("mqtts://ann:swordfish@localhost:{}", broker.port(0)),
        format!("wss://ann:swordfish@localhost:{}/mqtt", broker.port(1)),
    ];
    let mut listen = Told::start(&["listen", "--via", &places[0], "--via", &places[1], "--ca", ca]);
    let ticket = listen.event("ticket")["ticket"].as_str().unwrap().to_owned();
    let mut connect = Told::start(&["connect", &places_only(&ticket), "--ca", ca]);
    connect.child.stdin.take().unwrap().write_all(b"through a broker").unwrap();
    drop(listen.child.stdin.take());
    let reader = std::thread::spawn(move || listen.ends_well());
    let (_, events) = connect.ends_well();
    let path = events.iter().find(|event| event["event"] == "path").unwrap_or_else(|| panic!("{events:?}"));
    assert_ne!(path["kind"], "relay", "{path}");
    assert_eq!(reader.join().unwrap().0, b"through a broker");
    // Without the certificate there is no broker, and the error names it without the password.
    let refused = run(&["listen", "--via", &places[0], "--no-public"]);
    let why = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{why}");
    assert!(why.contains("localhost") && why.contains("certificate") && !why.contains("swordfish"), "{why}");
}

#[test]
fn a_one_time_ticket_opens_once_and_a_stranger_is_told_so() {
    let mut listen = Told::start(&["listen", "--one-time", "--to", "tcp:127.0.0.1:9"]);
    let ticket = listen.event("ticket")["ticket"].as_str().unwrap().to_owned();
    let mut first = Told::start(&["connect", &ticket]);
    assert_eq!(first.event("path")["kind"], "direct");
    let again = run(&["connect", &ticket]);
    let why = text(&again.stderr);
    assert_eq!(again.status.code(), Some(1), "{why}");
    assert!(why.contains("turned us away") || why.contains("broke"), "{why}");
}

#[test]
fn bad_tickets_and_options_that_exclude_each_other_are_wrong_usage() {
    let mut listen = Told::start(&["listen"]);
    let ticket = listen.event("ticket")["ticket"].as_str().unwrap().to_owned();
    let (cut, changed) = (&ticket[..ticket.len() - 3], ticket.replace(&ticket[20..22], "zz"));
    for args in [
        &["connect", cut][..],
        &["connect", &changed],
        &["connect", "np9zzzzzzzzzzzzzzzzzz"],
        &["connect", &ticket, "--direct-only", "--relay-only"],
        &["listen", "--via", "http://nowhere"],
        &["listen", "--via", "mqtt://ann@broker"],
        &["listen", "--via", "mqtt://broker/topic"],
        &["lab", "--a", "castle"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stderr));
    }
    let output = run(&["listen", "--to", "tcp-listen:80"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn the_lab_connects_two_peers_behind_the_routers_that_are_asked_for() {
    let output = run(&["lab", "--a", "home", "--b", "symmetric-random", "--mib", "1", "--json"]);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let outcome: Value = serde_json::from_str(shown.trim()).unwrap();
    assert_eq!((outcome["checked"].as_bool(), &outcome["b"]), (Some(true), &"symmetric-random".into()));
    assert_eq!(outcome["first"]["kind"], "relay");
    assert_ne!(outcome["last"]["kind"], "relay", "{outcome}");
    let kinds = text(&run(&["lab", "--list"]).stdout);
    assert!(kinds.lines().any(|kind| kind == "home") && kinds.lines().count() > 60, "{kinds}");
    let listed = text(&run(&["lab", "--list", "--json"]).stdout);
    assert!(listed.lines().any(|line| line == r#"{"kind":"home"}"#), "{listed}");
}

#[test]
fn the_matrix_of_the_lab_is_a_table_or_lines_for_programs() {
    let args = ["lab", "--matrix", "--kinds", "home,symmetric-random", "--mib", "1"];
    let table = run(&args);
    assert!(table.status.success(), "{}", text(&table.stderr));
    let shown = text(&table.stdout);
    assert!(shown.lines().count() == 4 && shown.contains("home"), "{shown}");
    let lines = text(&run(&[&args[..], &["--json"]].concat()).stdout);
    let cells: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(cells.len(), 4);
    assert!(cells.iter().all(|cell| cell["connected"] == 1), "{lines}");
    let direct: Vec<bool> = cells.iter().map(|cell| cell["direct"] == 1).collect();
    assert_eq!(direct, [true, true, true, false], "two random ones need the relay: {lines}");
}

#[test]
fn lab_punches_a_pair_and_a_matrix_and_says_how_often_and_how_soon() {
    for proto in ["udp", "tcp"] {
        let output = run(&["lab", "--punch", proto, "--runs", "2", "--a", "home", "--b", "linux", "--json"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let pair: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&pair["proto"], pair["opened"].as_u64(), pair["hopeless"].as_u64()),
            (&proto.into(), Some(2), Some(0))
        );
        assert!(
            pair["attempts_most"].as_u64().unwrap() > 0 && pair["start_median_ms"].as_f64().unwrap() > 0.0,
            "{pair}"
        );
    }
    let output = run(&["lab", "--punch", "tcp", "--matrix", "--kinds", "home,symmetric-random"]);
    let table = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), 4, "{table}");
    assert!(rows[1].starts_with("home") && rows[1].ends_with('b'), "one end guesses: {table}");
    assert!(rows[2].starts_with("symmetric-random") && rows[2].ends_with('-'), "both would have to: {table}");
}

#[test]
fn lab_simulates_every_pair_of_35_nats_and_sets_the_theory_beside_it() {
    let output = run(&["lab", "--simulate", "--runs", "2", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let cells: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(cells.len(), 35 * 35);
    let of = |theory: &str| cells.iter().filter(move |cell| cell["theory"] == theory).collect::<Vec<_>>();
    let open = |cells: &[&Value]| cells.iter().map(|cell| cell["open"].as_u64().unwrap()).sum::<u64>();
    let punched = of("UDP punch");
    assert!(punched.len() > 300);
    assert_eq!(open(&punched), 2 * punched.len() as u64, "what needs no more than punching always opens");
    let guessed = of("UDP punch by birthday");
    assert!(guessed.len() == 20 && open(&guessed) >= 36, "{guessed:?}");
    let impossible: Vec<&Value> = cells.iter().filter(|cell| cell["theory"].is_null()).collect();
    // Two NATs that draw from all ports meet by chance, once in thousands of attempts.
    assert!(open(&impossible) <= 2, "and what can not work is not said to");
    let foreseen = of("UDP punch to predicted ports");
    assert!(foreseen.len() == 96 && open(&foreseen) >= 185, "what theory foresees is met: {foreseen:?}");
}
