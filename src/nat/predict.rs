//! Decides: which external ports the next mappings will have, and how sure that is.

use std::time::Duration;

use super::{Delta, Entry, Foreign, Mapping, Ports};

/// A mapping of this host's that was seen lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When it was made.
    pub at: Duration,
    /// The local port.
    pub local: u16,
    /// The external port.
    pub external: u16,
}

/// The mapping that is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// When it will be made: the later, the more others come in between.
    pub at: Duration,
    /// The local port that it will be made from.
    pub local: u16,
    /// New mappings that this host will make before it, itself not counted.
    pub before: u16,
    /// Candidates wanted at most.
    pub most: usize,
}

/// A port that the mapping may have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guess {
    /// The external port.
    pub port: u16,
    /// Its chance, 0 to 1.
    pub chance: f64,
}

/// Where a mapping will be, the likeliest port first.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// The candidates, each port once.
    pub guesses: Vec<Guess>,
}

/// Why nothing can be predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unpredictable {
    /// The NAT chooses ports at random: birthday punching is left, or a relay.
    #[error("the NAT assigns ports at random")]
    Random,
    /// The report does not say how ports are assigned: test again.
    #[error("it is not known how the NAT assigns ports")]
    Unknown,
    /// Ports are counted from the last mapping, and none was seen: make one first.
    #[error("no recent mapping was seen to count from")]
    NothingSeen,
    /// The step holds only for one local port: bind that one.
    #[error("the next port is known only for local port {needed}")]
    LocalPort {
        /// The local port to use instead.
        needed: u16,
    },
}

/// The chance that a rule seen in a report holds for one more mapping: the rest is for a port that
/// is taken already, and for a NAT that changed.
const RULE_HOLDS: f64 = 0.98;
/// Where the ports are counted past taken ones, the next few free ports share this much of the chance.
const SKIPPED: f64 = 0.015;
/// Candidates are listed until this much of the chance is covered.
const COVERED: f64 = 0.995;
/// Without any measure: as if one mapping of others had been seen in this time.
const UNMEASURED: Foreign = Foreign { mappings: 1, window: Duration::from_millis(100) };
/// The share of a mapping that is taken to have been seen in no time (Jeffreys' prior for a rate).
const PRIOR: f64 = 0.5;

impl Prediction {
    /// The chance that one of the candidates is right, 0 to 1.
    pub fn confidence(&self) -> f64 {
        self.guesses.iter().map(|g| g.chance).sum::<f64>().min(1.0)
    }

    /// The candidate ports, the likeliest first.
    pub fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.guesses.iter().map(|g| g.port)
    }
}

/// The external ports that a mapping yet to be made may get.
///
/// `seen` are this host's recent mappings through the same NAT, in the order in which they were made and
/// with none left out since the first; the last one is counted from. How many mappings others make in
/// between is estimated from the report and from gaps in `seen`, and the window is as wide as that
/// estimate is uncertain.
///
/// It is for tools that plan from a report; nothing in this crate asks it.
pub fn predict(entry: &Entry, seen: &[Seen], next: Next) -> Result<Prediction, Unpredictable> {
    if entry.translated.known() == Some(false) {
        return Ok(single(next.local, 1.0));
    }
    let cone = entry.mapping.known() == Some(Mapping::EndpointIndependent);
    if let Some(same) = seen.iter().rev().find(|s| cone && s.local == next.local) {
        return Ok(single(same.external, RULE_HOLDS));
    }
    match entry.delta.known().ok_or(Unpredictable::Unknown)? {
        Delta::Equal => Ok(single(next.local, RULE_HOLDS)),
        Delta::Preserving(by) => Ok(single(Ports::UNPRIVILEGED.step(next.local, by), RULE_HOLDS)),
        Delta::Dependent(by) => dependent(by, seen, next),
        Delta::Independent(by) => independent(by, entry.foreign, seen, next),
        Delta::Random => Err(Unpredictable::Random),
    }
}

fn single(port: u16, chance: f64) -> Prediction {
    Prediction { guesses: vec![Guess { port, chance }] }
}

/// The step holds from one local port to the next, so all in between must be this host's, in order.
fn dependent(by: i32, seen: &[Seen], next: Next) -> Result<Prediction, Unpredictable> {
    let last = seen.last().ok_or(Unpredictable::NothingSeen)?;
    let needed = last.local.wrapping_add(1).wrapping_add(next.before);
    if next.local != needed {
        return Err(Unpredictable::LocalPort { needed });
    }
    let steps = i32::from(next.before) + 1;
    let mut guesses = vec![Guess { port: step(last.external, by, steps), chance: RULE_HOLDS }];
    guesses.extend((1..=3).map(|skip| Guess { port: step(last.external, by, steps + skip), chance: SKIPPED / 3.0 }));
    guesses.truncate(next.most.max(1));
    Ok(Prediction { guesses })
}

