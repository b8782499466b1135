//! Decides: how a NAT assigns ports, from samples in the order in which they were made.

use std::collections::HashMap;
use std::time::Duration;

use crate::nat::{Delta, Finding, Foreign, Ports, Why};

/// One fresh socket and the port that it was mapped to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its place among all new mappings of this host.
    pub order: u32,
    /// When it was asked for.
    pub at: Duration,
    /// The local port.
    pub local: u16,
    /// The external port.
    pub mapped: u16,
}

/// Fewer samples than this say nothing: three steps have to agree.
const FEWEST: usize = 4;
/// Steps that have to agree before a rule is seen in them, when ports come from everywhere.
const AGREEING: usize = 3;
/// The same when all ports lie within [`NARROW`], where steps agree by chance more often.
const AGREEING_NARROW: usize = 4;
const NARROW: u16 = 4096;
/// Multiples of a step up to this are near it.
const NEAR: i32 = 64;
/// Groups of neighbouring local ports in which a distance has to be kept: a burst has four.
const PLACES: usize = 3;
/// A gap between neighbouring samples of more mappings than this is a wrap or a reordering, not a count.
const MOST_FOREIGN: u32 = 4096;

/// The rule that most samples follow. Single samples may be off: a taken port, a lost packet, somebody
/// else's mapping in between.
pub fn delta(samples: &[Sample]) -> Finding<Delta> {
    if samples.len() < FEWEST {
        return Finding::Untested(Why::TooFewSamples);
    }
    let samples = ordered(samples);
    let (distance, count) = most(samples.iter().map(|s| difference(s.local, s.mapped)));
    // A step of one per neighbouring port keeps its distance too, but only within a run of neighbours.
    if count * 2 > samples.len() && places(&samples, distance) >= PLACES {
        return Finding::Known(if distance == 0 { Delta::Equal } else { Delta::Preserving(distance) });
    }
    let steps = steps(&samples);
    let needed = if span(&samples) < NARROW { AGREEING_NARROW } else { AGREEING };
    let (by, count) = most(steps.iter().map(|s| s.by));
    if count >= needed && by != 0 && shows_apart(&steps, by) {
        return Finding::Known(Delta::Independent(smallest_divisor(&steps, by)));
    }
    let (by, count) = most(steps.iter().filter(|s| s.neighbours).map(|s| s.by));
    if count >= needed && by != 0 {
        return Finding::Known(Delta::Dependent(by));
    }
    Finding::Known(Delta::Random)
}

/// What others did between the two bursts of samples, where ports are counted by `by`.
pub(super) fn foreign(samples: &[Sample], by: i32) -> Option<Foreign> {
    let samples = ordered(samples);
    let gap = samples.windows(2).max_by_key(|w| w[1].at.saturating_sub(w[0].at))?;
    let (before, after) = (gap[0], gap[1]);
    let window = Duration::from_millis(after.at.saturating_sub(before.at).as_millis() as u64);
    let earlier = samples.iter().rev().filter(|s| s.order <= before.order).take(3);
    let mut counts: Vec<u32> = earlier
        .flat_map(|a| samples.iter().filter(|s| s.order >= after.order).take(3).map(move |b| (a, b)))
        .filter_map(|(a, b)| between(a, b, by))
        .collect();
    counts.sort_unstable();
    let median = *counts.get(counts.len() / 2)?;
    (!window.is_zero()).then_some(Foreign { mappings: median as u16, window })
}

/// The mappings between two samples that were not this host's; `None` when the ports do not fit the step.
fn between(a: &Sample, b: &Sample, by: i32) -> Option<u32> {
    let moved = difference(a.mapped, b.mapped);
    let round = moved + if by > 0 { Ports::UNPRIVILEGED.count() as i32 } else { -(Ports::UNPRIVILEGED.count() as i32) };
    let moved = if moved.signum() == by.signum() { moved } else { round };
    let steps = (moved % by == 0).then_some(moved / by)?;
    let count = u32::try_from(steps).ok()?.checked_sub(b.order.checked_sub(a.order)?)?;
    (count <= MOST_FOREIGN).then_some(count)
}

/// Groups of neighbouring local ports whose mapped ports have this distance.
fn places(samples: &[Sample], distance: i32) -> usize {
    let mut locals: Vec<u16> =
        samples.iter().filter(|s| difference(s.local, s.mapped) == distance).map(|s| s.local).collect();
    locals.sort_unstable();
    locals.windows(2).filter(|w| w[1] - w[0] > 1).count() + usize::from(!locals.is_empty())
}

/// A step that also shows between local ports that are far apart does not depend on them: it is seen there
/// itself, or most steps there are small multiples of it, as a lost packet and others' mappings make them.
fn shows_apart(steps: &[Step], by: i32) -> bool {
    let apart = steps.iter().filter(|s| !s.neighbours);
    let exact = apart.clone().filter(|s| s.by == by).count();
    let near = apart.clone().filter(|s| s.by != 0 && s.by % by == 0 && (s.by / by).abs() <= NEAR).count();
    exact >= 2 || near * 2 > apart.count()
}

