//! Decides: numbered records that survive the loss of a path: what to send again, and what was had before.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::ProtocolError;
use super::record::Record;

/// What a record costs to keep beside its payload.
const KEPT: usize = 64;

/// Bytes that are kept until the other end has acknowledged them. It bounds the memory of a session's
/// sending side, and with it the rate: 16 MiB are 1 Gbit/s over a round trip of 130 ms.
pub(super) const UNACKNOWLEDGED: usize = 16 << 20;

/// What is kept beyond that: what is said of channels does not wait for room.
const FLOOD: usize = 1 << 20;

/// Bytes received after which an acknowledgement goes out even though nothing else does: each wakes the other end, whose thread it
/// takes from those that write.
const ACK_AFTER: usize = UNACKNOWLEDGED / 8;

/// An acknowledgement alone waits this long for company.
pub(super) const ALONE: Duration = Duration::from_millis(10);

/// Bytes that are held because they came before others, which took a slower path: no honest end sends more that is not
/// acknowledged.
const HELD: usize = UNACKNOWLEDGED + (1 << 20);

/// The sending half. What it keeps is given to the path in use from its beginning to its end; and where another one was in use
/// before and goes on, to that from where it was.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// The number of the first record that is kept.
    first: u64,
    kept: VecDeque<Record>,
    bytes: usize,
    /// The path in use, or all of them where several are used alike.
    next: Cursor,
    /// The path before, until the one in use has caught up with it.
    before: Option<Cursor>,
    /// What only the path before has, which rests now: the numbers from the first to before the second.
    left: Option<(u64, u64)>,
    /// Numbers of what went on a path that is lost.
    lost: BTreeSet<u64>,
}

/// How far the records that are kept have been given away.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    given: usize,
    /// Bytes that were not.
    waiting: usize,
}

impl Cursor {
    /// The first of those that are kept is forgotten.
    fn forget(&mut self, len: usize) {
        match self.given {
            0 => self.waiting -= len,
            _ => self.given -= 1,
        }
    }

    fn take(&mut self, kept: &VecDeque<Record>) -> Option<Record> {
        let record = kept.get(self.given)?.clone();
        self.given += 1;
        self.waiting -= record.len();
        Some(record)
    }
}

impl Outgoing {
    pub(crate) fn push(&mut self, record: Record) {
        self.bytes += record.len() + KEPT;
        self.next.waiting += record.len();
        if let Some(before) = &mut self.before {
            before.waiting += record.len();
        }
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

    /// Bytes that no path has taken.
    pub(crate) fn waiting(&self) -> usize {
        self.before.map_or(self.next.waiting, |before| before.waiting)
    }

    /// True when so much waits to be acknowledged that the other end must be asking for answers without ever reading them.
    pub(crate) fn is_flooded(&self) -> bool {
        self.bytes >= UNACKNOWLEDGED + FLOOD
    }

    /// True when the other end has everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The number of the record that [`poll_transmit`](Self::poll_transmit) gives next.
    pub(crate) fn next_number(&self) -> Option<u64> {
        let fresh = (self.next.given < self.kept.len()).then(|| self.first + self.next.given as u64);
        self.lost.first().copied().or(fresh)
    }

    /// The next record for the path in use; what was lost first.
    pub(crate) fn poll_transmit(&mut self) -> Option<Record> {
        if let Some(lost) = self.lost.pop_first() {
            return self.kept.get(usize::try_from(lost.checked_sub(self.first)?).ok()?).cloned();
        }
        let record = self.next.take(&self.kept);
        if self.before.is_some_and(|before| self.next.given >= before.given) {
            self.before = None;
        }
        record
    }

    /// True while the path before goes on.
    pub(crate) fn is_handing_over(&self) -> bool {
        self.before.is_some()
    }

    /// As [`next_number`](Self::next_number), on the path before.
    pub(crate) fn next_number_before(&self) -> Option<u64> {
        let given = self.before?.given;
        (given < self.kept.len()).then(|| self.first + given as u64)
    }

    /// As [`poll_transmit`](Self::poll_transmit), on the path before.
    pub(crate) fn poll_transmit_before(&mut self) -> Option<Record> {
        self.before.as_mut()?.take(&self.kept)
    }

    /// The path before is lost: what it alone was given goes by the one in use.
    pub(crate) fn end_handover(&mut self) {
        self.before = None;
        if let Some((from, to)) = self.left.take() {
            self.handle_lost(from..to);
        }
    }

    /// The path before rests, though the one in use has not caught up with it. It is well and brings what it was given, so that the
    /// one in use goes on behind that.
    pub(crate) fn cut_handover(&mut self) {
        if let Some(before) = self.before.take() {
            self.left = Some((self.first + self.next.given as u64, self.first + before.given as u64));
            self.next = before;
        }
    }

    /// The other end expects the record of this number next. What the current path was not given yet goes on it all the same,
    /// though the other end may know it from an earlier one: on each path it counts the records that come.
    ///
    /// # Errors
    /// A number that was never sent.
    pub(crate) fn handle_ack(&mut self, expected: u64) -> Result<(), ProtocolError> {
        let known = self.known(expected)?;
        self.forget(known.min(self.next.given));
        Ok(())
    }

    /// As [`handle_ack`](Self::handle_ack), where records are told their numbers: what the other end has need not be sent.
    ///
    /// # Errors
    /// A number that was never sent.
    pub(crate) fn handle_ack_of_any(&mut self, expected: u64) -> Result<(), ProtocolError> {
        let known = self.known(expected)?;
        self.forget(known);
        Ok(())
    }

    /// One of several paths is lost, with these on it.
    pub(crate) fn handle_lost(&mut self, numbers: impl Iterator<Item = u64>) {
        let kept = self.first..self.first + self.next.given as u64;
        self.lost.extend(numbers.filter(|number| kept.contains(number)));
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
            self.next.forget(record.len());
            if let Some(before) = &mut self.before {
                before.forget(record.len());
            }
            self.first += 1;
        }
        while self.lost.first().is_some_and(|lost| *lost < self.first) {
            self.lost.pop_first();
        }
    }