/// Others' mappings in the time until then follow a Poisson process whose rate is itself uncertain: their
/// number has the negative binomial distribution.
fn independent(by: i32, foreign: Option<Foreign>, seen: &[Seen], next: Next) -> Result<Prediction, Unpredictable> {
    let last = seen.last().ok_or(Unpredictable::NothingSeen)?;
    let Rate { count, over } = Rate::of(by, foreign, seen);
    let ahead = next.at.saturating_sub(last.at).as_secs_f64();
    let shape = count + PRIOR;
    let counts = Counts { shape, stays: over / (over + ahead) };
    let most = next.most.clamp(1, MOST_OTHERS as usize);
    let own = i32::from(next.before) + 1;
    let port = |others: u32| step(last.external, by, own.saturating_add_unsigned(others));
    let likeliest = counts.likeliest(most);
    let guesses = likeliest.into_iter().map(|(n, chance)| Guess { port: port(n), chance: chance * RULE_HOLDS });
    Ok(Prediction { guesses: guesses.collect() })
}

/// More than these go round and meet the ports of fewer.
const MOST_OTHERS: u32 = 64_511;

/// How many mappings others make: a negative binomial distribution.
struct Counts {
    shape: f64,
    /// The chance that one more does not come.
    stays: f64,
}

impl Counts {
    /// The likeliest numbers with their chances, the likeliest first, until enough of the chance is covered.
    fn likeliest(&self, most: usize) -> Vec<(u32, f64)> {
        let mode = self.mode();
        let mut up = (mode, self.chance(mode));
        let mut down = self.before(up);
        let (mut found, mut covered) = (Vec::new(), 0.0);
        while found.len() < most && covered < COVERED {
            let next = match down.filter(|down| down.1 > up.1) {
                Some(lower) => {
                    down = self.before(lower);
                    lower
                }
                None => {
                    let next = self.after(up);
                    std::mem::replace(&mut up, next)
                }
            };
            covered += next.1;
            found.push(next);
        }
        found
    }

    fn mode(&self) -> u32 {
        let mode = (self.shape - 1.0) * (1.0 - self.stays) / self.stays;
        // Saturates at both ends, and is 0 for what is no number.
        (mode as u32).min(MOST_OTHERS)
    }

    /// The chance of `others`, by way of logarithms: that of none may be too small to be written down.
    fn chance(&self, others: u32) -> f64 {
        let none = self.shape * self.stays.ln();
        (0..others).map(|n| self.ratio(n).ln()).fold(none, |sum, ratio| sum + ratio).exp()
    }

    /// What the chance of one more than `others` is to that of `others`.
    fn ratio(&self, others: u32) -> f64 {
        (f64::from(others) + self.shape) / (f64::from(others) + 1.0) * (1.0 - self.stays)
    }

    fn after(&self, (others, chance): (u32, f64)) -> (u32, f64) {
        (others + 1, chance * self.ratio(others))
    }

    fn before(&self, (others, chance): (u32, f64)) -> Option<(u32, f64)> {
        let less = others.checked_sub(1)?;
        Some((less, chance / self.ratio(less)))
    }
}

/// Mappings of others, seen in so many seconds.
struct Rate {
    count: f64,
    over: f64,
}

impl Rate {
    fn of(by: i32, foreign: Option<Foreign>, seen: &[Seen]) -> Self {
        let measured = foreign.filter(|f| !f.window.is_zero());
        let mut rate = Self { count: 0.0, over: 0.0 };
        measured.into_iter().for_each(|f| rate.add(f64::from(f.mappings), f.window));
        for pair in seen.windows(2) {
            let moved = i32::from(pair[1].external) - i32::from(pair[0].external);
            let steps = if by != 0 && moved % by == 0 { moved / by } else { 0 };
            if steps >= 1 {
                rate.add(f64::from(steps - 1), pair[1].at.saturating_sub(pair[0].at));
            }
        }
        if rate.over <= 0.0 {
            rate.add(f64::from(UNMEASURED.mappings), UNMEASURED.window);
        }
        rate
    }

    fn add(&mut self, count: f64, over: Duration) {
        self.count += count;
        self.over += over.as_secs_f64();
    }
}

fn step(port: u16, by: i32, steps: i32) -> u16 {
    Ports::UNPRIVILEGED.step(port, by.saturating_mul(steps))
}

#[cfg(test)]
mod tests;
