//! Lanes: an epoch's order cut into strands that are walked side by side, each by one machine.

use std::ops::Range;

/// One of the lanes of an order. Their number is a part of what a run computes: each batch takes as many samples of every
/// lane, whichever rank walks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// From 0.
    pub number: u32,
    /// Lanes in all, at least one.
    pub of: u32,
}

impl Lane {
    /// The only lane.
    pub const WHOLE: Lane = Lane { number: 0, of: 1 };

    /// True if there is no other.
    pub fn is_whole(self) -> bool {
        self.of <= 1
    }

    /// This lane's share of so many things in a row: those of all lanes follow each other, and differ by at most one in
    /// length.
    pub fn range(self, total: u64) -> Range<u64> {
        let at = |lane: u32| (u128::from(lane) * u128::from(total) / u128::from(self.of.max(1))) as u64;
        at(self.number)..at(self.number + 1)
    }

    /// The first place of a round-robin deal at `from` or behind it that is this lane's.
    pub fn next_dealt(self, from: u64) -> u64 {
        let of = u64::from(self.of.max(1));
        from + (u64::from(self.number) + of - from % of) % of
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_share_everything_out_evenly() {
        for of in [1, 2, 3, 7] {
            let lanes: Vec<Lane> = (0..of).map(|number| Lane { number, of }).collect();
            for total in [0, 1, 5, 21, 22] {
                let all: Vec<u64> = lanes.iter().flat_map(|lane| lane.range(total)).collect();
                assert_eq!(all, (0..total).collect::<Vec<_>>());
                let lengths =
                    || lanes.iter().map(|lane| lane.range(total)).map(|range| range.end - range.start);
                assert!(lengths().max().unwrap() - lengths().min().unwrap() <= 1);
            }
            for from in 0..20 {
                let mut next: Vec<u64> = lanes.iter().map(|lane| lane.next_dealt(from)).collect();
                assert!(lanes
                    .iter()
                    .zip(&next)
                    .all(|(lane, next)| next % u64::from(of) == u64::from(lane.number)));
                next.sort();
                assert_eq!(next, (from..from + u64::from(of)).collect::<Vec<_>>());
            }
        }
    }
}
