//! Decides: which of the datagrams that go several ways have come before.

/// So far back datagrams are told apart; what is older counts as had.
const WINDOW: u64 = 1024;

/// The numbers of the datagrams that came last.
#[derive(Debug)]
pub(crate) struct Twins {
    /// One more than the highest number that came.
    next: u64,
    /// One bit for each of the last numbers, by their remainder.
    seen: [u64; (WINDOW / 64) as usize],
}

impl Default for Twins {
    fn default() -> Self {
        Self { next: 0, seen: [0; (WINDOW / 64) as usize] }
    }
}

impl Twins {
    /// True for a number that comes for the first time.
    pub(crate) fn is_new(&mut self, number: u64) -> bool {
        if number >= self.next {
            // Those between were not seen, and what stood in their places is too old now.
            let passed = (number - self.next).saturating_add(1).min(WINDOW);
            for back in 0..passed {
                self.mark(number - back, false);
            }
            self.next = number.saturating_add(1);
        } else if self.next - number > WINDOW {
            return false;
        }
        self.mark(number, true)
    }

    /// True when that changes something.
    fn mark(&mut self, number: u64, seen: bool) -> bool {
        let (at, bit) = ((number % WINDOW / 64) as usize, 1 << (number % 64));
        let before = self.seen[at] & bit > 0;
        self.seen[at] = if seen { self.seen[at] | bit } else { self.seen[at] & !bit };
        before != seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_new_once_in_whatever_order() {
        let mut twins = Twins::default();
        let came = [0, 0, 2, 1, 1, 2, 500, 3, 499, 500, 3, 5000, 500, 4999, 5000, 3977, 3976];
        let new: Vec<u64> = came.into_iter().filter(|number| twins.is_new(*number)).collect();
        assert_eq!(new, [0, 2, 1, 500, 3, 499, 5000, 4999, 3977], "3976 is too long ago");
    }

    #[test]
    fn the_highest_number_of_all_is_taken_too() {
        let mut twins = Twins::default();
        assert!(twins.is_new(u64::MAX - 1) && !twins.is_new(0) && twins.is_new(u64::MAX - 2));
        assert!(Twins::default().is_new(u64::MAX));
    }

    #[test]
    fn of_two_copies_of_each_that_overtake_one_another_one_is_taken() {
        let mut twins = Twins::default();
        let taken = (0..10_000_u64).flat_map(|n| [n, n.saturating_sub(300)]).filter(|n| twins.is_new(*n)).count();
        assert_eq!(taken, 10_000);
    }
}
