//! Samples that all ranks together left out in a stage.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::data::load::Skipped;
use crate::outside;
use crate::ranks::Ranks;

use super::error::TrainError;

/// Counts by reason, and the first sample by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LeftOut {
    counts: BTreeMap<String, u64>,
    first: Option<String>,
}

impl LeftOut {
    /// Those of this rank.
    pub fn here(skipped: &Skipped) -> LeftOut {
        let counts = skipped.counts.iter().map(|(reason, count)| (reason.to_string(), *count)).collect();
        let first = skipped.first.first();
        let first =
            first.map(|skip| format!("{}: {}", outside::shown(&skip.sample), outside::shown(&skip.detail)));
        LeftOut { counts, first }
    }

    /// Those of all ranks; called by all of them.
    ///
    /// # Errors
    /// The exchange fails.
    pub fn of_all(ranks: &dyn Ranks, skipped: &Skipped) -> Result<LeftOut, TrainError> {
        let own = serde_json::to_vec(&LeftOut::here(skipped)).map_err(TrainError::message)?;
        let mut all = LeftOut::default();
        for told in ranks.gather(&own)? {
            all.add(serde_json::from_slice(&told).map_err(TrainError::message)?);
        }
        Ok(all)
    }

    /// Adds those of another rank.
    pub fn add(&mut self, other: LeftOut) {
        for (reason, count) in other.counts {
            *self.counts.entry(reason).or_default() += count;
        }
        self.first = self.first.take().or(other.first);
    }

    /// True if no sample was left out.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}

impl fmt::Display for LeftOut {
    /// `3 image_decode, 1 caption_missing; first: a.tar: 0001: not an image`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (reason, count)) in self.counts.iter().enumerate() {
            write!(f, "{}{count} {reason}", if i == 0 { "" } else { ", " })?;
        }
        self.first.iter().try_for_each(|first| write!(f, "; first: {first}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Skip;
    use crate::ranks::Together;

    #[test]
    fn what_ranks_left_out_is_summed_up() {
        let skip =
            |reason, sample: &str| Skip { reason, sample: sample.into(), detail: "not an image".into() };
        let told: Vec<String> = std::thread::scope(|scope| {
            let ranks = Together::of(3).into_iter().enumerate().map(|(rank, ranks)| {
                scope.spawn(move || {
                    let mut own = Skipped::default();
                    for number in 0..rank {
                        own.add(skip("image_decode", &format!("{rank}.tar: {number}")));
                    }
                    if rank == 1 {
                        own.add(skip("caption_missing", "1.tar: 9"));
                    }
                    LeftOut::of_all(&ranks, &own).unwrap().to_string()
                })
            });
            let ranks: Vec<_> = ranks.collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        });
        let expected = "1 caption_missing, 3 image_decode; first: 1.tar: 0: not an image";
        assert_eq!(told, [expected; 3]);
    }
}
