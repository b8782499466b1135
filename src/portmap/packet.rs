//! Decides: the bytes of PCP (RFC 6887) and NAT-PMP (RFC 6886), as a client writes and reads them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Proto;

/// Where both are spoken.
pub(super) const PORT: u16 = 5351;

const PCP: u8 = 2;
const NAT_PMP: u8 = 0;
/// The bit that an answer has in its second byte, in both.
const ANSWER: u8 = 0x80;
const ANNOUNCE: u8 = 0;
const MAP: u8 = 1;
const HEADER: usize = 24;
const PCP_MAP: usize = 36;

/// The longest packet of PCP (RFC 6887 section 7).
pub(super) const LONGEST: usize = 1100;

/// What keeps one client's mapping from another's, over PCP.
pub(super) type Nonce = [u8; 12];

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) proto: Proto,
    /// Our port.
    pub(super) port: u16,
    /// The external address that is liked best; the one that we had, when it is renewed.
    pub(super) external: Option<SocketAddr>,
    /// Seconds; 0 takes it back.
    pub(super) lifetime: u32,
    pub(super) nonce: Nonce,
}

/// What a gateway says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// It is there, and has counted so many seconds.
    There {
        /// Since it started, or lost what it held.
        epoch: u32,
    },
    /// Its external address (NAT-PMP).
    External {
        /// That address.
        ip: Ipv4Addr,
        /// As above.
        epoch: u32,
    },
    /// A port is forwarded.
    Mapped {
        /// The number of the protocol in IP.
        proto: u8,
        /// Our port.
        port: u16,
        /// The gateway's port, and over PCP its address too.
        external: (Option<IpAddr>, u16),
        /// Seconds; 0 where it was taken back.
        lifetime: u32,
        /// As above.
        epoch: u32,
        /// Ours (PCP).
        nonce: Option<[u8; 12]>,
    },
    /// No.
    Refused {
        /// The protocol's number for it.
        code: u16,
        /// What that means.
        why: &'static str,
        /// It speaks the protocol, but another version of it or not this part: it may be asked otherwise.
        unsupported: bool,
    },
}

/// The bytes are no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Wrong {
    /// Shorter than such an answer is.
    #[error("{0} bytes are too few")]
    Short(usize),
    /// Of another protocol or version.
    #[error("its version is {0}")]
    Version(u8),
    /// A request, or an answer to what was not asked.
    #[error("it answers what was not asked")]
    NotAsked,
}

// ---- PCP

/// Whether somebody is there (RFC 6887 section 14.1).
pub(super) fn pcp_announce(client: IpAddr) -> Vec<u8> {
    pcp_header(ANNOUNCE, 0, client)
}

/// MAP (RFC 6887 section 11.1).
pub(super) fn pcp_map(client: IpAddr, wanted: &Wanted) -> Vec<u8> {
    let mut bytes = pcp_header(MAP, wanted.lifetime, client);
    bytes.extend_from_slice(&wanted.nonce);
    bytes.extend_from_slice(&[wanted.proto.number(), 0, 0, 0]);
    bytes.extend_from_slice(&wanted.port.to_be_bytes());
    let any =
        SocketAddr::new(if client.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }, 0);
    let external = wanted.external.unwrap_or(any);
    bytes.extend_from_slice(&external.port().to_be_bytes());
    bytes.extend_from_slice(&mapped(external.ip()).octets());
    bytes
}

fn pcp_header(opcode: u8, lifetime: u32, client: IpAddr) -> Vec<u8> {
    let mut bytes = vec![PCP, opcode, 0, 0];
    bytes.extend_from_slice(&lifetime.to_be_bytes());
    bytes.extend_from_slice(&mapped(client).octets());
    bytes
}

/// PCP writes IPv4 addresses as IPv6 ones.
fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// An answer of a PCP server.
///
/// # Errors
/// [`Wrong`] when the bytes are none.
pub fn read_pcp(bytes: &[u8]) -> Result<Answer, Wrong> {
    let (&[version, opcode], _) = bytes.split_first_chunk::<2>().ok_or(Wrong::Short(bytes.len()))?;
    // A server of NAT-PMP alone answers in its own version, with the code that says so (RFC 6886 section 3.5).
    if version == NAT_PMP && opcode & ANSWER != 0 {
        return Ok(Answer::Refused { code: 1, why: "it speaks NAT-PMP only", unsupported: true });
    }
    if version != PCP {
        return Err(Wrong::Version(version));
    }
    let (header, rest) = bytes.split_first_chunk::<HEADER>().ok_or(Wrong::Short(bytes.len()))?;
    if opcode & ANSWER == 0 {
        return Err(Wrong::NotAsked);
    }
    let (code, lifetime, epoch) = (header[3], word(&header[4..8]), word(&header[8..12]));
    match (code, opcode & !ANSWER) {
        (0, ANNOUNCE) => Ok(Answer::There { epoch }),
        (0, MAP) => read_pcp_map(rest, lifetime, epoch).ok_or(Wrong::Short(bytes.len())),
        (0, _) => Err(Wrong::NotAsked),
        (code, _) => Ok(Answer::Refused { code: code.into(), why: pcp_says(code), unsupported: matches!(code, 1 | 4) }),
    }
}