/// Where others make more mappings than this host, the most frequent step is a multiple of the true one, which
/// occurs as well.
fn smallest_divisor(steps: &[Step], by: i32) -> i32 {
    let repeated = |d: i32| steps.iter().filter(|s| s.by == d).count() >= 2;
    let divisors = steps.iter().map(|s| s.by).filter(|d| *d != 0 && by % d == 0 && d.signum() == by.signum());
    divisors.filter(|d| repeated(*d)).min_by_key(|d| d.abs()).unwrap_or(by)
}

struct Step {
    by: i32,
    neighbours: bool,
}

/// The steps between samples that were made directly after each other.
fn steps(samples: &[Sample]) -> Vec<Step> {
    let pairs = samples.windows(2).filter(|w| w[1].order == w[0].order + 1);
    pairs
        .map(|w| Step {
            by: difference(w[0].mapped, w[1].mapped),
            neighbours: w[0].local.checked_add(1) == Some(w[1].local),
        })
        .collect()
}

fn ordered(samples: &[Sample]) -> Vec<Sample> {
    let mut samples = samples.to_vec();
    samples.sort_by_key(|s| s.order);
    samples
}

fn difference(from: u16, to: u16) -> i32 {
    i32::from(to) - i32::from(from)
}

fn span(samples: &[Sample]) -> u16 {
    let ports = samples.iter().map(|s| s.mapped);
    ports.clone().max().unwrap_or(0) - ports.min().unwrap_or(0)
}

/// The most frequent value and how often it occurs.
fn most(values: impl Iterator<Item = i32>) -> (i32, usize) {
    let mut counts: HashMap<i32, usize> = HashMap::new();
    values.for_each(|value| *counts.entry(value).or_default() += 1);
    counts.into_iter().max_by_key(|(value, count)| (*count, -value.abs(), *value)).unwrap_or((0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_is_seen_in_clean_samples() {
        let cases: [(Delta, Rule); 6] = [
            (Delta::Equal, |_, local| local),
            (Delta::Preserving(-77), |_, local| local - 77),
            (Delta::Independent(5), |n, _| 3000 + 5 * n as u16),
            (Delta::Independent(-1), |n, _| 3000 - n as u16),
            (Delta::Dependent(1), |n, local| {
                if n < 5 || (8..13).contains(&n) { local + 9 * (n as u16 / 5) } else { 1025 + n as u16 * n as u16 * 91 }
            }),
            (Delta::Random, |n, _| 2000 + n as u16 * n as u16 * 131),
        ];
        for (expected, rule) in cases {
            assert_eq!(delta(&samples(rule)), Finding::Known(expected));
        }
    }

    #[test]
    fn others_in_between_do_not_hide_a_step() {
        let taken = samples(|n, _| 3000 + 2 * (n as u16 + n as u16 / 4));
        assert_eq!(delta(&taken), Finding::Known(Delta::Independent(2)));
    }

    #[test]
    fn a_step_is_not_taken_for_a_dependent_one_when_losses_hide_it_between_far_ports() {
        // The 6th, 8th and 15th request were lost and repeated after all others.
        let late = |n: u32| match n {
            5 => 20,
            7 => 21,
            14 => 22,
            n => n as u16,
        };
        let taken = samples(|n, _| 9000 - 7 * late(n));
        let exact = taken.windows(2).filter(|w| w[1].mapped + 7 == w[0].mapped && w[1].local != w[0].local + 1);
        assert!(exact.count() < 2, "the step itself is hardly seen between far ports");
        assert_eq!(delta(&taken), Finding::Known(Delta::Independent(-7)));
    }

    #[test]
    fn three_samples_say_nothing() {
        assert_eq!(delta(&samples(|_, local| local)[..3]), Finding::Untested(Why::TooFewSamples));
    }

    #[test]
    fn what_others_did_between_the_bursts_is_counted() {
        let far = samples(|n, _| 3000 + 3 * (n as u16 + if n >= 8 { 20 } else { 0 }));
        assert_eq!(foreign(&far, 3), Some(Foreign { mappings: 20, window: Duration::from_millis(300) }));
        let down = samples(|n, _| 9000 - (n as u16 + if n >= 8 { 7 } else { 0 }));
        assert_eq!(foreign(&down, -1).map(|f| f.mappings), Some(7));
    }

    type Rule = fn(u32, u16) -> u16;

    fn samples(rule: impl Fn(u32, u16) -> u16) -> Vec<Sample> {
        let locals = [100, 101, 102, 103, 104, 700, 250, 900, 400, 401, 402, 403, 404, 120, 800, 300];
        let number = locals.iter().enumerate();
        number
            .map(|(n, local)| Sample {
                order: n as u32 + 10,
                at: Duration::from_millis(if n < 8 { 50 } else { 350 }),
                local: 20_000 + local,
                mapped: rule(n as u32, 20_000 + local),
            })
            .collect()
    }
}
