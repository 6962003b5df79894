//! The share of samples that one of several loaders takes.

/// One share of an order: counted from the start of a pass, it takes the samples whose number is `rank` beyond a multiple of
/// `ranks`. The order itself does not know of shares. Ranks share an evaluation so; training does where a run was begun
/// before there were lanes.
///
/// A share replaces a broken sample by its own next one, and shares do not tell each other. So each resumes exactly from
/// a cursor of its own; where their number changes, they go on from the furthest of their cursors, and a sample for each
/// that was broken may be left out of that epoch.
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

    /// The same share where it goes on from just past a sample of its own.
    pub fn resumed(self) -> Share {
        Share { rank: self.ranks.max(1) - 1, ..self }
    }

    /// True if the sample of this number, counted from the start of the pass, is of this share. Neighbours go to
    /// different shares, so that all advance together.
    pub fn takes(self, number: u64) -> bool {
        number % self.ranks.max(1) == self.rank
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_belongs_to_one_share_and_shares_stay_together() {
        for ranks in [1, 2, 3, 8] {
            let shares: Vec<Share> = (0..ranks).map(|rank| Share { rank, ranks }).collect();
            for number in 0..25 {
                assert_eq!(shares.iter().filter(|share| share.takes(number)).count(), 1);
            }
            for share in shares {
                let own: Vec<u64> = (0..50).filter(|&number| share.takes(number)).collect();
                let past = own[1] + 1;
                let resumed: Vec<u64> = (0..20).filter(|&number| share.resumed().takes(number)).collect();
                assert!(resumed.iter().zip(&own[2..]).all(|(number, own)| past + number == *own));
            }
        }
        assert!((0..9).all(|number| Share::WHOLE.takes(number)));
    }
}