fn read_pcp_map(bytes: &[u8], lifetime: u32, epoch: u32) -> Option<Answer> {
    let map = bytes.first_chunk::<PCP_MAP>()?;
    let nonce = *map.first_chunk::<12>()?;
    let ip = Ipv6Addr::from(*map.last_chunk::<16>()?).to_canonical();
    let (port, external) = (half(&map[16..18]), half(&map[18..20]));
    Some(Answer::Mapped { proto: map[12], port, external: (Some(ip), external), lifetime, epoch, nonce: Some(nonce) })
}

/// RFC 6887 section 7.4.
fn pcp_says(code: u8) -> &'static str {
    match code {
        1 => "its PCP is of another version",
        2 => "not allowed",
        3 => "it takes the request for malformed",
        4 => "it does not do this",
        5 => "it does not know an option",
        6 => "it takes an option for malformed",
        7 => "its network is down",
        8 => "it has nothing left to give",
        9 => "it does not do this for the protocol",
        10 => "we have used up what we may have",
        11 => "it can not give this external address",
        12 => "there is another NAT between us and it",
        13 => "too many are asked for at once",
        _ => "for a reason of its own",
    }
}

// ---- NAT-PMP

/// What the external address is (RFC 6886 section 3.2).
pub(super) fn nat_pmp_external() -> Vec<u8> {
    vec![NAT_PMP, 0]
}

/// A mapping (RFC 6886 section 3.3). To take one back, the external port must be 0.
pub(super) fn nat_pmp_map(wanted: &Wanted) -> Vec<u8> {
    let mut bytes = vec![NAT_PMP, nat_pmp_opcode(wanted.proto), 0, 0];
    bytes.extend_from_slice(&wanted.port.to_be_bytes());
    let external = wanted.external.filter(|_| wanted.lifetime > 0).map_or(0, |external| external.port());
    bytes.extend_from_slice(&external.to_be_bytes());
    bytes.extend_from_slice(&wanted.lifetime.to_be_bytes());
    bytes
}

fn nat_pmp_opcode(proto: Proto) -> u8 {
    match proto {
        Proto::Udp => 1,
        Proto::Tcp => 2,
    }
}

/// An answer of a NAT-PMP server.
///
/// # Errors
/// [`Wrong`] when the bytes are none.
pub fn read_nat_pmp(bytes: &[u8]) -> Result<Answer, Wrong> {
    let short = Wrong::Short(bytes.len());
    let (&[version, opcode], _) = bytes.split_first_chunk::<2>().ok_or(short)?;
    // A server of PCP alone answers in its own version (RFC 6887 section 9).
    if version == PCP && opcode & ANSWER != 0 {
        return Ok(Answer::Refused { code: 1, why: "it speaks PCP only", unsupported: true });
    }
    if version != NAT_PMP {
        return Err(Wrong::Version(version));
    }
    if opcode & ANSWER == 0 {
        return Err(Wrong::NotAsked);
    }
    let code = half(bytes.get(2..4).ok_or(short)?);
    if code != 0 {
        return Ok(Answer::Refused { code, why: nat_pmp_says(code), unsupported: matches!(code, 1 | 5) });
    }
    let epoch = word(bytes.get(4..8).ok_or(short)?);
    let rest = bytes.get(8..).ok_or(short)?;
    match (opcode & !ANSWER, rest) {
        (0, [a, b, c, d, ..]) => Ok(Answer::External { ip: Ipv4Addr::new(*a, *b, *c, *d), epoch }),
        (opcode @ (1 | 2), [a, b, c, d, lifetime @ ..]) if lifetime.len() >= 4 => {
            let proto = if opcode == 1 { Proto::Udp } else { Proto::Tcp }.number();
            let (port, external) = (half(&[*a, *b]), half(&[*c, *d]));
            let lifetime = word(&lifetime[..4]);
            Ok(Answer::Mapped { proto, port, external: (None, external), lifetime, epoch, nonce: None })
        }
        (0..=2, _) => Err(short),
        _ => Err(Wrong::NotAsked),
    }
}

/// RFC 6886 section 3.5.
fn nat_pmp_says(code: u16) -> &'static str {
    match code {
        1 => "its NAT-PMP is of another version",
        2 => "not allowed, most likely switched off",
        3 => "its network is down",
        4 => "it has nothing left to give",
        5 => "it does not do this",
        _ => "for a reason of its own",
    }
}

