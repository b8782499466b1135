//! What must hold for any bytes that claim to be a NAT report: shared by the fuzz target and the test that replays its
//! corpus.

use natpipe::nat::Report;
use natpipe::nat::pairs::{Method, ways};

/// The longest report that [`Report::encode`] makes: 64 entries of 32 bytes of name and at most 96 of everything else.
const LONGEST: usize = 2 + 64 * (2 + 32 + 96);

/// What is read is written so that it is read the same, is no longer than a report may be, and can be asked for
/// everything. Whether it was a report.
pub fn report(bytes: &[u8]) -> bool {
    let Ok(report) = Report::decode(bytes) else { return false };
    let again = report.encode();
    assert_eq!(Report::decode(&again).as_ref(), Ok(&report));
    assert!(again.len() <= LONGEST, "{} bytes", again.len());
    let kinds: Vec<_> = report.entries.iter().map(|entry| entry.kind()).collect();
    assert_eq!(kinds.len(), report.entries.len());
    let own = ways(&report, &report);
    assert_eq!(own.iter().filter(|way| way.method == Method::Relay).count(), 1);
    assert!(own.is_sorted_by_key(|way| way.works), "what works stands first");
    let other = ways(&report, &Report::default());
    assert_eq!(other.len(), own.len());
    true
}
