//! What is sent again, and what is taken once.

use super::super::record::Kind;
use super::*;

fn record(n: u8) -> Record {
    Record::new(Kind::Data, 1, vec![n])
}

fn payloads(out: &mut Outgoing) -> Vec<u8> {
    std::iter::from_fn(|| out.poll_transmit()).map(|record| record.payload[0]).collect()
}

/// So many that are kept, and the path in use was given the first few.
fn given(kept: u8, given: usize) -> Outgoing {
    let mut out = Outgoing::default();
    (0..kept).for_each(|n| out.push(record(n)));
    (0..given).for_each(|_| drop(out.poll_transmit()));
    out
}

#[test]
fn a_new_path_gets_what_the_other_end_lacks_and_nothing_else() {
    let mut out = Outgoing::default();
    (0..6).for_each(|n| out.push(record(n)));
    assert_eq!(payloads(&mut out), [0, 1, 2, 3, 4, 5]);
    out.handle_ack(2).unwrap();
    out.resume(4).unwrap();
    assert_eq!(payloads(&mut out), [4, 5]);
    assert_eq!(out.waiting(), 0);
    out.handle_ack(6).unwrap();
    assert!(out.is_empty());
    assert_eq!(out.bytes, 0);
}

#[test]
fn an_acknowledgement_that_overtakes_the_sending_leaves_the_count_right() {
    let mut out = Outgoing::default();
    (0..4).for_each(|n| out.push(record(n)));
    assert_eq!(payloads(&mut out).len(), 4);
    out.resume(0).unwrap();
    assert_eq!(out.poll_transmit().unwrap().payload[0], 0);
    // The old path was faster after all.
    out.handle_ack(3).unwrap();
    assert_eq!(out.waiting(), 3 * HEADER_AND_ONE);
    assert_eq!(payloads(&mut out), [1, 2, 3], "on the new path each number comes in its turn");
    out.handle_ack(4).unwrap();
    assert!(out.is_empty());
}

const HEADER_AND_ONE: usize = super::super::record::HEADER + 1;

#[test]
fn acknowledging_what_was_never_sent_is_an_error() {
    let mut out = Outgoing::default();
    out.push(record(0));
    assert_eq!(out.handle_ack(2), Err(ProtocolError::Ack { expected: 2, sent: 1 }));
}

/// The payloads of those whose turn it is after this one came.
fn comes(incoming: &mut Incoming, number: u64) -> Vec<u8> {
    incoming.hold(number, record(number as u8)).unwrap();
    std::iter::from_fn(|| incoming.poll_due()).map(|record| record.payload[0]).collect()
}

#[test]
fn what_comes_twice_is_taken_once() {
    let mut incoming = Incoming::default();
    assert_eq!(comes(&mut incoming, 0), [0]);
    assert!(comes(&mut incoming, 0).is_empty());
    assert_eq!(incoming.take_ack(), Some(1));
    assert_eq!(incoming.take_ack(), None);
    assert!(comes(&mut incoming, 0).is_empty());
    assert_eq!(incoming.take_ack(), Some(1), "who says it again has not heard that it came");
}

#[test]
fn what_comes_before_its_turn_waits_for_it_and_is_bounded() {
    let mut incoming = Incoming::default();
    assert!(comes(&mut incoming, 2).is_empty());
    assert!(comes(&mut incoming, 1).is_empty());
    assert!(comes(&mut incoming, 2).is_empty(), "once");
    assert_eq!(comes(&mut incoming, 0), [0, 1, 2]);
    assert_eq!(incoming.held_bytes, 0);
    let long = |n| incoming.hold(n, Record::new(Kind::Data, 1, vec![0; 1 << 16]));
    let taken = (10..).map(long).take_while(Result::is_ok).count();
    assert!((HELD >> 17..=HELD >> 16).contains(&taken), "{taken}");
}

#[test]
fn with_its_number_no_record_is_sent_that_the_other_end_has_and_all_others_are_after_a_loss() {
    let mut out = Outgoing::default();
    (0..6).for_each(|n| out.push(record(n)));
    assert_eq!(out.next_number(), Some(0));
    (0..4).for_each(|_| drop(out.poll_transmit()));
    out.handle_lost([1, 3, 9].into_iter());
    assert_eq!(out.next_number(), Some(1));
    out.handle_ack_of_any(3).unwrap();
    assert_eq!(out.next_number(), Some(3));
    assert_eq!(out.waiting(), 2 * HEADER_AND_ONE);
    assert_eq!(payloads(&mut out), [3, 4, 5]);
    assert_eq!(out.handle_ack_of_any(9), Err(ProtocolError::Ack { expected: 9, sent: 6 }));
}

#[test]
fn while_a_new_path_catches_up_the_one_before_goes_on() {
    let mut out = given(6, 4);
    out.hand_over(1).unwrap();
    assert!(out.is_handing_over());
    assert_eq!((out.next_number(), out.next_number_before()), (Some(1), Some(4)));
    assert_eq!(out.waiting(), 2 * HEADER_AND_ONE, "what neither has taken");
    assert_eq!(out.poll_transmit_before().unwrap().payload[0], 4);
    assert_eq!(out.poll_transmit().unwrap().payload[0], 1);
    // It came by the path before.
    out.handle_ack_of_any(4).unwrap();
    assert_eq!((out.next_number(), out.next_number_before()), (Some(4), Some(5)));
    assert_eq!(out.poll_transmit().unwrap().payload[0], 4);
    assert!(!out.is_handing_over());
    out.push(record(6));
    assert_eq!(payloads(&mut out), [5, 6]);
    assert_eq!((out.waiting(), out.next_number_before()), (0, None));
}