/// Of slices whose length was checked; a shorter one counts as zeros.
fn word(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn half(bytes: &[u8]) -> u16 {
    bytes.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted = Wanted { proto: Proto::Tcp, port: 0x1234, external: None, lifetime: 7200, nonce: [7; 12] };

    fn pcp_answer(code: u8) -> Vec<u8> {
        let mut bytes =
            pcp_map([192, 168, 1, 7].into(), &Wanted { external: Some(([9, 9, 9, 9], 0x5678).into()), ..WANTED });
        bytes[1] |= ANSWER;
        bytes[3] = code;
        bytes[8..12].copy_from_slice(&99_u32.to_be_bytes());
        bytes
    }

    #[test]
    fn a_pcp_mapping_is_asked_for_in_the_bytes_of_rfc_6887() {
        let bytes = pcp_map([192, 168, 1, 7].into(), &WANTED);
        assert_eq!(bytes.len(), 60);
        assert_eq!(bytes[..8], [2, 1, 0, 0, 0, 0, 0x1C, 0x20]);
        assert_eq!(bytes[8..24], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 192, 168, 1, 7]);
        assert_eq!(bytes[24..36], [7; 12]);
        assert_eq!(bytes[36..44], [6, 0, 0, 0, 0x12, 0x34, 0, 0]);
        assert_eq!(bytes[44..], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0]);
        let pinhole = pcp_map("2001:db8::7".parse().unwrap(), &WANTED);
        assert_eq!(pinhole[44..], [0; 16], "any IPv6 address");
    }

    #[test]
    fn pcp_answers_are_read_and_refusals_named() {
        let mapped = read_pcp(&pcp_answer(0)).unwrap();
        let external = (Some([9, 9, 9, 9].into()), 0x5678);
        let nonce = Some([7; 12]);
        assert_eq!(mapped, Answer::Mapped { proto: 6, port: 0x1234, external, lifetime: 7200, epoch: 99, nonce });
        let Ok(Answer::Refused { code: 2, why, unsupported: false }) = read_pcp(&pcp_answer(2)) else { panic!() };
        assert_eq!(why, "not allowed");
        let mut there = pcp_answer(0);
        (there[1], there[7]) = (ANSWER, 0);
        assert_eq!(read_pcp(&there[..24]), Ok(Answer::There { epoch: 99 }));
    }

    #[test]
    fn cut_pcp_answers_requests_and_other_versions_are_none() {
        let whole = pcp_answer(0);
        for len in 0..whole.len() {
            assert!(read_pcp(&whole[..len]).is_err(), "{len} bytes");
        }
        assert_eq!(read_pcp(&pcp_map([10, 0, 0, 1].into(), &WANTED)), Err(Wrong::NotAsked));
        assert_eq!(read_pcp(&[1; 60]), Err(Wrong::Version(1)));
        let older = [0, 0x81, 0, 1, 0, 0, 0, 9];
        assert!(matches!(read_pcp(&older), Ok(Answer::Refused { unsupported: true, .. })), "NAT-PMP only");
    }

    #[test]
    fn nat_pmp_is_spoken_in_the_bytes_of_rfc_6886() {
        assert_eq!(nat_pmp_external(), [0, 0]);
        assert_eq!(nat_pmp_map(&WANTED), [0, 2, 0, 0, 0x12, 0x34, 0, 0, 0, 0, 0x1C, 0x20]);
        let back = Wanted { lifetime: 0, external: Some(([9, 9, 9, 9], 5).into()), proto: Proto::Udp, ..WANTED };
        assert_eq!(nat_pmp_map(&back), [0, 1, 0, 0, 0x12, 0x34, 0, 0, 0, 0, 0, 0]);
        let external = [0, 128, 0, 0, 0, 0, 0, 99, 9, 9, 9, 9];
        assert_eq!(read_nat_pmp(&external), Ok(Answer::External { ip: [9, 9, 9, 9].into(), epoch: 99 }));
        let mapped = [0, 130, 0, 0, 0, 0, 0, 99, 0x12, 0x34, 0x56, 0x78, 0, 0, 0x1C, 0x20];
        let (external, proto) = ((None, 0x5678), 6);
        let read = Answer::Mapped { proto, port: 0x1234, external, lifetime: 7200, epoch: 99, nonce: None };
        assert_eq!(read_nat_pmp(&mapped), Ok(read));
        for len in 0..mapped.len() {
            assert!(read_nat_pmp(&mapped[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn nat_pmp_refusals_have_words() {
        let Ok(Answer::Refused { code: 2, why, .. }) = read_nat_pmp(&[0, 129, 0, 2, 0, 0, 0, 0]) else { panic!() };
        assert_eq!(why, "not allowed, most likely switched off");
        assert!(matches!(read_nat_pmp(&[2, 0x80, 0, 1]), Ok(Answer::Refused { unsupported: true, .. })), "PCP only");
        assert_eq!(read_nat_pmp(&[0, 0]), Err(Wrong::NotAsked), "our own request, thrown back");
        assert_eq!(read_nat_pmp(&[0, 0x83, 0, 0, 0, 0, 0, 0, 0]), Err(Wrong::NotAsked));
    }
}
