//! The house rules of `docs/architecture.md`, read from the source: who may import whom, what a
//! deciding file may not name, and where tasks, `unsafe` and queues may be made.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room and the rooms below it that it may use. What is not listed may not exist.
const FLOORS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("net", &["base"]),
    ("pipe", &["net", "base"]),
    ("frame", &["pipe", "base"]),
    ("key", &["base"]),
    ("stun", &["pipe", "net", "base"]),
    ("nat", &["stun", "pipe", "net", "base"]),
    ("portmap", &["net", "base"]),
    ("turn", &["stun", "pipe", "net", "base"]),
    ("rendezvous", &["frame", "key", "punch", "stun", "pipe", "net", "base"]),
    ("punch", &["portmap", "nat", "stun", "pipe", "net", "base"]),
    ("peer", &["key", "punch", "rendezvous", "turn", "portmap", "nat", "stun", "frame", "pipe", "net", "base"]),
    ("pool", &["frame", "pipe", "base"]),
    ("smart", &["frame", "pipe", "base"]),
    ("duct", &["frame", "pipe", "net", "base"]),
    ("comm", &["frame", "pipe", "base"]),
    ("lab", &["nat", "net", "base"]),
];

/// What a file that says it decides may not name: tasks, sockets, clocks.
const NOT_IN_DECIDING: &[&str] =
    &["tokio", "socket2", "TcpStream", "TcpListener", "UdpSocket", "UnixStream", "Instant::now", "SystemTime::now"];

const KINDS: &[&str] = &["Decides", "Waits", "Touches", "Holds"];

struct Source {
    path: PathBuf,
    first: String,
    /// The code without comments, strings and test modules, line by line.
    code: Vec<String>,
}

impl Source {
    fn room(&self) -> String {
        let inside = self.path.strip_prefix("src").unwrap();
        inside.components().next().unwrap().as_os_str().to_string_lossy().into_owned()
    }

    fn is(&self, path: &str) -> bool {
        self.path.starts_with(path)
    }

    fn lines(&self) -> impl Iterator<Item = (String, &str)> {
        self.code.iter().enumerate().map(|(n, line)| (format!("{}:{}", self.path.display(), n + 1), line.as_str()))
    }
}

fn sources() -> Vec<Source> {
    std::env::set_current_dir(env!("CARGO_MANIFEST_DIR")).unwrap();
    let mut found = Vec::new();
    collect(Path::new("src"), &mut found);
    found.iter().map(|path| read(path)).collect()
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
}

fn read(path: &Path) -> Source {
    let text = fs::read_to_string(path).unwrap();
    Source {
        path: path.to_path_buf(),
        first: text.lines().next().unwrap_or_default().to_owned(),
        code: if is_test_file(path) { Vec::new() } else { strip(&text) },
    }
}

fn is_test_file(path: &Path) -> bool {
    path.file_name().is_some_and(|n| n == "tests.rs") || path.components().any(|c| c.as_os_str() == "tests")
}

/// Comments and strings blanked, and every item that is there for tests only.
fn strip(text: &str) -> Vec<String> {
    let (mut out, mut lines) = (Vec::new(), text.lines());
    while let Some(line) = lines.next() {
        let (indent, code) = line.split_at(line.len() - line.trim_start().len());
        if code.starts_with("#[cfg(test)]") {
            let skipped = 1 + item(indent, &mut lines);
            out.extend(std::iter::repeat_n(String::new(), skipped));
        } else {
            out.push(blank(line));
        }
    }
    out
}

/// Takes the lines of one item as rustfmt writes it: a single line, or all up to the brace that stands as far in as the first.
fn item<'a>(indent: &str, lines: &mut impl Iterator<Item = &'a str>) -> usize {
    let mut taken = 0;
    let mut begun = false;
    for line in lines {
        taken += 1;
        let code = blank(line);
        let alone = !begun && code.trim_end().ends_with([';', ',', '}']);
        if alone || line.strip_prefix(indent).is_some_and(|code| code.starts_with('}')) {
            break;
        }
        begun |= !code.trim_start().starts_with("#[");
    }
    taken
}

fn blank(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' if quoted => {
                chars.next();
            }
            '"' => quoted = !quoted,
            '/' if !quoted && chars.peek() == Some(&'/') => break,
            _ if quoted => {}
            _ => out.push(c),
        }
    }
    out
}

#[test]
fn every_file_says_what_kind_of_room_it_is() {
    let mut wrong = Vec::new();
    for source in sources() {
        let face = source.path.ends_with("mod.rs") || source.path == Path::new("src/lib.rs");
        if face || source.is("src/bin") || is_test_file(&source.path) {
            continue;
        }
        if !KINDS.iter().any(|kind| source.first.starts_with(&format!("//! {kind}: "))) {
            wrong.push(format!("{}: first line is {:?}", source.path.display(), source.first));
        }
    }
    assert!(wrong.is_empty(), "each file begins with `//! Decides: …`, Waits, Touches or Holds:\n{}", wrong.join("\n"));
}