    /// A new path: whatever the other end does not have goes again, in order.
    ///
    /// # Errors
    /// As [`handle_ack`](Self::handle_ack).
    pub(crate) fn resume(&mut self, expected: u64) -> Result<(), ProtocolError> {
        self.handle_ack_of_any(expected)?;
        (self.before, self.left) = (None, None);
        self.lost.clear();
        self.next = self.cursor(0);
        Ok(())
    }

    /// The same, while the path before is well and goes on with what is new, until the new one has caught up with it: the
    /// new one, which is slow in the beginning, begins with what is on its way on the other.
    ///
    /// # Errors
    /// As [`handle_ack`](Self::handle_ack).
    pub(crate) fn hand_over(&mut self, expected: u64) -> Result<(), ProtocolError> {
        self.handle_ack_of_any(expected)?;
        let before = self.before.unwrap_or(self.next).given.min(self.without_gap());
        self.resume(expected)?;
        self.before = Some(self.cursor(before)).filter(|before| before.given > 0);
        Ok(())
    }

    /// How many of the kept come before the first one that the path in use was not given, though it was given later ones: that was
    /// lost, or is on its way on a path that rests.
    fn without_gap(&self) -> usize {
        let left = self.left.filter(|(_, to)| *to > self.first).map(|(from, _)| from);
        let gap = self.lost.first().copied().into_iter().chain(left).min();
        gap.map_or(usize::MAX, |gap| usize::try_from(gap.saturating_sub(self.first)).unwrap_or(usize::MAX))
    }

    fn cursor(&self, given: usize) -> Cursor {
        Cursor { given, waiting: self.kept.iter().skip(given).map(Record::len).sum() }
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
    /// When an acknowledgement goes alone.
    alone: Option<Instant>,
    /// That time has come.
    overdue: bool,
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

    /// True when the other end is to be told even though there is nothing else to say.
    pub(crate) fn ack_is_due(&self) -> bool {
        self.unacknowledged >= ACK_AFTER || self.overdue
    }

    /// True when something was received that was not acknowledged yet.
    fn owes_ack(&self) -> bool {
        self.acknowledged != self.expected || self.repeated
    }

    /// Something may have come: the time begins after which it is acknowledged alone.
    pub(crate) fn count(&mut self, now: Instant) {
        if self.alone.is_none() && self.owes_ack() {
            self.alone = Some(now + ALONE);
        }
    }

    /// When an acknowledgement is due that is not due yet.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.alone.filter(|_| !self.overdue)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.overdue |= self.alone.is_some_and(|due| now >= due);
    }

    /// The acknowledgement to send now, where there is something new to say.
    pub(crate) fn take_ack(&mut self) -> Option<u64> {
        if !self.owes_ack() {
            return None;
        }
        self.acknowledged = self.expected;
        self.unacknowledged = 0;
        (self.repeated, self.overdue, self.alone) = (false, false, None);
        Some(self.expected)
    }

    /// Nothing of what was acknowledged on an earlier path may have arrived there: it is said again.
    pub(crate) fn resume(&mut self) {
        self.repeated = true;
    }
}

#[cfg(test)]
mod tests;
