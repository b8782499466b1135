//! The corpus of the fuzz target for NAT reports, replayed and mutated: no bytes of a ticket make reading one panic.

#[path = "../fuzz/checks/report.rs"]
mod checks;

use std::fs;
use std::path::Path;

use natpipe::nat::{Delta, Finding, Kind, Report};

const MUTATIONS: usize = 50_000;

fn corpus() -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/nat_report");
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap());
    let mut inputs: Vec<_> =
        files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect();
    inputs.sort();
    assert!(inputs.len() > 15, "the corpus is gone");
    inputs
}

#[test]
fn the_corpus_of_reports_holds() {
    for (name, input) in corpus() {
        assert!(checks::report(&input), "{name} is a report");
        assert_eq!(Report::decode(&input).unwrap().encode(), input, "{name} is written as it was read");
    }
}

/// A ticket that was written yesterday is read today: the encoding may not change without a new version.
#[test]
fn reports_written_before_still_say_the_same() {
    let of = |name: &str| {
        let (_, bytes) = corpus().into_iter().find(|(found, _)| found == name).unwrap();
        Report::decode(&bytes).unwrap()
    };
    assert_eq!(of("home").entries[0].kind(), Some(Kind::PortRestricted));
    assert_eq!(of("symmetric_descending").entries[0].delta, Finding::Known(Delta::Dependent(-7)));
    assert_eq!(of("blocked_udp").entries[0].kind(), Some(Kind::Blocked));
    assert!(of("offline").is_offline() && !of("blocked_udp").is_offline());
}

#[test]
fn mutated_reports_break_nothing() {
    let inputs: Vec<Vec<u8>> = corpus().into_iter().map(|(_, input)| input).filter(|input| input.len() < 300).collect();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut read = 0;
    for _ in 0..MUTATIONS {
        let mut bytes = inputs[random.below(inputs.len())].clone();
        for _ in 0..1 + random.below(3) {
            let at = random.below(bytes.len().max(1));
            match random.below(6) {
                0 => bytes.truncate(at),
                1 => bytes.push(random.below(256) as u8),
                2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
                _ if at < bytes.len() => bytes[at] = random.below(256) as u8,
                _ => {}
            }
        }
        read += usize::from(checks::report(&bytes));
    }
    assert!(read > MUTATIONS / 20, "only {read} were reports");
}

/// Xorshift: enough to mutate with, and the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }
}
