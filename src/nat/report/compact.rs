//! Decides: how a report becomes a few bytes for a ticket, and back from bytes that anyone may have made.

use std::net::IpAddr;
use std::time::Duration;

use super::{Entry, Family, Finding, Foreign, Layers, Report, Why};
use crate::nat::{Delta, Filtering, Hairpin, Mapping, Ports, Proto};

/// The first byte: the version of this encoding.
const VERSION: u8 = 1;
/// Entries in one report: beyond any machine's interfaces, families and protocols that a ticket should name.
const MAX_ENTRIES: usize = 64;
/// Bytes of an interface's name; Linux allows 15, Windows' friendly names are cut.
const MAX_NAME: usize = 32;

const MAPPINGS: [Mapping; 3] =
    [Mapping::EndpointIndependent, Mapping::AddressDependent, Mapping::AddressAndPortDependent];
const FILTERINGS: [Filtering; 3] =
    [Filtering::EndpointIndependent, Filtering::AddressDependent, Filtering::AddressAndPortDependent];
const HAIRPINS: [Hairpin; 3] = [Hairpin::None, Hairpin::Internal, Hairpin::External];
const LAYERS: [Layers; 4] = [Layers::None, Layers::One, Layers::Double, Layers::Carrier];
const WHYS: [Why; 9] = [
    Why::NotAsked,
    Why::NoAnswer,
    Why::OneAddress,
    Why::NotHonoured,
    Why::NotOverTcp,
    Why::NotTranslated,
    Why::MappingDepends,
    Why::TooFewSamples,
    Why::NoRouterAddress,
];

/// Bytes that are no report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Written by a later version of natpipe, or no report at all.
    #[error("report has version {0}, which is not known")]
    Version(u8),
    /// The bytes end too early: the ticket was cut.
    #[error("report ends too early")]
    Short,
    /// A value that no report has.
    #[error("report has a bad {0}")]
    Bad(&'static str),
    /// Bytes are left over: they do not belong to a report.
    #[error("report is followed by {0} bytes")]
    Rest(usize),
}

impl Report {
    /// The report in about 35 bytes per entry; [`decode`](Self::decode) gives it back. Names longer than
    /// 32 bytes are cut, entries beyond 64 left out, times rounded to what they are documented in.
    pub fn encode(&self) -> Vec<u8> {
        let entries = &self.entries[..self.entries.len().min(MAX_ENTRIES)];
        let mut out = vec![VERSION, entries.len() as u8];
        entries.iter().for_each(|entry| write_entry(&mut out, entry));
        out
    }

    /// Reads what [`encode`](Self::encode) wrote. Fails on anything else, without allocating more than
    /// the bytes given account for.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader(bytes);
        match reader.byte()? {
            VERSION => {}
            other => return Err(DecodeError::Version(other)),
        }
        let count = usize::from(reader.byte()?);
        if count > MAX_ENTRIES {
            return Err(DecodeError::Bad("number of entries"));
        }
        let entries = (0..count).map(|_| read_entry(&mut reader)).collect::<Result<_, _>>()?;
        if reader.0.is_empty() { Ok(Self { entries }) } else { Err(DecodeError::Rest(reader.0.len())) }
    }
}

fn write_entry(out: &mut Vec<u8>, entry: &Entry) {
    let mut end = entry.interface.len().min(MAX_NAME);
    while !entry.interface.is_char_boundary(end) {
        end -= 1;
    }
    let v6 = entry.family == Family::V6;
    let tcp = entry.proto == Proto::Tcp;
    out.push(u8::from(v6) | u8::from(tcp) << 1 | u8::from(entry.pooled) << 2);
    out.push(end as u8);
    out.extend_from_slice(&entry.interface.as_bytes()[..end]);
    out.extend([entry.asked, entry.answered, entry.samples]);
    write_address(out, entry.external);
    write_finding(out, entry.translated, &[false, true]);
    write_finding(out, entry.mapping, &MAPPINGS);
    write_finding(out, entry.filtering, &FILTERINGS);
    write_delta(out, entry.delta);
    write_finding(out, entry.hairpin, &HAIRPINS);
    write_finding(out, entry.layers, &LAYERS);
    write_option(out, entry.ports.map(|p| u64::from(p.low) << 16 | u64::from(p.high)));
    write_option(out, entry.foreign.map(|f| u64::from(f.mappings) | millis(f.window) << 16));
    write_option(out, entry.lifetime.map(|l| l.as_secs()));
    write_option(out, entry.mtu.map(u64::from));
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(u64::from(u32::MAX))
}

