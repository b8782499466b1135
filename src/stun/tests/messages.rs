//! Messages are read and written as the RFCs say, and as stun-rs does.

use stun_rs::attributes::stun::XorMappedAddress;
use stun_rs::{MessageDecoderBuilder, MessageEncoderBuilder, StunMessageBuilder};

use super::{addr, written};
use crate::stun::{
    Change, Class, Form, Key, Message, NoRoom, ParseError, Proof, Request, TransactionId, Writer, is_stun, kind,
};

fn modern() -> TransactionId {
    TransactionId::modern([3; 12])
}

fn classic() -> TransactionId {
    TransactionId::classic(*b"1234567890abcdef")
}

#[test]
fn all_classes_and_methods_survive_the_mixing_of_their_bits() {
    for class in [Class::Request, Class::Indication, Class::Success, Class::Error] {
        for method in 0..0x1000 {
            let mut out = [0; 20];
            Writer::new(&mut out, class, method, modern()).unwrap();
            let message = Message::parse(&out).unwrap();
            assert_eq!((message.class(), message.method()), (class, method));
        }
    }
}

#[test]
fn an_id_of_any_sixteen_bytes_is_read() {
    let bytes = written(Class::Request, classic(), |_| ());
    assert_eq!(Message::parse(&bytes).unwrap().id(), classic());
    assert!(classic().is_classic() && !modern().is_classic());
    assert!(!is_stun(&bytes));
    assert!(is_stun(&written(Class::Request, modern(), |_| ())));
}

#[test]
fn a_classic_id_never_holds_the_cookie() {
    let mut random = [9; 16];
    random[..4].copy_from_slice(&crate::stun::MAGIC_COOKIE.to_be_bytes());
    assert!(TransactionId::classic(random).is_classic());
}

#[test]
fn the_xored_address_counts_before_the_plain_one_under_both_numbers() {
    let (real, lie) = (addr("192.0.2.7:7"), addr("10.0.0.1:1"));
    for kind in [kind::XOR_MAPPED_ADDRESS, kind::XOR_MAPPED_ADDRESS_OLD] {
        for id in [modern(), classic()] {
            let bytes = written(Class::Success, id, |writer| {
                writer.address(kind::MAPPED_ADDRESS, lie).unwrap().xor_address(kind, real).unwrap();
            });
            assert_eq!(Message::parse(&bytes).unwrap().mapped(), Some(real));
        }
    }
    let bytes = written(Class::Success, classic(), |writer| {
        writer.address(kind::MAPPED_ADDRESS, real).unwrap();
    });
    assert_eq!(Message::parse(&bytes).unwrap().mapped(), Some(real));
}

#[test]
fn behaviour_discovery_attributes_survive() {
    let bytes = written(Class::Request, modern(), |writer| {
        let writer = writer.change(Change { ip: true, port: false }).unwrap();
        let writer = writer.response_port(4711).unwrap().padding(99).unwrap();
        let writer = writer.address(kind::OTHER_ADDRESS, addr("[2001:db8::2]:2")).unwrap();
        writer.address(kind::RESPONSE_ORIGIN, addr("192.0.2.3:3")).unwrap();
    });
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.change(), Some(Change { ip: true, port: false }));
    assert_eq!(message.response_port(), Some(4711));
    assert_eq!(message.get(kind::PADDING).map(<[u8]>::len), Some(99));
    assert_eq!(message.other_address(), Some(addr("[2001:db8::2]:2")));
    assert_eq!(message.origin(), Some(addr("192.0.2.3:3")));
}

