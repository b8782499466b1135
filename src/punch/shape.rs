//! Decides: what a few answers of STUN servers show of how a NAT assigns ports, as far as a punch needs to know it.

use std::net::SocketAddrV4;
use std::time::Duration;

use crate::nat::probe::{Sample, delta};
use crate::nat::{Delta, Finding, Rng};

/// Fewer fresh mappings say nothing about the range that ports are taken from.
const FEWEST: usize = 8;

/// A range over this is as good as all ports.
const WIDE: u32 = 32_768;

/// Fresh sockets that are looked at where a NAT takes another port for each destination: so many tell a block of ports from
/// all of them, to within a tenth. They are runs of neighbours: some NATs count only while their host's own ports do.
const RUNS: u16 = 4;
const RUN: u16 = 6;

/// Local ports as a kernel chooses them for who does not care, with room for neighbours.
const LOCAL: (u16, u16) = (32_768, 60_000);

/// Ports below are not assigned.
pub(super) const LOWEST: u16 = 1024;

/// Where a peer is seen, and what its NAT does for the next destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// What a server saw of the socket that is punched from.
    pub addr: SocketAddrV4,
    /// How it takes ports.
    pub ports: Assigned,
}

/// How a NAT chooses external ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assigned {
    /// The same one for every destination, or nothing shows otherwise.
    Kept,
    /// The one that is said for a fresh socket's first destination, and others for all that follow. A socket on the next local
    /// port gets the next one.
    First,
    /// Counted on from the last one seen, by so much for each new destination.
    Counted {
        /// The last one seen.
        last: u16,
        /// From each to the next; never 0.
        by: i16,
    },
    /// At random from these.
    Random {
        /// The lowest.
        low: u16,
        /// The highest.
        high: u16,
    },
}

impl Shape {
    /// How ports are taken, as far as it matters to a peer whose NAT takes them like that: a first destination is enough where
    /// one packet is, and where the peer's port is not known beforehand, neighbouring sockets with one each are.
    pub fn against(self, peer: Assigned) -> Assigned {
        match (self.ports, peer) {
            (Assigned::First, Assigned::Counted { .. }) => Assigned::Counted { last: self.addr.port(), by: 1 },
            (Assigned::First, _) => Assigned::Kept,
            (ports, _) => ports,
        }
    }
}

impl Assigned {
    /// The local ports of the fresh sockets, in the order in which they are to be sent from.
    pub fn samples(rng: &mut Rng) -> Vec<u16> {
        (0..RUNS).map(|_| rng.port(LOCAL.0, LOCAL.1)).flat_map(|first| first..first + RUN).collect()
    }

    /// Where a NAT counts only while its host's own ports go up one by one: the last of the fresh sockets' ports. Sockets on the
    /// ports that follow get the counted ones if nothing else is sent before.
    pub fn row(fresh: &[(u16, u16)]) -> Option<u16> {
        let row = matches!(delta(&samples(fresh)), Finding::Known(Delta::Dependent(_)));
        fresh.last().map(|(local, _)| *local).filter(|_| row)
    }

    /// Whether the ports that servers saw of one socket leave it open that its NAT takes another one for each destination: they
    /// differ, or only one answered (the others' silence says nothing) and it saw another port than `local`, the socket's own.
    /// Then fresh sockets show how the NAT chooses.
    pub fn may_move(local: u16, same: &[u16]) -> bool {
        match same {
            [] => false,
            [one] => *one != local,
            [first, rest @ ..] => rest.iter().any(|port| port != first),
        }
    }

    /// Where a NAT that takes another port for each destination gives a socket that has sent nowhere yet the port that it has
    /// itself, or one at a fixed distance: that distance. Towards its first destination such a socket's external port is known.
    pub fn fresh_by(fresh: &[(u16, u16)]) -> Option<i32> {
        let by = |(local, mapped): &(u16, u16)| i32::from(*mapped) - i32::from(*local);
        let first = by(fresh.get(fresh.len() / 2)?);
        // A few may have found theirs taken.
        let like = fresh.iter().filter(|pair| by(pair) == first).count();
        (fresh.len() >= FEWEST && like * 10 >= fresh.len() * 9).then_some(first)
    }

    /// From what servers saw of one socket on the port `local`, and one server of fresh sockets (local and external port, in the
    /// order in which they were sent from).
    pub fn of(local: u16, same: &[u16], fresh: &[(u16, u16)]) -> Self {
        if !Self::may_move(local, same) {
            return Self::Kept;
        }
        match (delta(&samples(fresh)), fresh.last()) {
            (Finding::Known(Delta::Independent(by) | Delta::Dependent(by)), Some((_, last))) => match i16::try_from(by)
            {
                Ok(by) if by != 0 => Self::Counted { last: *last, by },
                _ => Self::anywhere(same, fresh),
            },
            _ => Self::anywhere(same, fresh),
        }
    }

    /// The span of what was seen, widened by what so many samples leave out.
    fn anywhere(same: &[u16], fresh: &[(u16, u16)]) -> Self {
        let seen = || same.iter().copied().chain(fresh.iter().map(|(_, mapped)| *mapped));
        let (Some(low), Some(high)) = (seen().min(), seen().max()) else { return Self::Kept };
        let count = seen().count();
        let span = u32::from(high - low) + 1;
        if count < FEWEST || span > WIDE {
            return Self::Random { low: LOWEST, high: u16::MAX };
        }
        // The expected gap beyond the outermost of n samples is span / (n - 1): twice that is missed in one of seven.
        let more = u16::try_from(2 * span / (count as u32 - 1)).unwrap_or(u16::MAX);
        Self::Random { low: low.saturating_sub(more).max(LOWEST), high: high.saturating_add(more) }
    }

