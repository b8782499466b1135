//! Decides: numbered records that survive the loss of a path: what to send again, and what was had before.

use std::collections::{BTreeMap, VecDeque};

use super::ProtocolError;
use super::record::Record;

/// What a record costs to keep beside its payload.
const KEPT: usize = 64;

/// Bytes that are kept until the other end has acknowledged them. It bounds the memory of a session's
/// sending side, and with it the rate: 16 MiB are 1 Gbit/s over a round trip of 130 ms.
const UNACKNOWLEDGED: usize = 16 << 20;

/// Bytes received after which an acknowledgement goes out even though nothing else does.
const ACK_AFTER: usize = 256 << 10;

/// Bytes that are held because they came before others, which took a slower path: no honest end sends more that is not
/// acknowledged.
const HELD: usize = UNACKNOWLEDGED + (1 << 20);

/// The sending half.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// The number of the first record that is kept.
    first: u64,
    kept: VecDeque<Record>,
    bytes: usize,
    /// How many of the kept have been given to the current path.
    given: usize,
    /// Bytes of the kept ones that were not yet given.
    waiting: usize,
}

impl Outgoing {
    pub(crate) fn push(&mut self, record: Record) {
        self.bytes += record.len() + KEPT;
        self.waiting += record.len();
        self.kept.push_back(record);
    }

    /// True when no more data should be pushed before something is acknowledged.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= UNACKNOWLEDGED
    }

    /// The number of the first record that would go on a new path to an end that expects this one.
    pub(crate) fn resumes_from(&self, expected: u64) -> u64 {
        self.first.max(expected)
    }

    /// Bytes that wait for the path to take them.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// True when the other end has everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The number of the record that [`poll_transmit`](Self::poll_transmit) gives next.
    pub(crate) fn next_number(&self) -> u64 {
        self.first + self.given as u64
    }

    /// The next record for the current path.
    pub(crate) fn poll_transmit(&mut self) -> Option<Record> {
        let record = self.kept.get(self.given)?.clone();
        self.given += 1;
        self.waiting -= record.len();
        Some(record)
    }

    /// The other end expects the record of this number next. What the current path was not given yet goes on it all the same,
    /// though the other end may know it from an earlier one: on each path it counts the records that come.
    ///
    /// # Errors
    /// A number that was never sent.
    pub(crate) fn handle_ack(&mut self, expected: u64) -> Result<(), ProtocolError> {
        let known = self.known(expected)?;
        self.forget(known.min(self.given));
        Ok(())
    }

    /// As [`handle_ack`](Self::handle_ack), where each record goes with its number: what the other end has need not be sent.
    ///
    /// # Errors
    /// A number that was never sent.
    pub(crate) fn handle_ack_of_any(&mut self, expected: u64) -> Result<(), ProtocolError> {
        let known = self.known(expected)?;
        let unsent = self.kept.iter().take(known).skip(self.given).map(Record::len).sum::<usize>();
        self.waiting -= unsent;
        self.forget(known);
        Ok(())
    }

    /// Everything that is not acknowledged goes once more: one of the paths that it took is gone.
    pub(crate) fn again(&mut self) {
        self.given = 0;
        self.waiting = self.kept.iter().map(Record::len).sum();
    }

    /// How many of the kept the other end has.
    fn known(&self, expected: u64) -> Result<usize, ProtocolError> {
        let known = usize::try_from(expected.saturating_sub(self.first)).unwrap_or(usize::MAX);
        if known > self.kept.len() {
            return Err(ProtocolError::Ack { expected, sent: self.first + self.kept.len() as u64 });
        }
        Ok(known)
    }

    fn forget(&mut self, known: usize) {
        for _ in 0..known {
            let Some(record) = self.kept.pop_front() else { break };
            self.bytes -= record.len() + KEPT;
            self.given = self.given.saturating_sub(1);
            self.first += 1;
        }
    }

    /// A new path: whatever the other end does not have goes again, in order.
    ///
    /// # Errors
    /// As [`handle_ack`](Self::handle_ack).
    pub(crate) fn resume(&mut self, expected: u64) -> Result<(), ProtocolError> {
        let known = self.known(expected)?;
        self.forget(known);
        self.again();
        Ok(())
    }
}

/// The receiving half.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    expected: u64,
    unacknowledged: usize,
    acknowledged: u64,
    /// Something came again: the other end does not know that it was here.
    repeated: bool,
    /// What came before its turn, by number.
    held: BTreeMap<u64, Record>,
    held_bytes: usize,
}

impl Incoming {
    /// The number of the next record.
    pub(crate) fn expected(&self) -> u64 {
        self.expected
    }

    /// Takes a record of this number, which may come before its turn. [`poll_due`](Self::poll_due) gives those whose turn it is.
    ///
    /// # Errors
    /// When more than any end may send comes before its turn.
    pub(crate) fn hold(&mut self, number: u64, record: Record) -> Result<(), ProtocolError> {
        if number < self.expected || self.held.contains_key(&number) {
            self.repeated |= number < self.expected;
            return Ok(());
        }
        self.held_bytes += record.len() + KEPT;
        if self.held_bytes > HELD {
            return Err(ProtocolError::Gap { expected: self.expected, number });
        }
        self.held.insert(number, record);
        Ok(())
    }

    /// The next record in its turn.
    pub(crate) fn poll_due(&mut self) -> Option<Record> {
        let record = self.held.remove(&self.expected)?;
        self.held_bytes -= record.len() + KEPT;
        self.expected += 1;
        self.unacknowledged += record.len() + KEPT;
        Some(record)
    }

    /// True when the other end waits for nothing else to be told.
    pub(crate) fn ack_is_due(&self) -> bool {
        self.unacknowledged >= ACK_AFTER
    }

    /// True when something was received that was not acknowledged yet.
    pub(crate) fn owes_ack(&self) -> bool {
        self.acknowledged != self.expected || self.repeated
    }

    /// The acknowledgement to send now, where there is something new to say.
    pub(crate) fn take_ack(&mut self) -> Option<u64> {
        if !self.owes_ack() {
            return None;
        }
        self.repeated = false;
        self.acknowledged = self.expected;
        self.unacknowledged = 0;
        Some(self.expected)
    }

    /// Nothing of what was acknowledged on an earlier path may have arrived there: it is said again.
    pub(crate) fn resume(&mut self) {
        self.repeated = true;
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Kind;
    use super::*;

    fn record(n: u8) -> Record {
        Record::new(Kind::Data, 1, vec![n])
    }

    fn payloads(out: &mut Outgoing) -> Vec<u8> {
        std::iter::from_fn(|| out.poll_transmit()).map(|record| record.payload[0]).collect()
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
        assert_eq!(out.next_number(), 0);
        (0..4).for_each(|_| drop(out.poll_transmit()));
        out.again();
        out.handle_ack_of_any(3).unwrap();
        assert_eq!(out.next_number(), 3);
        assert_eq!(out.waiting(), 3 * HEADER_AND_ONE);
        assert_eq!(payloads(&mut out), [3, 4, 5]);
        assert_eq!(out.handle_ack_of_any(9), Err(ProtocolError::Ack { expected: 9, sent: 6 }));
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
}
