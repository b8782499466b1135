//! Decides: what is done beside ordinary punching when a NAT takes another port for each destination.
//!
//! Both ends know both shapes, so each computes its own part of the same plan.

use std::collections::HashSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use super::shape::{Assigned, LOWEST, Shape};
use crate::nat::{Ports, Proto, Rng};

/// Sockets of an end whose ports are random, against a peer that stays at its port.
const MANY: usize = 256;
/// Ports of such an end that the peer tries: all of 64,512 would take a minute.
const TRIED: usize = 4096;
/// The same over TCP: each try is a socket. What is tried later reuses the oldest ones.
const TRIED_TCP: usize = 2048;
/// Connections per end that a two-sided birthday may take over TCP: enough for a block of 512 ports against a range of 4,096.
const AFFORDABLE_TCP: u32 = 3_600;
/// Sockets of an end whose ports are counted.
const FEW: usize = 32;
/// How many mappings of others may come in between: 25 were too few where 40 came, 100 enough.
const FOREIGN: usize = 128;
/// The first of them are taken by the peer's own checks, whose packets have come here already: where a plain Linux router saw
/// one, a packet to it gets another source port, and so does each that follows. They come last.
const BURNT: usize = 8;
/// Sockets of each end, where both count; they aim at the middle.
const LINE: usize = 100;
/// Sockets, or packets, of an end whose ports are counted, against one whose ports are random: each packet of the other end hits
/// with the same odds, to however many of our ports it goes, so few enough that the count does not begin anew meanwhile, and
/// many enough that what others take in between is a small part.
const WINDOW: usize = 512;
/// Packets per end that a two-sided birthday may take unasked: enough for a range of 4,096 ports against a count, and for a block of 512
/// against all ports, in the time that a punch has, since each goes twice.
const AFFORDABLE: u32 = 17_000;
/// And when it was asked for: 135,000 gave 5 of 5 over all ports.
const ALL_OUT: u32 = 140_000;
/// Of the packets that make a hit 95% likely.
const MARGIN: f64 = 1.25;

/// What an end does beside ICE or simultaneous open.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Plan {
    /// Nothing: both stay at their ports, as far as anything shows.
    Meet,
    /// Our ports are not known beforehand: so many sockets send to the one address of the peer, who tries our ports.
    Open {
        /// How many sockets.
        sockets: usize,
        /// The peer's address.
        to: SocketAddr,
    },
    /// The peer's ports are not known beforehand: one socket of ours tries these.
    Spray {
        /// The peer's external address.
        ip: Ipv4Addr,
        /// The likeliest ports first.
        ports: Vec<u16>,
    },
    /// Neither's are: so many sockets try ports, and so does the peer.
    ///
    /// Each socket has ports of its own: a NAT that takes one external port for a socket and an address, whatever the port
    /// there, has no more of them than there are sockets, and to send from all of them to one list of ports would stake
    /// everything on few draws (54% where it takes 95%).
    Cross {
        /// How many sockets.
        sockets: usize,
        /// The peer's external address.
        ip: Ipv4Addr,
        /// For each packet, from the sockets in turn.
        ports: Vec<u16>,
    },
    /// Neither's are, and to guess both would take this many packets from each end. What may still be is that one NAT lets in
    /// all of an address that its host has sent to, whatever the port there: so many sockets send to the peer's address, and one
    /// tries these ports.
    Either {
        /// How many sockets.
        sockets: usize,
        /// The peer's address.
        to: SocketAddr,
        /// The peer's ports.
        ports: Vec<u16>,
        /// Packets per end for a hit in 19 of 20 attempts, if both had to be guessed.
        packets: u32,
    },
    /// Neither's are, and to guess both would take this many packets from each end: a relay is better, unless
    /// [`all_out`](super::Puncher::all_out) asks for it.
    Hopeless {
        /// Packets per end for a hit in 19 of 20 attempts.
        packets: u32,
    },
}