    /// Whether the external port towards a new destination is known.
    pub fn is_kept(self) -> bool {
        self == Self::Kept
    }
}

fn samples(fresh: &[(u16, u16)]) -> Vec<Sample> {
    let sample = |(order, (local, mapped)): (u32, &(u16, u16))| Sample {
        order,
        at: Duration::ZERO,
        local: *local,
        mapped: *mapped,
    };
    (0..).zip(fresh).map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::Rng;

    fn fresh(ports: impl IntoIterator<Item = u16>) -> Vec<(u16, u16)> {
        let mut rng = Rng::new(3);
        ports.into_iter().map(|port| (rng.port(32768, 60999), port)).collect()
    }

    #[test]
    fn a_port_that_stays_is_kept_whatever_other_sockets_get() {
        assert_eq!(Assigned::of(4, &[5000, 5000], &fresh([1, 2, 3])), Assigned::Kept);
        assert_eq!(Assigned::of(4, &[], &[]), Assigned::Kept);
    }

    #[test]
    fn a_server_that_is_silent_leaves_it_open_unless_the_port_is_the_sockets_own() {
        assert_eq!(Assigned::of(5000, &[5000], &[]), Assigned::Kept);
        assert_eq!(Assigned::of(4, &[5000], &fresh(5001..5025)), Assigned::Counted { last: 5024, by: 1 });
        assert_eq!(Assigned::of(4, &[5000], &[]), Assigned::Random { low: 1024, high: 65535 });
    }

    #[test]
    fn a_fresh_socket_is_foreseen_where_its_port_is_kept_or_moved_by_a_fixed_distance() {
        let all =
            |by: i32| (0..24).map(|at| (40_000 + 7 * at, (40_000 + 7 * i32::from(at) + by) as u16)).collect::<Vec<_>>();
        assert_eq!(Assigned::fresh_by(&all(0)), Some(0));
        let mut moved = all(-4000);
        moved[3].1 = 5;
        assert_eq!(Assigned::fresh_by(&moved), Some(-4000), "one found its port taken");
        assert_eq!(Assigned::fresh_by(&moved[..5]), None, "too few to tell");
        assert_eq!(Assigned::fresh_by(&fresh(40_000..40_024)), None);
    }

    #[test]
    fn counted_ports_go_on_from_the_last_one() {
        assert_eq!(
            Assigned::of(4, &[40000, 40001], &fresh((40002..40026).step_by(1))),
            Assigned::Counted { last: 40025, by: 1 }
        );
        assert_eq!(
            Assigned::of(4, &[40100, 40098], &fresh((0..24).map(|at| 40096 - 2 * at))),
            Assigned::Counted { last: 40050, by: -2 }
        );
    }

    #[test]
    fn ports_that_count_while_the_hosts_own_do_are_foreseen_and_where_that_goes_on() {
        let mut rng = Rng::new(5);
        let (mut last, mut mapped) = (0, 0);
        let mut seen = Vec::new();
        for local in Assigned::samples(&mut rng) {
            mapped = if local == last + 1 { mapped - 2 } else { rng.port(1024, 65535) };
            last = local;
            seen.push((local, mapped));
        }
        assert_eq!(Assigned::of(4, &[9000, 30000], &seen), Assigned::Counted { last: mapped, by: -2 });
        assert_eq!(Assigned::row(&seen), Some(last));
        assert_eq!(Assigned::row(&fresh(40002..40026)), None, "they count whatever the host's own do");
    }

    #[test]
    fn a_first_destination_counts_as_kept_unless_the_peers_port_is_not_known() {
        let shape = Shape { addr: "192.0.2.1:5000".parse().unwrap(), ports: Assigned::First };
        assert_eq!(shape.against(Assigned::Kept), Assigned::Kept);
        assert_eq!(shape.against(Assigned::First), Assigned::Kept);
        let counted = Assigned::Counted { last: 9, by: 3 };
        assert_eq!(shape.against(counted), Assigned::Counted { last: 5000, by: 1 });
    }

    #[test]
    fn random_ports_of_a_block_are_within_what_is_guessed() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let mut port = || rng.port(40000, 40511);
            let same = [port(), port()];
            let ports = fresh((0..24).map(|_| port()));
            let Assigned::Random { low, high } = Assigned::of(4, &same, &ports) else { continue };
            assert!(high - low < 700 && low < 40100 && high > 40411, "{seed}: {low} to {high}");
        }
    }

    #[test]
    fn ports_from_everywhere_are_from_everywhere() {
        let mut rng = Rng::new(1);
        let ports = fresh((0..24).map(|_| rng.port(1024, 65535)));
        assert_eq!(Assigned::of(4, &[2000, 60000], &ports), Assigned::Random { low: 1024, high: 65535 });
        assert_eq!(Assigned::of(4, &[2000, 2100], &[]), Assigned::Random { low: 1024, high: 65535 });
    }
}
