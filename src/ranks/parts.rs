//! Parts of a batch.

use std::ops::Range;

use super::{Ranks, RanksConfig, RanksError};

/// A batch in parts of one size, and which of them a rank computes: neighbours, as evenly as whole parts allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    count: usize,
    rows: usize,
    ranks: usize,
    rank: usize,
}

impl Parts {
    /// Divides a batch of `batch` pairs. `so_far` are the parts that the run was divided into until now; a run keeps them
    /// where it can, whatever number of ranks it goes on with.
    ///
    /// # Errors
    /// The recipe's parts do not divide the batch, there are more ranks than parts, or more ranks than pairs.
    pub fn of(
        config: &RanksConfig,
        batch: usize,
        so_far: usize,
        ranks: &dyn Ranks,
    ) -> Result<Parts, RanksError> {
        let (count, rank) = (ranks.count(), ranks.rank());
        let parts = match config.parts.map(|parts| parts.get()) {
            Some(parts) if !batch.is_multiple_of(parts) => {
                let fitting =
                    divisor_from(batch, parts).map_or(String::new(), |parts| format!("; {parts} would do"));
                return Err(RanksError::Parts(format!(
                    "{parts} parts do not divide a batch of {batch}{fitting}"
                )));
            }
            Some(parts) if parts < count => {
                return Err(RanksError::Parts(format!(
                    "there are {count} ranks and {parts} parts, and a rank computes whole parts; start at most {parts} \
                     ranks, or set ranks.parts to {count} or more (which rounds differently)"
                )));
            }
            Some(parts) => parts,
            None => divisor_from(batch, count.max(so_far)).ok_or_else(|| {
                RanksError::Parts(format!("a batch of {batch} pairs cannot be divided among {count} ranks"))
            })?,
        };
        Ok(Parts { count: parts, rows: batch / parts, ranks: count, rank })
    }

    /// The same parts of a batch of another size, which they divide.
    pub fn of_batch(self, batch: usize) -> Parts {
        Parts { rows: batch / self.count, ..self }
    }

    /// Parts in all.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Pairs of a part.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Pairs in all.
    pub fn batch(&self) -> usize {
        self.rows * self.count
    }

    /// The parts of this rank.
    pub fn own(&self) -> Range<usize> {
        self.of_rank(self.rank)
    }

    /// The parts of a rank; at least one.
    pub fn of_rank(&self, rank: usize) -> Range<usize> {
        rank * self.count / self.ranks..(rank + 1) * self.count / self.ranks
    }

    /// First pair of each rank, and the end: pairs are numbered part after part.
    pub fn bounds(&self) -> Vec<usize> {
        (0..=self.ranks).map(|rank| rank * self.count / self.ranks * self.rows).collect()
    }
}

/// The smallest divisor of `n` that is at least `least`.
fn divisor_from(n: usize, least: usize) -> Option<usize> {
    (least.max(1)..=n).find(|divisor| n.is_multiple_of(*divisor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranks::Alone;

    fn parts(count: usize, ranks: usize, rank: usize) -> Parts {
        Parts { count, rows: 3, ranks, rank }
    }

    #[test]
    fn every_part_is_on_one_rank_and_every_rank_has_one() {
        for count in 1..20 {
            for ranks in 1..=count {
                let all: Vec<usize> = (0..ranks).flat_map(|rank| parts(count, ranks, rank).own()).collect();
                assert_eq!(all, (0..count).collect::<Vec<_>>());
                assert!((0..ranks).all(|rank| !parts(count, ranks, rank).own().is_empty()));
            }
        }
        assert_eq!(parts(4, 3, 0).bounds(), [0, 3, 6, 12]);
    }

    #[test]
    fn a_run_keeps_its_parts_and_says_what_does_not_divide() {
        let set = |parts| RanksConfig { parts: std::num::NonZeroUsize::new(parts), ..Default::default() };
        let of = |config: &RanksConfig, batch, so_far| Parts::of(config, batch, so_far, &Alone::default());
        assert_eq!(of(&RanksConfig::default(), 128, 1).unwrap().count(), 1);
        assert_eq!(of(&RanksConfig::default(), 128, 3).unwrap().count(), 4);
        assert_eq!(of(&set(4), 128, 1).unwrap().rows(), 32);
        let error = of(&set(3), 128, 1).unwrap_err().to_string();
        assert_eq!(error, "ranks.parts: 3 parts do not divide a batch of 128; 4 would do");
    }
}
