//! Decides: what two peers tell each other before they meet at a TURN server.

use std::net::{IpAddr, SocketAddr};

use crate::net::is_elsewhere;

/// Addresses that are taken of a peer; more would make us ask a server about many.
const SEEN: usize = 8;

/// What an end has for meeting at a TURN server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Offer {
    /// An address of ours at a TURN server.
    pub(super) relayed: Option<SocketAddr>,
    /// That server, which tells everybody which address it sees.
    pub(super) server: Option<SocketAddr>,
    /// Addresses that our datagrams come from without a server between.
    pub(super) seen: Vec<IpAddr>,
}

const RELAYED: u8 = 1;
const SERVER: u8 = 2;
const SEEN_AT: u8 = 3;

/// The bytes are no offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what the peer says of TURN can not be understood: it may be of another version")]
pub(super) struct NoOffer;

impl Offer {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let of = |tag: u8, addr: &SocketAddr| (tag, *addr);
        let one =
            self.relayed.iter().map(|addr| of(RELAYED, addr)).chain(self.server.iter().map(|addr| of(SERVER, addr)));
        let seen = self.seen.iter().take(SEEN).map(|ip| (SEEN_AT, SocketAddr::new(*ip, 0)));
        let mut bytes = Vec::new();
        for (tag, addr) in one.chain(seen) {
            bytes.push(tag);
            match addr.ip() {
                IpAddr::V4(ip) => {
                    bytes.push(4);
                    bytes.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    bytes.push(6);
                    bytes.extend_from_slice(&ip.octets());
                }
            }
            bytes.extend_from_slice(&addr.port().to_be_bytes());
        }
        bytes
    }

    pub(super) fn from_bytes(mut bytes: &[u8]) -> Result<Self, NoOffer> {
        let mut offer = Self::default();
        while let Some((&tag, rest)) = bytes.split_first() {
            let (addr, rest) = address(rest).ok_or(NoOffer)?;
            bytes = rest;
            match tag {
                RELAYED if offer.relayed.is_none() && is_elsewhere(addr) => offer.relayed = Some(addr),
                SERVER if offer.server.is_none() && is_elsewhere(addr) => offer.server = Some(addr),
                SEEN_AT if offer.seen.len() < SEEN => offer.seen.push(addr.ip()),
                SEEN_AT => {}
                _ => return Err(NoOffer),
            }
        }
        Ok(offer)
    }
}

fn address(bytes: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (family, rest) = bytes.split_first()?;
    let (ip, rest): (IpAddr, &[u8]) = match family {
        4 => rest.split_first_chunk::<4>().map(|(ip, rest)| ((*ip).into(), rest))?,
        6 => rest.split_first_chunk::<16>().map(|(ip, rest)| ((*ip).into(), rest))?,
        _ => return None,
    };
    let (port, rest) = rest.split_first_chunk::<2>()?;
    Some((SocketAddr::new(ip, u16::from_be_bytes(*port)), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> Offer {
        Offer {
            relayed: Some("198.51.100.1:50000".parse().unwrap()),
            server: Some("[2001:db8::1]:3478".parse().unwrap()),
            seen: vec!["203.0.113.1".parse().unwrap(), "2001:db8::7".parse().unwrap()],
        }
    }

    #[test]
    fn an_offer_is_read_as_it_was_written_and_cut_ones_are_none() {
        for offer in [offer(), Offer::default(), Offer { relayed: None, ..offer() }] {
            assert_eq!(Offer::from_bytes(&offer.to_bytes()), Ok(offer));
        }
        let whole = offer().to_bytes();
        let good = (0..whole.len()).filter(|len| Offer::from_bytes(&whole[..*len]).is_ok()).count();
        assert_eq!(good, 4, "between its parts");
    }

    #[test]
    fn addresses_that_are_nowhere_are_not_taken_and_of_many_a_few() {
        for wrong in
            ["127.0.0.1:9", "0.0.0.0:9", "224.0.0.1:9", "255.255.255.255:9", "198.51.100.1:0", "[::ffff:127.0.0.1]:9"]
        {
            let offer = Offer { relayed: Some(wrong.parse().unwrap()), ..Offer::default() };
            assert_eq!(Offer::from_bytes(&offer.to_bytes()), Err(NoOffer), "{wrong}");
        }
        let many = Offer { seen: vec![IpAddr::from([203, 0, 113, 1]); 40], ..Offer::default() };
        let bytes = many.to_bytes().repeat(3);
        assert_eq!(Offer::from_bytes(&bytes).unwrap().seen.len(), SEEN);
        let twice = Offer { seen: vec![], ..offer() }.to_bytes().repeat(2);
        assert_eq!(Offer::from_bytes(&twice), Err(NoOffer));
    }
}
