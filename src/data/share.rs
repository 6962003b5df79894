//! Which samples of the order one of several processes takes.

/// One rank of a run: of the samples in the global order it takes those that are its own. The order itself
/// does not know of ranks, so a run may go on with another number of them, from the furthest of their cursors.
///
/// A rank replaces a broken sample by its own next one, and ranks do not tell each other. So each resumes exactly
/// from a cursor of its own; where their number changes, a sample for each that was broken may be left out of
/// that epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// From 0.
    pub rank: u64,
    /// At least one.
    pub ranks: u64,
}

impl Share {
    /// Everything.
    pub const WHOLE: Share = Share { rank: 0, ranks: 1 };

    /// Whether the sample at this place of an epoch is for this rank. Neighbours go to different ranks, so
    /// that ranks stay together; the epoch turns the assignment, so that a number of samples that the ranks do
    /// not divide favours nobody.
    pub fn holds(self, epoch: u64, index: u64) -> bool {
        let ranks = self.ranks.max(1);
        (index % ranks + epoch % ranks) % ranks == self.rank
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_belongs_to_one_rank_and_ranks_stay_together() {
        for ranks in [1, 2, 3, 8] {
            let shares: Vec<Share> = (0..ranks).map(|rank| Share { rank, ranks }).collect();
            let mut taken = vec![0u64; ranks as usize];
            for epoch in 0..2 * ranks {
                for index in 0..25 {
                    let holders: Vec<_> = shares.iter().filter(|share| share.holds(epoch, index)).collect();
                    assert_eq!(holders.len(), 1);
                    taken[holders[0].rank as usize] += 1;
                }
            }
            assert!(taken.iter().all(|&count| count == taken[0]), "{taken:?}");
        }
        assert!((0..9).all(|index| Share::WHOLE.holds(3, index)));
    }
}