#[test]
fn errors_survive_with_the_attributes_that_were_not_known() {
    for (id, expected) in [(modern(), vec![1, 2, 3]), (classic(), vec![1, 2, 3, 3])] {
        let bytes = written(Class::Error, id, |writer| {
            writer.error(420, "Unknown Attribute").unwrap().unknown_attributes(&[1, 2, 3]).unwrap();
        });
        let message = Message::parse(&bytes).unwrap();
        let error = message.error().unwrap();
        assert_eq!((error.code, &*error.reason), (420, "Unknown Attribute"));
        assert_eq!(message.unknown_attributes().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn an_error_code_outside_300_to_699_is_none() {
    for code in [299, 700, 0] {
        let bytes = written(Class::Error, modern(), |writer| {
            writer.error(code, "").unwrap();
        });
        assert_eq!(Message::parse(&bytes).unwrap().error(), None);
    }
}

#[test]
fn attributes_that_may_be_skipped_are_and_others_are_named() {
    let bytes = written(Class::Request, modern(), |writer| {
        for kind in [0x8025, 0xC001, kind::PRIORITY, kind::USE_CANDIDATE, kind::ICE_CONTROLLING, 0x7FFF] {
            writer.attribute(kind, &[1, 2]).unwrap();
        }
    });
    assert_eq!(Message::parse(&bytes).unwrap().not_understood().collect::<Vec<_>>(), [0x7FFF]);
}

#[test]
fn what_stands_behind_the_integrity_counts_for_nothing() {
    let key = Key::short_term("secret").unwrap();
    let bytes = written(Class::Success, modern(), |writer| {
        let writer = writer.integrity(&key).unwrap().address(kind::MAPPED_ADDRESS, addr("10.0.0.1:1")).unwrap();
        writer.integrity_sha256(&key).unwrap().integrity(&key).unwrap().fingerprint().unwrap();
    });
    let message = Message::parse(&bytes).unwrap();
    let kinds: Vec<u16> = message.attributes().map(|attribute| attribute.kind).collect();
    assert_eq!(kinds, [kind::MESSAGE_INTEGRITY, kind::MESSAGE_INTEGRITY_SHA256, kind::FINGERPRINT]);
    assert_eq!(message.mapped(), None);
    assert_eq!(message.integrity(&key), Some(true));
}

#[test]
fn the_first_of_two_equal_attributes_counts() {
    let bytes = written(Class::Request, modern(), |writer| {
        writer.attribute(kind::SOFTWARE, b"first").unwrap().attribute(kind::SOFTWARE, b"second").unwrap();
    });
    assert_eq!(Message::parse(&bytes).unwrap().text(kind::SOFTWARE), Some("first"));
}

#[test]
fn bytes_that_are_no_message_are_refused_with_the_reason() {
    let good = written(Class::Request, modern(), |writer| {
        writer.attribute(kind::SOFTWARE, b"1234").unwrap();
    });
    assert!(Message::parse(&good).is_ok());
    assert_eq!(Message::parse(&good[..19]).unwrap_err(), ParseError::Short { len: 19 });
    let cut = Message::parse(&good[..27]).unwrap_err();
    assert_eq!(cut, ParseError::Length { announced: 8, present: 7 });
    let mut quic = good.clone();
    quic[0] |= 0x40;
    assert_eq!(Message::parse(&quic).unwrap_err(), ParseError::NotStun { first: 0x40 });
    let mut greedy = good.clone();
    greedy[23] = 5;
    let expected = ParseError::Attribute { kind: kind::SOFTWARE, announced: 5, left: 4 };
    assert_eq!(Message::parse(&greedy).unwrap_err(), expected);
}

#[test]
fn a_message_that_does_not_fit_is_an_error_and_not_a_panic() {
    let mut small = [0; 24];
    assert_eq!(
        Writer::new(&mut small[..10], Class::Request, 1, modern()).unwrap_err(),
        NoRoom { needed: 20, room: 10 }
    );
    let mut writer = Writer::new(&mut small, Class::Request, 1, modern()).unwrap();
    assert_eq!(writer.attribute(kind::SOFTWARE, b"12345").unwrap_err(), NoRoom { needed: 32, room: 24 });
    assert_eq!(writer.finish(), 20);
    let mut large = vec![0; 100_000];
    let mut writer = Writer::new(&mut large, Class::Request, 1, modern()).unwrap();
    assert!(writer.padding(70_000).is_err());
}

#[test]
fn stun_rs_reads_what_is_written_here() {
    let request = Request::new().form(Form::Modern).change(Change { ip: true, port: true });
    let bytes = request.encode(modern(), &Proof::default()).unwrap();
    let (message, size) = MessageDecoderBuilder::default().build().decode(&bytes).unwrap();
    assert_eq!(size, bytes.len());
    let change = message.get::<stun_rs::attributes::discovery::ChangeRequest>().unwrap();
    assert!(change.as_change_request().unwrap().flags().bits() == 6);
    assert_eq!(message.transaction_id().as_bytes(), &[3; 12]);

    let key = Key::short_term("secret").unwrap();
    let bytes = written(Class::Success, modern(), |writer| {
        writer.xor_address(kind::XOR_MAPPED_ADDRESS, addr("[2001:db8::9]:99")).unwrap();
        writer.integrity(&key).unwrap().integrity_sha256(&key).unwrap().fingerprint().unwrap();
    });
    let context = stun_rs::DecoderContextBuilder::default()
        .with_key(stun_rs::HMACKey::new_short_term("secret").unwrap())
        .with_validation();
    let decoder = MessageDecoderBuilder::default().with_context(context.build()).build();
    let (message, _) = decoder.decode(&bytes).unwrap();
    let mapped = message.get::<XorMappedAddress>().unwrap().as_xor_mapped_address().unwrap();
    assert_eq!(*mapped.socket_address(), addr("[2001:db8::9]:99"));
}

#[test]
fn what_stun_rs_writes_is_read_here() {
    use stun_rs::attributes::stun::{Fingerprint, MessageIntegrity, MessageIntegritySha256, Software};
    let key = stun_rs::HMACKey::new_short_term("secret").unwrap();
    let message = StunMessageBuilder::new(stun_rs::methods::BINDING, stun_rs::MessageClass::SuccessResponse)
        .with_attribute(Software::new("other").unwrap())
        .with_attribute(XorMappedAddress::from(addr("192.0.2.9:99")))
        .with_attribute(MessageIntegrity::new(key.clone()))
        .with_attribute(MessageIntegritySha256::new(key))
        .with_attribute(Fingerprint::default())
        .build();
    let mut out = [0; 512];
    let len = MessageEncoderBuilder::default().build().encode(&mut out, &message).unwrap();
    let read = Message::parse(&out[..len]).unwrap();
    assert_eq!(read.mapped(), Some(addr("192.0.2.9:99")));
    assert_eq!(read.text(kind::SOFTWARE), Some("other"));
    assert_eq!(read.fingerprint(), Some(true));
    assert_eq!(read.integrity(&Key::short_term("secret").unwrap()), Some(true));
}
