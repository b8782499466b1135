use bytes::BufMut;

use super::*;

fn message(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![MAGIC];
    bytes.put_u32(payload.len() as u32);
    bytes.extend_from_slice(payload);
    bytes
}

fn give(incoming: &mut Incoming, bytes: &[u8]) {
    for part in bytes.chunks(1000) {
        let mut room = incoming.room();
        assert!(room.remaining_mut() > 0);
        let part_len = part.len().min(room.remaining_mut());
        room.put_slice(&part[..part_len]);
        incoming.handle_read(part_len, usize::MAX);
        if part_len < part.len() {
            give(incoming, &part[part_len..]);
        }
    }
}

fn next(incoming: &mut Incoming) -> Result<Option<Vec<u8>>, Fault> {
    Ok(incoming.poll_message()?.map(|len| incoming.first(len).payload().to_vec()))
}

#[test]
fn the_bytes_are_those_of_ductworks() {
    let mut outgoing = Outgoing::new(100);
    outgoing
        .handle_message(|out| {
            out.extend_from_slice(b"\"hello\"");
            Ok(())
        })
        .unwrap();
    assert_eq!(outgoing.poll_transmit(), b"\x54\x00\x00\x00\x07\"hello\"");
}

#[test]
fn messages_come_out_however_the_stream_is_cut() {
    let payloads: Vec<Vec<u8>> = (0..40).map(|n| vec![n as u8; n * n * 7]).collect();
    let stream: Vec<u8> = payloads.iter().flat_map(|payload| message(payload)).collect();
    for cut in [1, 2, 3, 5, 7, 64, 1000, stream.len()] {
        let mut incoming = Incoming::new(1 << 20);
        let mut found = Vec::new();
        for part in stream.chunks(cut) {
            give(&mut incoming, part);
            while let Some(payload) = next(&mut incoming).unwrap() {
                found.push(payload);
            }
        }
        assert_eq!(found, payloads, "cut into {cut}");
        assert_eq!((incoming.taken(), incoming.come()), (stream.len() as u64, stream.len() as u64));
    }
}

#[test]
fn another_first_byte_ends_the_receiving_behind_the_messages_before_it() {
    let mut incoming = Incoming::new(100);
    give(&mut incoming, &[message(b"a"), vec![0x55, 0, 0, 0, 0]].concat());
    assert_eq!(next(&mut incoming), Ok(Some(b"a".to_vec())));
    assert_eq!(next(&mut incoming), Err(Fault::Magic(0x55)));
    give(&mut incoming, &message(b"b"));
    assert_eq!(next(&mut incoming), Err(Fault::Magic(0x55)));
}

#[test]
fn a_length_over_the_limit_is_refused_before_there_is_room_for_it() {
    let mut incoming = Incoming::new(100);
    give(&mut incoming, &message(&[7; 100]));
    assert_eq!(next(&mut incoming), Ok(Some(vec![7; 100])));
    give(&mut incoming, &[MAGIC, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(next(&mut incoming), Err(Fault::TooLong(u32::MAX as usize)));
    assert!(incoming.room().get_ref().capacity() < 1 << 20);
}

#[test]
fn a_length_within_the_limit_gets_room_only_as_its_bytes_come() {
    let mut incoming = Incoming::new(64 << 20);
    give(&mut incoming, &[MAGIC, 0x03, 0xff, 0xff, 0xff]);
    assert_eq!(next(&mut incoming), Ok(None));
    assert!(incoming.room().get_ref().capacity() < 1 << 20);
    let mut come = 0;
    while come < 4 << 20 {
        let mut room = incoming.room();
        let part = room.remaining_mut();
        assert!(part > 0);
        room.put_bytes(0, part);
        incoming.handle_read(part, part);
        come += part;
    }
    assert!(incoming.room().get_ref().capacity() <= 4 * come + (1 << 20));
}

#[test]
fn the_end_tells_whether_it_came_inside_a_message() {
    let mut incoming = Incoming::new(100);
    give(&mut incoming, &message(b"a"));
    incoming.handle_read(0, 10);
    assert_eq!(next(&mut incoming), Ok(Some(b"a".to_vec())), "what came is received first");
    assert_eq!(next(&mut incoming), Err(Fault::Ended { inside: false }));
    let mut incoming = Incoming::new(100);
    give(&mut incoming, &[MAGIC, 0]);
    incoming.handle_read(0, 10);
    assert_eq!(next(&mut incoming), Err(Fault::Ended { inside: true }));
}

#[test]
fn a_message_that_cannot_be_encoded_leaves_nothing_behind() {
    let mut outgoing = Outgoing::new(4);
    let refused = outgoing.handle_message(|out| {
        out.extend_from_slice(b"half");
        Err("no".into())
    });
    assert!(matches!(refused, Err(Refused::Encode(_))));
    let refused = outgoing.handle_message(|out| {
        out.extend_from_slice(b"12345");
        Ok(())
    });
    assert!(matches!(refused, Err(Refused::TooLong(5))));
    assert!(matches!(outgoing.handle_header(5), Err(Refused::TooLong(5))));
    assert!(outgoing.is_empty());
}

#[test]
fn a_message_is_taken_back_unless_it_has_begun() {
    let mut outgoing = Outgoing::new(100);
    let put = |outgoing: &mut Outgoing, byte| {
        outgoing
            .handle_message(|out| {
                out.push(byte);
                Ok(())
            })
            .unwrap()
    };
    put(&mut outgoing, 1);
    let second = put(&mut outgoing, 2);
    outgoing.handle_written(3);
    assert!(outgoing.take_back(second));
    assert_eq!(outgoing.poll_transmit(), &message(&[1])[3..]);
    let third = put(&mut outgoing, 3);
    outgoing.handle_written(4);
    assert!(!outgoing.take_back(third), "one byte of it is on its way");
    assert_eq!(outgoing.poll_transmit(), &message(&[3])[1..]);
}

#[test]
fn it_owes_what_was_called_sent_until_that_is_written() {
    let mut outgoing = Outgoing::new(100);
    let put = |outgoing: &mut Outgoing| outgoing.handle_message(|_| Ok(())).unwrap();
    put(&mut outgoing);
    assert!(!outgoing.owes(), "its sender waits");
    outgoing.handle_sent();
    let own = put(&mut outgoing);
    outgoing.handle_written(HEADER - 1);
    assert!(outgoing.owes());
    outgoing.handle_written(1);
    assert!(!outgoing.owes(), "what is left has a sender who waits");
    assert!(outgoing.take_back(own) && !outgoing.owes());
    put(&mut outgoing);
    outgoing.handle_sent();
    assert!(outgoing.owes());
}