impl Plan {
    /// Our part, of what is known of both; `seed` makes the choice of ports. `all_out` as in
    /// [`Puncher::all_out`](super::Puncher::all_out).
    pub fn new(proto: Proto, ours: Option<Shape>, theirs: Option<Shape>, all_out: bool, seed: u64) -> Self {
        let (Some(ours), Some(theirs)) = (ours, theirs) else { return Self::Meet };
        let (ip, theirs_at) = (*theirs.addr.ip(), theirs.addr);
        match (ours.against(theirs.ports), theirs.against(ours.ports)) {
            (Assigned::Kept, Assigned::Kept) => Self::Meet,
            (Assigned::Counted { .. }, Assigned::Kept) => Self::Open { sockets: FEW, to: theirs.addr.into() },
            (Assigned::Random { .. }, Assigned::Kept) => Self::Open { sockets: MANY, to: theirs.addr.into() },
            (Assigned::Kept, Assigned::Counted { last, by }) => {
                // The count may begin anew at a port that is not known.
                let anywhere = draw(LOWEST, u16::MAX, tried(proto), seed);
                let mut next: Vec<u16> = ahead(last, by, FEW + FOREIGN).collect();
                next.rotate_left(BURNT);
                Self::Spray { ip, ports: next.into_iter().chain(anywhere).collect() }
            }
            (Assigned::Kept, Assigned::Random { low, high }) => {
                Self::Spray { ip, ports: draw(low, high, tried(proto), seed) }
            }
            (Assigned::Counted { .. }, Assigned::Counted { last, by }) => {
                let middle = ahead(last, by, LINE * 3 / 5).last().unwrap_or(last);
                Self::Cross { sockets: LINE, ip, ports: vec![middle; LINE] }
            }
            (ours, theirs) => Self::cross(proto, ours, theirs, theirs_at, all_out, seed),
        }
    }

    fn cross(proto: Proto, ours: Assigned, theirs: Assigned, at: SocketAddrV4, all_out: bool, seed: u64) -> Self {
        let (packets, ip) = (packets(ours, theirs), *at.ip());
        let most = match proto {
            // Each packet is a socket.
            Proto::Tcp if packets > AFFORDABLE_TCP => return Self::Hopeless { packets },
            Proto::Tcp => AFFORDABLE_TCP,
            Proto::Udp if all_out => ALL_OUT,
            Proto::Udp => AFFORDABLE,
        };
        if packets > most {
            let ports = guesses(theirs, TRIED, seed);
            return Self::Either { sockets: MANY, to: at.into(), ports, packets };
        }
        let own = match ours {
            Assigned::Counted { .. } => f64::from(packets).min(WINDOW as f64),
            _ => f64::from(packets),
        };
        let sockets = own.sqrt().ceil().clamp(16.0, MANY as f64);
        let each = (own / sockets).ceil() as usize;
        let sockets = sockets as usize;
        let mut rng = Rng::new(seed);
        let lists: Vec<Vec<u16>> = (0..sockets).map(|_| guesses(theirs, each, rng.word())).collect();
        let ports = (0..each).flat_map(|at| lists.iter().filter_map(move |list| list.get(at).copied())).collect();
        Self::Cross { sockets, ip, ports }
    }

    /// True where a hole is not to be expected, and a relay is to be had meanwhile.
    pub fn is_hopeless(&self) -> bool {
        matches!(self, Self::Hopeless { .. } | Self::Either { .. })
    }

    /// Packets or connections that our part takes at most, beside ordinary punching.
    pub fn cost(&self) -> usize {
        match self {
            Self::Meet | Self::Hopeless { .. } => 0,
            Self::Open { sockets, .. } => *sockets,
            Self::Either { sockets, ports, .. } => sockets + ports.len(),
            Self::Spray { ports, .. } => ports.len(),
            Self::Cross { ports, .. } => ports.len(),
        }
    }
}

/// As text: thousands of ports are no use to anyone.
impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plan({self})")
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meet => f.write_str("both ends keep their ports for every destination"),
            Self::Open { sockets, to } => {
                write!(f, "our NAT takes another port for each destination: {sockets} sockets send to {to}")
            }
            Self::Spray { ip, ports } => {
                write!(
                    f,
                    "the peer's NAT takes another port for each destination: {} ports of {ip} are tried",
                    ports.len()
                )
            }
            Self::Cross { sockets, ip, ports } => write!(
                f,
                "both NATs take another port for each destination: {sockets} sockets try {} ports of {ip} between them",
                ports.len()
            ),
            Self::Either { sockets, ports, packets, .. } => write!(
                f,
                "both NATs take another port for each destination, and guessing both would take {packets} packets from each \
                 end: use a relay (in case one of them lets in all of an address, {sockets} sockets and {} ports are tried)",
                ports.len()
            ),
            Self::Hopeless { packets } => write!(
                f,
                "both NATs take another port for each destination, and guessing both would take {packets} packets from each \
                 end: use a relay"
            ),
        }
    }
}