#[test]
fn a_new_path_that_stays_slower_goes_on_behind_the_one_before_and_has_all_of_it_when_that_dies() {
    let mut out = given(8, 5);
    out.hand_over(1).unwrap();
    assert_eq!(out.poll_transmit().unwrap().payload[0], 1);
    out.cut_handover();
    assert!(!out.is_handing_over());
    assert_eq!((out.next_number(), out.waiting()), (Some(5), 3 * HEADER_AND_ONE));
    assert_eq!(out.poll_transmit().unwrap().payload[0], 5);
    out.handle_ack_of_any(3).unwrap();
    out.end_handover();
    assert_eq!(payloads(&mut out), [3, 4, 6, 7]);
    out.handle_ack_of_any(8).unwrap();
    assert!(out.is_empty() && out.waiting() == 0);
}

#[test]
fn a_path_that_takes_over_in_the_midst_of_a_handover_begins_with_all_that_is_not_known() {
    let mut out = given(6, 4);
    out.hand_over(1).unwrap();
    (0..2).for_each(|_| drop(out.poll_transmit()));
    out.hand_over(2).unwrap();
    assert_eq!((out.next_number(), out.next_number_before()), (Some(2), Some(4)));
    out.end_handover();
    assert_eq!(out.waiting(), 4 * HEADER_AND_ONE);
    assert_eq!(payloads(&mut out), [2, 3, 4, 5]);
    out.handle_ack_of_any(6).unwrap();
    assert!(out.is_empty() && out.waiting() == 0);
}

#[test]
fn what_a_path_was_to_send_again_and_did_not_is_sent_when_another_takes_over() {
    let mut out = given(8, 5);
    out.hand_over(1).unwrap();
    assert_eq!(out.poll_transmit().unwrap().payload[0], 1);
    out.cut_handover();
    // The first path is lost, with 2, 3 and 4.
    out.end_handover();
    assert_eq!(out.poll_transmit().unwrap().payload[0], 2);
    out.hand_over(1).unwrap();
    assert_eq!(out.poll_transmit().unwrap().payload[0], 1);
    out.cut_handover();
    assert_eq!(payloads(&mut out), [3, 4, 5, 6, 7]);
}

#[test]
fn what_rests_on_a_path_is_not_counted_on_when_a_third_one_takes_over() {
    let mut out = given(6, 4);
    out.hand_over(0).unwrap();
    assert_eq!(out.poll_transmit().unwrap().payload[0], 0);
    out.cut_handover();
    out.hand_over(0).unwrap();
    assert_eq!(out.next_number_before(), Some(1), "the second path has 0 only");
    assert_eq!(out.waiting(), 5 * HEADER_AND_ONE);
}

/// Records by number, as they are on their way: on the path in use, the one before, and one that rests.
#[derive(Default)]
struct Ways {
    used: BTreeSet<u64>,
    before: BTreeSet<u64>,
    /// What was acknowledged.
    known: u64,
}

impl Ways {
    /// The number that the other end expects when all of it has come.
    fn expected(&self) -> u64 {
        (self.known..).find(|n| !self.used.contains(n) && !self.before.contains(n)).unwrap_or(self.known)
    }
}

#[test]
fn whatever_becomes_of_handovers_each_record_is_on_a_path_that_lives() {
    let mut random = 1_u64;
    let mut below = |bound: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % bound
    };
    for round in 0..2000 {
        let (mut out, mut ways, mut pushed) = (Outgoing::default(), Ways::default(), 0_u64);
        for _ in 0..60 {
            match below(8) {
                0 | 1 => {
                    out.push(record(0));
                    pushed += 1;
                }
                2 | 3 => {
                    let number = out.next_number();
                    ways.used.extend(number.filter(|_| out.poll_transmit().is_some()));
                }
                4 => {
                    let number = out.next_number_before();
                    ways.before.extend(number.filter(|_| out.poll_transmit_before().is_some()));
                }
                5 => {
                    ways.known += below(ways.expected() - ways.known + 1);
                    out.handle_ack_of_any(ways.known).unwrap();
                }
                6 => out.cut_handover(),
                _ if below(2) == 0 => {
                    out.end_handover();
                    ways.before.clear();
                }
                _ => {
                    if !out.is_handing_over() {
                        out.end_handover();
                        ways.before = std::mem::take(&mut ways.used);
                    }
                    ways.used.clear();
                    out.hand_over(ways.known).unwrap();
                }
            }
        }
        while let Some(number) = out.next_number() {
            out.poll_transmit();
            ways.used.insert(number);
        }
        while let Some(number) = out.next_number_before() {
            out.poll_transmit_before();
            ways.before.insert(number);
        }
        assert_eq!(ways.expected(), pushed, "round {round}");
    }
}

#[test]
fn what_is_kept_is_bounded() {
    let mut out = Outgoing::default();
    let mut pushed = 0;
    while !out.is_full() {
        out.push(Record::new(Kind::Data, 1, vec![0; 1 << 16]));
        pushed += 1;
    }
    assert!(pushed <= 256, "{pushed}");
    // Many small ones too, although their payload is nothing.
    let mut out = Outgoing::default();
    let mut pushed = 0;
    while !out.is_full() {
        out.push(record(0));
        pushed += 1;
    }
    assert!(pushed < 300_000, "{pushed}");
}
