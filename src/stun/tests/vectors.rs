//! RFC 5769: the test vectors, checksums included.

use super::addr;
use crate::stun::{Class, Key, Message, PasswordAlgorithm, TransactionId, Writer, kind};

const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

/// Section 2.1.
const REQUEST: &str = "000100582112a442b7e7a701bc34d686fa87dfae
    802200105354554e207465737420636c69656e74 002400046e0001ff 80290008932ff9b151263b36
    000600096576746a3a68367659202020
    000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2 80280004e57a3bcf";
/// Section 2.2.
const RESPONSE_V4: &str = "0101003c2112a442b7e7a701bc34d686fa87dfae
    8022000b7465737420766563746f7220 002000080001a147e112a643
    000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7 80280004c07d4c96";
/// Section 2.3.
const RESPONSE_V6: &str = "010100482112a442b7e7a701bc34d686fa87dfae
    8022000b7465737420766563746f7220 002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9
    00080014a382954e4be67bf11784c97c8292c275bfe3ed41 80280004c8fb0b4c";
/// Section 2.4.
const REQUEST_LONG_TERM: &str = "000100602112a44278ad3433c6ad72c029da412e
    00060012e3839ee38388e383aae38383e382afe382b90000
    0015001c662f2f3439396b39353464364f4c33346f4c394653547679363473410014000b
    6578616d706c652e6f726700 00080014f67024656dd64a3e02b8e0712e85c9a28ca89666";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|c| !c.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn the_request_is_read_and_its_checksums_hold() {
    let request = bytes(REQUEST);
    let message = Message::parse(&request).unwrap();
    assert_eq!((message.class(), message.method()), (Class::Request, 1));
    assert_eq!(message.text(kind::SOFTWARE), Some("STUN test client"));
    assert_eq!(message.text(kind::USERNAME), Some("evtj:h6vY"));
    assert_eq!(message.get(kind::PRIORITY), Some(&[0x6e, 0, 1, 0xff][..]));
    assert_eq!(message.get(kind::ICE_CONTROLLED).map(<[u8]>::len), Some(8));
    assert_eq!(message.not_understood().count(), 0);
    assert_eq!(message.fingerprint(), Some(true));
    assert_eq!(message.integrity(&Key::short_term(PASSWORD).unwrap()), Some(true));
    assert_eq!(message.integrity(&Key::short_term("another").unwrap()), Some(false));
}

#[test]
fn the_responses_are_read_and_their_checksums_hold() {
    for (hex, mapped) in
        [(RESPONSE_V4, "192.0.2.1:32853"), (RESPONSE_V6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853")]
    {
        let response = bytes(hex);
        let message = Message::parse(&response).unwrap();
        assert_eq!(message.class(), Class::Success);
        assert_eq!(message.mapped(), Some(addr(mapped)));
        assert_eq!(message.text(kind::SOFTWARE), Some("test vector"));
        assert_eq!(message.fingerprint(), Some(true));
        assert_eq!(message.integrity(&Key::short_term(PASSWORD).unwrap()), Some(true));
    }
}

#[test]
fn each_changed_bit_is_noticed() {
    let response = bytes(RESPONSE_V4);
    for bit in 32..8 * response.len() {
        let mut changed = response.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let right = Message::parse(&changed).is_ok_and(|message| message.fingerprint() == Some(true));
        assert!(!right, "bit {bit}");
    }
}

#[test]
fn the_long_term_request_is_written_byte_by_byte() {
    let expected = bytes(REQUEST_LONG_TERM);
    let (user, realm) = ("\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}", "example.org");
    // The vector's password after the preparation that RFC 5769 says was made to it.
    let key = Key::long_term(user, realm, "TheMatrIX", PasswordAlgorithm::Md5).unwrap();
    let mut out = [0; 256];
    let id = TransactionId::modern(expected[8..20].try_into().unwrap());
    let mut writer = Writer::new(&mut out, Class::Request, 1, id).unwrap();
    writer.attribute(kind::USERNAME, user.as_bytes()).unwrap();
    writer.attribute(kind::NONCE, b"f//499k954d6OL34oL9FSTvy64sA").unwrap();
    writer.attribute(kind::REALM, realm.as_bytes()).unwrap().integrity(&key).unwrap();
    let len = writer.finish();
    assert_eq!(out[..len], expected);
    assert_eq!(Message::parse(&expected).unwrap().integrity(&key), Some(true));
}