/// How many ports are tried.
fn tried(proto: Proto) -> usize {
    if proto == Proto::Udp { TRIED } else { TRIED_TCP }
}

/// n packets from each end meet with probability 1 - exp(-n² / (R1 R2)), where R is how many ports each may have; a counting
/// NAT has as many as packets are sent.
fn packets(ours: Assigned, theirs: Assigned) -> u32 {
    const THREE: f64 = 2.995_732; // -ln(0.05)
    let range = |assigned| match assigned {
        Assigned::Random { low, high } => Some(f64::from(high.saturating_sub(low)) + 1.0),
        _ => None,
    };
    let needed = match (range(ours), range(theirs)) {
        (Some(ours), Some(theirs)) => (THREE * ours * theirs).sqrt(),
        (Some(one), None) | (None, Some(one)) => THREE * one,
        (None, None) => 0.0,
    };
    (needed * MARGIN).ceil() as u32
}

/// Different ports that the peer's NAT may take, as many as one socket tries.
fn guesses(theirs: Assigned, each: usize, seed: u64) -> Vec<u16> {
    match theirs {
        Assigned::Random { low, high } => draw(low, high, each, seed),
        // Each of their packets takes one more port.
        Assigned::Counted { last, by } => {
            let mut all: Vec<u16> = ahead(last, by, WINDOW.max(each)).collect();
            shuffle(&mut all, seed);
            all.truncate(each);
            all
        }
        Assigned::Kept | Assigned::First => Vec::new(),
    }
}

/// The ports that come next where they are counted.
fn ahead(last: u16, by: i16, count: usize) -> impl Iterator<Item = u16> {
    std::iter::successors(Some(last), move |port| Some(Ports::UNPRIVILEGED.step(*port, i32::from(by))))
        .skip(1)
        .take(count)
}

/// Different ports out of a range, in random order.
fn draw(low: u16, high: u16, most: usize, seed: u64) -> Vec<u16> {
    let all = usize::from(high.saturating_sub(low)) + 1;
    if most * 2 >= all {
        let mut ports: Vec<u16> = (low..=high).collect();
        shuffle(&mut ports, seed);
        ports.truncate(most);
        return ports;
    }
    let (mut rng, mut seen) = (Rng::new(seed), HashSet::new());
    let fresh = std::iter::from_fn(|| Some(rng.port(low, high))).filter(|port| seen.insert(*port));
    fresh.take(most).collect()
}

