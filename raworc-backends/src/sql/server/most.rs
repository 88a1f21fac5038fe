//! How many commits a batch has at most.

/// Fewer after a batch took too long, and then more again: slowly up to as many as took too long, since so many may do so again, and
/// each time nobody of them is served.
#[derive(Debug)]
pub(super) struct Most {
    now: usize,
    largest: usize,
    /// So many took too long.
    too_many: usize,
}

impl Most {
    pub(super) const fn new(largest: usize) -> Self {
        Self { now: largest, largest, too_many: 0 }
    }

    pub(super) const fn now(&self) -> usize {
        self.now
    }

    /// So many were written in time. Fewer than there might have been show nothing.
    pub(super) fn went_well(&mut self, batch: usize) {
        if batch >= self.now {
            let more = if batch < self.too_many { self.now + 1 } else { self.now.saturating_mul(2) };
            self.now = more.min(self.largest);
        }
    }

    /// So many were not.
    pub(super) fn took_too_long(&mut self, batch: usize) {
        (self.now, self.too_many) = ((batch / 2).max(1), batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_batch_that_took_too_long_they_grow_one_by_one_up_to_that() {
        let mut most = Most::new(256);
        most.took_too_long(8);
        let mut grown = vec![most.now()];
        for _ in 0..6 {
            most.went_well(most.now());
            grown.push(most.now());
        }
        assert_eq!(grown, [4, 5, 6, 7, 8, 16, 32]);
        most.went_well(31);
        assert_eq!(most.now(), 32, "as many as there may be were not tried");
        for _ in 0..9 {
            most.went_well(most.now());
        }
        assert_eq!(most.now(), 256);
        most.took_too_long(1);
        assert_eq!(most.now(), 1);
        most.went_well(1);
        most.went_well(2);
        assert_eq!(most.now(), 4, "it was not for their number");
    }
}
