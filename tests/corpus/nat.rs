//! The corpus of the fuzz target for NAT reports, replayed and mutated: no bytes of a ticket make reading one panic.

#[path = "../../fuzz/checks/report.rs"]
mod checks;

use crate::{mutated, named};
use natpipe::nat::{Delta, Finding, Kind, Report};

const MUTATIONS: usize = 50_000;

#[test]
fn the_corpus_of_reports_holds() {
    for (name, input) in named("nat_report", 16) {
        assert!(checks::report(&input), "{name} is a report");
        assert_eq!(Report::decode(&input).unwrap().encode(), input, "{name} is written as it was read");
    }
}

/// A ticket that was written yesterday is read today: the encoding may not change without a new version.
#[test]
fn reports_written_before_still_say_the_same() {
    let of = |name: &str| {
        let (_, bytes) = named("nat_report", 16).into_iter().find(|(found, _)| found == name).unwrap();
        Report::decode(&bytes).unwrap()
    };
    assert_eq!(of("home").entries[0].kind(), Some(Kind::PortRestricted));
    assert_eq!(of("symmetric_descending").entries[0].delta, Finding::Known(Delta::Dependent(-7)));
    assert_eq!(of("blocked_udp").entries[0].kind(), Some(Kind::Blocked));
    assert!(of("offline").is_offline() && !of("blocked_udp").is_offline());
}

#[test]
fn mutated_reports_break_nothing() {
    let inputs: Vec<Vec<u8>> =
        named("nat_report", 16).into_iter().map(|(_, input)| input).filter(|input| input.len() < 300).collect();
    let mut read = 0;
    mutated(&inputs, MUTATIONS, |bytes| read += usize::from(checks::report(bytes)));
    assert!(read > MUTATIONS / 20, "only {read} were reports");
}