fn shuffle(ports: &mut [u16], seed: u64) {
    let mut rng = Rng::new(seed);
    for at in (1..ports.len()).rev() {
        ports.swap(at, rng.below(at as u64 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: Assigned = Assigned::Random { low: 40000, high: 40511 };
    const ALL: Assigned = Assigned::Random { low: 1024, high: 65535 };
    const COUNTED: Assigned = Assigned::Counted { last: 41000, by: 1 };

    fn shape(ports: Assigned) -> Option<Shape> {
        Some(Shape { addr: "192.0.2.1:5000".parse().unwrap(), ports })
    }

    fn both(a: Assigned, b: Assigned) -> (Plan, Plan) {
        let plan = |ours, theirs| Plan::new(Proto::Udp, shape(ours), shape(theirs), false, 7);
        (plan(a, b), plan(b, a))
    }

    #[test]
    fn ends_that_keep_their_ports_need_nothing_more() {
        assert_eq!(both(Assigned::Kept, Assigned::Kept), (Plan::Meet, Plan::Meet));
        assert_eq!(Plan::new(Proto::Udp, None, shape(ALL), false, 7), Plan::Meet);
    }

    #[test]
    fn one_end_opens_and_the_other_sprays() {
        let (Plan::Open { sockets, to }, Plan::Spray { ports, .. }) = both(ALL, Assigned::Kept) else { panic!() };
        assert_eq!((sockets, to), (MANY, "192.0.2.1:5000".parse().unwrap()));
        assert_eq!((ports.len(), ports.iter().collect::<HashSet<_>>().len()), (TRIED, TRIED));
        let (_, Plan::Spray { mut ports, .. }) = both(BLOCK, Assigned::Kept) else { panic!() };
        ports.sort();
        assert!(ports.into_iter().eq(40000..=40511), "a block is tried as a whole");
    }

    #[test]
    fn counted_ports_are_foreseen_past_what_others_take() {
        let (Plan::Open { sockets, .. }, Plan::Spray { ports, .. }) = both(COUNTED, Assigned::Kept) else { panic!() };
        for taken in 0..FOREIGN as u16 {
            let mapped: HashSet<u16> = (41001 + taken..).take(sockets).collect();
            assert!(ports[..FEW + FOREIGN].iter().any(|port| mapped.contains(port)), "{taken}");
        }
    }

    /// How a NAT takes ports: another one for each packet's destination, or one for all of a socket's.
    #[derive(Clone, Copy, PartialEq)]
    enum By {
        Endpoint,
        Address,
    }

    /// Both ends in numbers: what each maps, and whether one packet finds its counterpart.
    fn meets(a: (Assigned, By), b: (Assigned, By), seed: u64) -> bool {
        let plan = |ours, theirs, seed| Plan::new(Proto::Udp, shape(ours), shape(theirs), false, seed);
        let mut rng = Rng::new(seed);
        let mut mapped = |plan: Plan, (own, by): (Assigned, By)| -> HashSet<(u16, u16)> {
            let Plan::Cross { sockets, ports, .. } = plan else { panic!("{plan:?}") };
            let mut next = 0;
            let mut port = || {
                next += 1;
                match own {
                    Assigned::Counted { last, .. } => last + next,
                    Assigned::Random { low, high } => rng.port(low, high),
                    Assigned::Kept | Assigned::First => unreachable!(),
                }
            };
            let of_sockets: Vec<u16> = (0..sockets).map(|_| if by == By::Address { port() } else { 0 }).collect();
            let mut all = HashSet::new();
            for (at, to) in ports.into_iter().enumerate() {
                all.insert((if by == By::Address { of_sockets[at % sockets] } else { port() }, to));
            }
            all
        };
        let ours = mapped(plan(a.0, b.0, seed * 2), a);
        let theirs = mapped(plan(b.0, a.0, seed * 2 + 1), b);
        ours.iter().any(|(from, to)| theirs.contains(&(*to, *from)))
    }

    #[test]
    fn where_both_guess_they_meet_in_19_of_20_attempts() {
        use By::{Address, Endpoint};
        const LARGE: Assigned = Assigned::Random { low: 40000, high: 44095 };
        for (a, b) in [
            ((BLOCK, Endpoint), (BLOCK, Endpoint)),
            ((BLOCK, Endpoint), (COUNTED, Endpoint)),
            ((COUNTED, Endpoint), (COUNTED, Endpoint)),
            ((LARGE, Address), (BLOCK, Endpoint)),
            ((LARGE, Address), (LARGE, Address)),
            ((BLOCK, Address), (BLOCK, Address)),
        ] {
            let met = (0..200).filter(|seed| meets(a, b, *seed)).count();
            assert!(met >= 190, "{:?} and {:?}: {met} of 200", a.0, b.0);
        }
    }

    #[test]
    fn what_costs_too_much_is_not_tried_unasked() {
        let (plan, _) = both(ALL, ALL);
        assert!(matches!(plan, Plan::Either { packets, .. } if packets > 100_000), "{plan:?}");
        assert!(plan.to_string().contains("use a relay") && plan.is_hopeless() && plan.cost() < 5_000);
        let asked = Plan::new(Proto::Udp, shape(ALL), shape(ALL), true, 7);
        assert!((111_000..=ALL_OUT as usize + 1000).contains(&asked.cost()), "{}", asked.cost());
        let tcp = |a, b| Plan::new(Proto::Tcp, shape(a), shape(b), true, 7);
        assert!(matches!(tcp(ALL, BLOCK), Plan::Hopeless { .. }));
        assert!(matches!(tcp(BLOCK, BLOCK), Plan::Cross { ports, .. } if ports.len() < AFFORDABLE_TCP as usize));
    }

    #[test]
    fn a_first_destination_is_enough_or_one_of_many() {
        assert_eq!(both(Assigned::First, Assigned::Kept), (Plan::Meet, Plan::Meet));
        assert_eq!(both(Assigned::First, Assigned::First), (Plan::Meet, Plan::Meet));
        let (Plan::Cross { ports: ours, .. }, Plan::Cross { ports: theirs, .. }) = both(Assigned::First, COUNTED)
        else {
            panic!()
        };
        assert!(ours.iter().all(|port| *port == 41060) && theirs.iter().all(|port| *port == 5060));
    }
}