#[test]
fn no_room_imports_a_room_that_is_not_below_it() {
    let floors: BTreeMap<_, _> = FLOORS.iter().copied().collect();
    let mut wrong = Vec::new();
    for source in sources() {
        let room = source.room();
        if room == "lib.rs" || room == "bin" {
            continue;
        }
        let Some(below) = floors.get(room.as_str()) else {
            wrong.push(format!("{}: the room {room} has no floor", source.path.display()));
            continue;
        };
        for (place, line) in source.lines() {
            for used in rooms_named(line) {
                if used != room && !below.contains(&used.as_str()) {
                    wrong.push(format!("{place}: {room} may not use {used}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The rooms named by `crate::room` on a line, also in `use crate::{a, b::c}`.
fn rooms_named(line: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            rooms.extend(list.split(',').map(|item| ident(item.trim())));
        } else {
            rooms.push(ident(rest));
        }
    }
    rooms.retain(|room| FLOORS.iter().any(|(name, _)| name == room));
    rooms
}

fn ident(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn the_floors_have_no_circle() {
    let mut seen: Vec<&str> = Vec::new();
    let mut left: Vec<_> = FLOORS.to_vec();
    while !left.is_empty() {
        let before = left.len();
        left.retain(|(room, below)| {
            let ready = below.iter().all(|b| seen.contains(b));
            if ready {
                seen.push(room);
            }
            !ready
        });
        assert!(left.len() < before, "a circle among {left:?}");
    }
}

#[test]
fn deciding_files_name_no_task_socket_or_clock() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|s| s.first.starts_with("//! Decides: ")) {
        for (place, line) in source.lines() {
            for word in NOT_IN_DECIDING.iter().filter(|word| line.contains(**word)) {
                wrong.push(format!("{place}: a deciding file names {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn tasks_are_spawned_only_in_base() {
    let spawns = ["spawn(", "spawn_blocking(", "spawn_local("];
    forbid("a task is spawned through base::task alone", &spawns, |s| s.is("src/base") || s.is("src/bin"));
}

#[test]
fn unsafe_stands_only_in_net_sys() {
    forbid("unsafe stands in net/sys alone", &["unsafe "], |s| s.is("src/net/sys"));
}

#[test]
fn sockets_are_made_only_in_net() {
    let made = ["Socket::new(", "TcpStream::connect(", "TcpListener::bind(", "UdpSocket::bind(", "UnixListener::bind("];
    forbid("sockets are made in net alone", &made, |s| s.is("src/net"));
}

/// Two machines' clocks may differ by anything: what is agreed between them is counted from what was heard.
#[test]
fn no_time_of_day_is_read_where_two_machines_agree() {
    let rooms = ["src/punch", "src/peer", "src/rendezvous", "src/frame", "src/stun"];
    let times = ["SystemTime", "UNIX_EPOCH", "OffsetDateTime"];
    forbid("what two machines agree on is no time of day", &times, |s| !rooms.iter().any(|room| s.is(room)));
}

#[test]
fn no_channel_is_unbounded() {
    forbid("each channel has a bound", &["unbounded"], |_| false);
}

/// They panic where nobody reads what they say: a library says nothing, and the command has `output`.
#[test]
fn nothing_is_said_by_what_panics_when_nobody_reads_it() {
    forbid("what is said is written, and a failure to write it judged", &["print!(", "println!("], |_| false);
}

fn forbid(rule: &str, words: &[&str], allowed: impl Fn(&Source) -> bool) {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|s| !allowed(s)) {
        for (place, line) in source.lines() {
            if words.iter().any(|word| line.contains(word)) {
                wrong.push(format!("{place}: {}", line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{rule}:\n{}", wrong.join("\n"));
}

#[test]
fn the_rules_catch_what_they_forbid() {
    assert_eq!(rooms_named("use crate::{pipe::Pipe, net};"), ["pipe", "net"]);
    assert_eq!(rooms_named("let x = crate::nat::Report::new();"), ["nat"]);
    assert_eq!(blank(r#"let s = "tokio"; // tokio"#), "let s = ; ");
    let text =
        "a\n#[cfg(test)]\nmod tests {\n    fn b() {\n    }\n}\nc\n    #[cfg(test)]\n    #[rare]\n    d: E,\n    f";
    assert_eq!(strip(text).concat(), "ac    f");
    assert_eq!(strip(text).len(), text.lines().count());
}
