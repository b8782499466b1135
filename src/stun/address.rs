//! Decides: how an address stands in an attribute, plain and XORed with the transaction id (RFC 8489 sections 14.1, 14.2).

use std::net::{IpAddr, SocketAddr};

use super::attribute::TransactionId;

/// The longest value of an address attribute: family, port and an IPv6 address.
pub(super) const MAX_LEN: usize = 20;

const IPV4: u8 = 1;
const IPV6: u8 = 2;

/// The address in an attribute's value, or nothing if the value is no address.
pub(super) fn read(value: &[u8]) -> Option<SocketAddr> {
    let (head, ip) = value.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes([head[2], head[3]]);
    let ip = match head[1] {
        IPV4 => IpAddr::from(<[u8; 4]>::try_from(ip).ok()?),
        IPV6 => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Writes `address` as a value and says how long it is.
pub(super) fn write(address: SocketAddr, out: &mut [u8; MAX_LEN]) -> usize {
    out[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => {
            out[1] = IPV4;
            out[4..8].copy_from_slice(&ip.octets());
            8
        }
        IpAddr::V6(ip) => {
            out[1] = IPV6;
            out[4..].copy_from_slice(&ip.octets());
            MAX_LEN
        }
    }
}

/// The address XORed with the id: a second time undoes the first. In the RFC 3489 form, which has no cookie, the id's
/// first four bytes stand for it, as the drafts had it that brought attribute 0x8020.
pub(super) fn xor(address: SocketAddr, id: &TransactionId) -> SocketAddr {
    let mask = &id.0;
    let port = address.port() ^ u16::from_be_bytes([mask[0], mask[1]]);
    let ip = match address.ip() {
        IpAddr::V4(ip) => IpAddr::from(xored(ip.octets(), mask)),
        IpAddr::V6(ip) => IpAddr::from(xored(ip.octets(), mask)),
    };
    SocketAddr::new(ip, port)
}

fn xored<const N: usize>(mut bytes: [u8; N], mask: &[u8; 16]) -> [u8; N] {
    bytes.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    bytes
}

/// An IPv4 address that came through an IPv6 socket as IPv4, and no scope or flow: what two sightings of one
/// address have in common.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_writing_and_reading() {
        for text in ["192.0.2.1:32853", "[2001:db8::1]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            let mut value = [0; MAX_LEN];
            let len = write(address, &mut value);
            assert_eq!(read(&value[..len]), Some(address));
        }
    }

    #[test]
    fn xoring_twice_is_doing_nothing() {
        let id = TransactionId::modern([7; 12]);
        let address = "[2001:db8::1]:99".parse().unwrap();
        assert_ne!(xor(address, &id), address);
        assert_eq!(xor(xor(address, &id), &id), address);
    }

    #[test]
    fn a_value_of_another_length_or_family_is_no_address() {
        assert_eq!(read(&[0, 1, 0, 9, 1, 2, 3]), None);
        assert_eq!(read(&[0, 1, 0, 9, 1, 2, 3, 4, 5]), None);
        assert_eq!(read(&[0, 2, 0, 9, 1, 2, 3, 4]), None);
        assert_eq!(read(&[0, 3, 0, 9, 1, 2, 3, 4]), None);
        assert_eq!(read(&[]), None);
    }
}