fn read_entry(reader: &mut Reader<'_>) -> Result<Entry, DecodeError> {
    let flags = reader.byte()?;
    let length = usize::from(reader.byte()?);
    if flags > 7 || length > MAX_NAME {
        return Err(DecodeError::Bad("interface name"));
    }
    let name = std::str::from_utf8(reader.take(length)?).map_err(|_| DecodeError::Bad("interface name"))?;
    let family = if flags & 1 == 0 { Family::V4 } else { Family::V6 };
    let proto = if flags & 2 == 0 { Proto::Udp } else { Proto::Tcp };
    let mut entry = Entry::untested(name, family, proto);
    entry.pooled = flags & 4 != 0;
    entry.asked = reader.byte()?;
    entry.answered = reader.byte()?;
    entry.samples = reader.byte()?;
    entry.external = read_address(reader)?;
    entry.translated = read_finding(reader, &[false, true])?;
    entry.mapping = read_finding(reader, &MAPPINGS)?;
    entry.filtering = read_finding(reader, &FILTERINGS)?;
    entry.delta = read_delta(reader)?;
    entry.hairpin = read_finding(reader, &HAIRPINS)?;
    entry.layers = read_finding(reader, &LAYERS)?;
    entry.ports = read_below(reader, 1 << 32, "ports")?.map(|p| Ports::new((p >> 16) as u16, p as u16));
    let foreign = read_below(reader, 1 << 48, "count of others' mappings")?;
    entry.foreign = foreign.map(|f| Foreign { mappings: f as u16, window: Duration::from_millis(f >> 16) });
    entry.lifetime = read_option(reader)?.map(Duration::from_secs);
    entry.mtu = read_below(reader, 1 << 16, "MTU")?.map(|mtu| mtu as u16);
    Ok(entry)
}

fn write_address(out: &mut Vec<u8>, address: Option<IpAddr>) {
    match address {
        None => out.push(0),
        Some(IpAddr::V4(v4)) => {
            out.push(4);
            out.extend(v4.octets());
        }
        Some(IpAddr::V6(v6)) => {
            out.push(6);
            out.extend(v6.octets());
        }
    }
}

fn read_address(reader: &mut Reader<'_>) -> Result<Option<IpAddr>, DecodeError> {
    match reader.byte()? {
        0 => Ok(None),
        4 => Ok(Some(IpAddr::from(reader.array::<4>()?))),
        6 => Ok(Some(IpAddr::from(reader.array::<16>()?))),
        _ => Err(DecodeError::Bad("address")),
    }
}

/// One byte: two bits for what kind of finding, six for the value's or the reason's place in its list.
fn write_finding<T: Copy + PartialEq>(out: &mut Vec<u8>, finding: Finding<T>, values: &[T]) {
    let place = |value: T| values.iter().position(|v| *v == value).unwrap_or_default() as u8;
    out.push(match finding {
        Finding::Known(value) => place(value),
        Finding::AtLeast(value) => 0x40 | place(value),
        Finding::Untested(why) => 0x80 | WHYS.iter().position(|w| *w == why).unwrap_or_default() as u8,
    });
}

fn read_finding<T: Copy>(reader: &mut Reader<'_>, values: &[T]) -> Result<Finding<T>, DecodeError> {
    let byte = reader.byte()?;
    let value = || values.get(usize::from(byte & 0x3f)).copied().ok_or(DecodeError::Bad("finding"));
    match byte >> 6 {
        0 => Ok(Finding::Known(value()?)),
        1 => Ok(Finding::AtLeast(value()?)),
        2 => Ok(Finding::Untested(*WHYS.get(usize::from(byte & 0x3f)).ok_or(DecodeError::Bad("reason"))?)),
        _ => Err(DecodeError::Bad("finding")),
    }
}

/// The kind of delta as a finding, then its step as a varint with the sign in the lowest bit.
fn write_delta(out: &mut Vec<u8>, finding: Finding<Delta>) {
    let split = |delta| match delta {
        Delta::Equal => (0u8, 0),
        Delta::Preserving(by) => (1, by),
        Delta::Independent(by) => (2, by),
        Delta::Dependent(by) => (3, by),
        Delta::Random => (4, 0),
    };
    let (kind, by) = match finding {
        Finding::Known(delta) => (Finding::Known(split(delta).0), split(delta).1),
        Finding::AtLeast(delta) => (Finding::AtLeast(split(delta).0), split(delta).1),
        Finding::Untested(why) => (Finding::Untested(why), 0),
    };
    write_finding(out, kind, &[0, 1, 2, 3, 4]);
    write_number(out, u64::from((by << 1 ^ by >> 31) as u32));
}

