//! Decides: which NATs an entry's findings leave possible, and what two such NATs allow.

use crate::nat::{Delta, Entry, Filtering, Finding, Kind, Mapping, Ports};

/// One end, with nothing unknown about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Side {
    pub(super) blocked: bool,
    pub(super) open: bool,
    /// The mapping towards the peer is the one that a server saw.
    known: bool,
    filtering: Filtering,
    predictable: bool,
    /// How many external ports the mapping may have.
    range: f64,
}

/// How unknown findings are filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Luck {
    Best,
    Worst,
}

impl Side {
    pub(super) fn of(entry: &Entry, luck: Luck) -> Self {
        let best = luck == Luck::Best;
        let translated = entry.translated.known().unwrap_or(!best);
        let filtering = fill(entry.filtering, luck, Filtering::EndpointIndependent, Filtering::AddressAndPortDependent);
        let mapping = fill(entry.mapping, luck, Mapping::EndpointIndependent, Mapping::AddressAndPortDependent);
        Self {
            blocked: entry.kind() == Some(Kind::Blocked),
            open: !translated && filtering == Filtering::EndpointIndependent,
            known: !translated || mapping == Mapping::EndpointIndependent,
            filtering,
            predictable: entry.delta.known().map_or(best, Delta::is_predictable),
            range: range(entry),
        }
    }

    /// The next mapping can be named beforehand.
    fn foreseen(&self) -> bool {
        self.known || self.predictable
    }
}

fn fill<T: Copy>(finding: Finding<T>, luck: Luck, best: T, worst: T) -> T {
    match (finding, luck) {
        (Finding::Known(value), _) | (Finding::AtLeast(value), Luck::Best) => value,
        (_, Luck::Best) => best,
        (_, Luck::Worst) => worst,
    }
}

/// The ports from which a random one is chosen: the span seen, widened by the gap that its samples leave.
fn range(entry: &Entry) -> f64 {
    let all = f64::from(Ports::UNPRIVILEGED.count());
    let samples = f64::from(entry.samples);
    match entry.ports {
        Some(ports) if entry.samples >= 4 => (f64::from(ports.count()) * (samples + 1.0) / (samples - 1.0)).min(all),
        _ => all,
    }
}

/// Each side sends to what a server saw of the other, and answers to where packets come from.
pub(super) fn punches(a: &Side, b: &Side) -> bool {
    reaches(b, a) || reaches(a, b)
}

/// `from`'s packets get through to `to`, which has sent to `from`'s known address before.
fn reaches(from: &Side, to: &Side) -> bool {
    match to.filtering {
        Filtering::EndpointIndependent => true,
        Filtering::AddressDependent => to.known,
        Filtering::AddressAndPortDependent => to.known && from.known,
    }
}

/// Each side's next mapping can be named.
pub(super) fn predicts(a: &Side, b: &Side) -> bool {
    a.foreseen() && b.foreseen()
}

/// One side opens many mappings and the other, which stays where it is or lets a whole address in, tries many ports.
pub(super) fn meets_by_chance(a: &Side, b: &Side) -> bool {
    let holds = |side: &Side| side.known || side.filtering != Filtering::AddressAndPortDependent;
    holds(a) || holds(b)
}

/// Packets that each side has to send for a 95% chance that both guess right at once: the success of n
/// packets each is 1 - exp(-n²/(R1·R2)).
pub(super) fn packets_for_both(a: &Side, b: &Side) -> u32 {
    const THREE: f64 = 2.995_732; // -ln(0.05)
    (THREE * a.range * b.range).sqrt().ceil() as u32
}
