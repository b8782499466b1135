use super::*;

const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 2));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const C: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
const A6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
const B6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2));

/// A packet with every checksum right.
pub(crate) fn packet(proto: u8, src: SocketAddr, dst: SocketAddr) -> Vec<u8> {
    let (length, at) = if proto == UDP { (12, 6) } else { (24, 16) };
    let mut body = vec![0; length];
    put(&mut body, 0, src.port());
    put(&mut body, 2, dst.port());
    match proto {
        UDP => put(&mut body, 4, 12),
        _ => body[12..14].copy_from_slice(&[0x50, 0x02]),
    }
    body[length - 4..].copy_from_slice(b"ping");
    let sum = checksum(&body, pseudo_header(src.ip(), dst.ip(), proto, length));
    put(&mut body, at, sum);
    wrap(src.ip(), dst.ip(), proto, &body).unwrap()
}

#[test]
fn the_header_says_what_was_wrapped() {
    for (src, dst, start) in [(A, B, 20), (A6, B6, 40)] {
        let bytes = packet(UDP, (src, 5).into(), (dst, 6).into());
        let header = header(&bytes).unwrap();
        assert_eq!((header.src, header.dst, header.proto, header.start), (src, dst, UDP, start));
        assert_eq!((header.ttl, header.fragment), (crate::nat::TTL, false));
    }
}

#[test]
fn what_is_cut_short_has_no_header() {
    for (src, dst) in [(A, B), (A6, B6)] {
        let bytes = packet(TCP, (src, 5).into(), (dst, 6).into());
        for length in 0..bytes.len() {
            assert_eq!(header(&bytes[..length]), None, "{length} bytes");
            assert_eq!(to_model(Bytes::copy_from_slice(&bytes[..length])), None);
        }
    }
}

#[test]
fn a_rewritten_packet_is_the_one_that_would_have_been_made() {
    for proto in [UDP, TCP] {
        for (from, to, other) in [(A, B, C), (A6, B6, A6)] {
            let mut bytes = packet(proto, (from, 5000).into(), (to, 3478).into());
            let header = header(&bytes).unwrap();
            rewrite(&mut bytes, header, (other, 61_000).into(), (to, 80).into());
            assert_eq!(bytes, packet(proto, (other, 61_000).into(), (to, 80).into()));
        }
    }
}

#[test]
fn a_ttl_is_written_with_its_checksum() {
    let mut bytes = packet(UDP, (A, 5).into(), (B, 6).into());
    set_ttl(&mut bytes, 7);
    assert_eq!(header(&bytes).unwrap().ttl, 7);
    assert_eq!(checksum(&bytes[..V4_LENGTH], 0), 0, "the sum over a header and its checksum is zero");
}

#[test]
fn a_datagram_without_checksum_keeps_none() {
    let mut bytes = packet(UDP, (A, 5).into(), (B, 6).into());
    put(&mut bytes, V4_LENGTH + 6, 0);
    let header = header(&bytes).unwrap();
    rewrite(&mut bytes, header, (C, 7).into(), (B, 6).into());
    assert_eq!(word(&bytes, V4_LENGTH + 6), 0);
}

#[test]
fn a_packet_goes_through_the_model_and_back_unchanged() {
    for proto in [UDP, TCP] {
        let bytes = packet(proto, (A, 5).into(), (B, 6).into());
        let model = to_model(bytes.clone().into()).unwrap();
        assert_eq!((model.src, model.dst), ((A, 5).into(), (B, 6).into()));
        assert_eq!(model.flags.opens(), proto == TCP);
        assert_eq!(from_model(&model), bytes);
    }
}

#[test]
fn fragments_are_not_for_the_model() {
    let mut bytes = packet(UDP, (A, 5).into(), (B, 6).into());
    put(&mut bytes, 6, 0x2000);
    assert_eq!(to_model(bytes.into()), None);
}