fn read_delta(reader: &mut Reader<'_>) -> Result<Finding<Delta>, DecodeError> {
    let kind = read_finding(reader, &[0u8, 1, 2, 3, 4])?;
    let zigzag = u32::try_from(reader.number()?).map_err(|_| DecodeError::Bad("step"))?;
    let by = (zigzag >> 1) as i32 ^ -((zigzag & 1) as i32);
    let delta = |kind| match kind {
        0 => Delta::Equal,
        1 => Delta::Preserving(by),
        2 => Delta::Independent(by),
        3 => Delta::Dependent(by),
        _ => Delta::Random,
    };
    Ok(match kind {
        Finding::Known(kind) => Finding::Known(delta(kind)),
        Finding::AtLeast(kind) => Finding::AtLeast(delta(kind)),
        Finding::Untested(why) => Finding::Untested(why),
    })
}

/// Nothing is 0, a value is itself plus one.
fn write_option(out: &mut Vec<u8>, value: Option<u64>) {
    write_number(out, value.map_or(0, |v| v.saturating_add(1)));
}

fn read_option(reader: &mut Reader<'_>) -> Result<Option<u64>, DecodeError> {
    Ok(reader.number()?.checked_sub(1))
}

fn read_below(reader: &mut Reader<'_>, end: u64, what: &'static str) -> Result<Option<u64>, DecodeError> {
    let value = read_option(reader)?;
    if value.is_some_and(|v| v >= end) { Err(DecodeError::Bad(what)) } else { Ok(value) }
}

/// LEB128: seven bits a byte, the lowest first.
fn write_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    fn number(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Bad("number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::Rng;

    #[test]
    fn a_report_comes_back_as_it_was() {
        let report = Report { entries: vec![rich(), Entry::untested("", Family::V6, Proto::Udp)] };
        assert_eq!(Report::decode(&report.encode()), Ok(report));
    }

    #[test]
    fn four_entries_fit_into_a_ticket() {
        let report = Report { entries: vec![rich(); 4] };
        let size = report.encode().len();
        assert!(size <= 160, "{size} bytes");
    }

    #[test]
    fn cut_bytes_and_foreign_bytes_are_no_report() {
        let bytes = Report { entries: vec![rich()] }.encode();
        for end in 0..bytes.len() {
            assert!(Report::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(Report::decode(&longer), Err(DecodeError::Rest(1)));
        assert_eq!(Report::decode(&[9]), Err(DecodeError::Version(9)));
        assert_eq!(Report::decode(&[VERSION, 255]), Err(DecodeError::Bad("number of entries")));
    }

    #[test]
    fn no_bytes_make_it_panic_and_what_is_read_is_written_the_same() {
        let good = Report { entries: vec![rich()] }.encode();
        let mut rng = Rng::new(5);
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..=rng.below(4) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] = rng.word() as u8;
            }
            if let Ok(report) = Report::decode(&bytes) {
                assert_eq!(Report::decode(&report.encode()), Ok(report));
            }
        }
    }

    #[test]
    fn a_long_name_is_cut_at_a_character() {
        let mut entry = rich();
        entry.interface = "ä".repeat(40);
        let back = Report::decode(&Report { entries: vec![entry] }.encode()).unwrap();
        assert_eq!(back.entries[0].interface, "ä".repeat(16));
    }

    fn rich() -> Entry {
        Entry {
            asked: 4,
            answered: 3,
            samples: 18,
            external: Some("203.0.113.7".parse().unwrap()),
            pooled: true,
            translated: Finding::Known(true),
            mapping: Finding::AtLeast(Mapping::AddressDependent),
            filtering: Finding::Untested(Why::OneAddress),
            delta: Finding::Known(Delta::Independent(-7)),
            ports: Some(Ports::new(40_000, 40_511)),
            foreign: Some(Foreign { mappings: 12, window: Duration::from_millis(310) }),
            hairpin: Finding::Known(Hairpin::External),
            lifetime: Some(Duration::from_secs(120)),
            layers: Finding::Known(Layers::Carrier),
            mtu: Some(1492),
            ..Entry::untested("wlan0", Family::V4, Proto::Tcp)
        }
    }
}
