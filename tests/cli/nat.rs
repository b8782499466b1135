//! `natpipe nat` and `natpipe stun-server`: what they print, and how they end.

use std::net::{TcpListener, UdpSocket};
use std::process::Output;

use serde_json::Value;

use super::{Running, run, text};

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// A port of loopback at which nobody answers, over UDP or TCP, for as long as the sockets live.
fn silent() -> (UdpSocket, TcpListener, String) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = udp.local_addr().unwrap();
        // What is free over UDP may be taken over TCP.
        if let Ok(tcp) = TcpListener::bind(addr) {
            return (udp, tcp, addr.to_string());
        }
    }
}

#[test]
fn loopback_is_told_to_be_open_by_a_server_of_two_addresses() {
    let server = Running::listening(&["stun-server", "--listen", "127.0.0.1:0", "--listen2", "127.0.0.2:0"]);
    let output = run(&["nat", "--interface", "lo", "--stun", &server.local, "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report = json(&output);
    let entries = report["entries"].as_array().unwrap();
    // Where loopback has an IPv6 address as well, it is said that no server could be asked there.
    let (asked, unasked): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry["asked"] != 0);
    let named: Vec<_> = asked.iter().map(|e| (e["state"].as_str().unwrap(), e["proto"].as_str().unwrap())).collect();
    assert_eq!(named, [("open", "Udp"), ("untranslated", "Tcp")], "{report:#}");
    assert!(unasked.iter().all(|entry| entry["state"] == "unknown"), "{report:#}");
    assert_eq!(entries[0]["external"], "127.0.0.1");
    assert_eq!(report["with_peers"][0]["best"], "direct over IPv4", "what was not asked for is not promised");
    let compact = report["compact"].as_str().unwrap();
    let bytes: Vec<u8> =
        (0..compact.len()).step_by(2).map(|at| u8::from_str_radix(&compact[at..at + 2], 16).unwrap()).collect();
    let back = natpipe::nat::Report::decode(&bytes).unwrap();
    assert_eq!(back.entries.len(), entries.len());
    for line in text(&output.stderr).lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(["testing", "done"].contains(&event["event"].as_str().unwrap()), "{line}");
    }
}

#[test]
fn with_a_server_of_one_address_it_says_what_it_could_not_test() {
    let server = Running::listening(&["stun-server", "--listen", "127.0.0.1:0"]);
    let output = run(&["nat", "--interface", "lo", "--stun", &server.local, "--udp-only"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("filtering  not tested: it takes a server with two addresses (--stun)"), "{said}");
    assert!(said.contains("lifetime   not measured (--lifetime does"), "{said}");
    assert!(said.contains("what will work") && said.contains("1 of 1 answered") && !said.contains("TCP  "), "{said}");
}

#[test]
fn one_server_that_answers_is_enough_beside_one_that_is_silent() {
    let (_udp, _tcp, nobody) = silent();
    let server = Running::listening(&["stun-server", "--listen", "127.0.0.1:0", "--listen2", "127.0.0.2:0"]);
    let stun = ["nat", "--interface", "lo", "--udp-only", "--json", "--stun", &nobody, "--stun", &server.local];
    let output = run(&stun);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let entry = &json(&output)["entries"][0];
    assert_eq!((entry["state"].as_str(), entry["answered"].as_u64()), (Some("open"), Some(1)), "{entry:#}");
}

#[test]
fn when_nobody_answers_the_status_is_1_and_the_last_line_says_what_to_try() {
    let (_udp, _tcp, nobody) = silent();
    let output = run(&["nat", "--interface", "lo", "--stun", &nobody, "--udp-only"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    let said = text(&output.stderr);
    let last = said.lines().last().unwrap();
    assert!(last.contains("no STUN server answered") && last.contains("--stun"), "{said}");
    assert!(text(&output.stdout).contains("blocked: no server answered"), "{}", text(&output.stdout));
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let output = run(&["nat", "--interface", "no-such-card", "--stun", "127.0.0.1:3478"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no-such-card"), "{}", text(&output.stderr));
    assert!(output.stdout.is_empty());
}

#[test]
fn wrong_usage_of_nat_is_exit_status_2() {
    for args in [&["nat", "--stun"][..], &["nat", "--stun", "host:port:more"], &["nat", "--fast"], &["stun-server"]] {
        assert_eq!(run(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn interfaces_learn_their_external_addresses_each_through_itself() {
    let server = Running::listening(&["stun-server", "--listen", "127.0.0.1:0"]);
    let output = run(&["interfaces", "--external", "--stun", &server.local, "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let rows = json(&output);
    for row in rows.as_array().unwrap() {
        let loopback = row["flags"]["loopback"] == true;
        for route in row["routes"].as_array().unwrap().iter().filter(|route| route["family"] == "v4") {
            // The server is on loopback: no other interface leads to it.
            let expected = if loopback { serde_json::json!(["127.0.0.1"]) } else { Value::Null };
            assert_eq!(route["external"], expected, "{row:#}");
        }
    }
    let (_udp, _tcp, nobody) = silent();
    let output = run(&["interfaces", "--external", "--stun", &nobody]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no STUN server answered"), "{}", text(&output.stderr));
}

#[test]
fn a_stun_server_that_can_not_listen_says_where_and_why() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let output = run(&["stun-server", "--listen", &at]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(&at), "{}", text(&output.stderr));
    let alone = run(&["stun-server", "--listen", "[::1]:0", "--listen2", "127.0.0.2:0"]);
    assert!(text(&alone.stderr).contains("needs a --listen of its family"), "{}", text(&alone.stderr));
    assert_eq!(run(&["stun-server", "--listen", "nowhere"]).status.code(), Some(2));
}
