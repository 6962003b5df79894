//! The order of a source that can reach every sample directly.

use std::sync::{Arc, Mutex, PoisonError};

use rand::seq::SliceRandom;

use super::source::Order;
use crate::seed::{rng, Purpose};

/// A permutation per epoch of a fixed number of items. The latest one is kept; it is drawn again when the
/// epoch, the seed or the number changes.
#[derive(Debug, Default)]
pub struct Permutations {
    latest: Mutex<Option<Latest>>,
}

#[derive(Debug)]
struct Latest {
    seed: u64,
    epoch: u64,
    items: Arc<[u64]>,
}

impl Permutations {
    /// The item at a position of an epoch of `samples` items; `position` must be less than `samples`.
    pub fn item(&self, order: Order, epoch: u64, position: u64, samples: u64) -> u64 {
        match order {
            Order::Stored => position,
            Order::Shuffled { seed } => self.shuffled(seed, epoch, samples)[position as usize],
        }
    }

    fn shuffled(&self, seed: u64, epoch: u64, samples: u64) -> Arc<[u64]> {
        // A permutation is replaced whole, so a panic elsewhere cannot have left half of one.
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*latest {
            Some(known) if (known.seed, known.epoch, known.items.len() as u64) == (seed, epoch, samples) => {
                known.items.clone()
            }
            _ => {
                let mut items: Vec<u64> = (0..samples).collect();
                items.shuffle(&mut rng(seed, Purpose::Order, epoch, 0));
                let items: Arc<[u64]> = items.into();
                *latest = Some(Latest { seed, epoch, items: items.clone() });
                items
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_shows_every_item_in_another_order() {
        let permutations = Permutations::default();
        let epoch = |seed, epoch| -> Vec<u64> {
            (0..50).map(|position| permutations.item(Order::Shuffled { seed }, epoch, position, 50)).collect()
        };
        let first = epoch(1, 0);
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<u64>>());
        assert_ne!(first, epoch(1, 1));
        assert_ne!(first, epoch(2, 0));
        assert_eq!(first, epoch(1, 0));
        assert_eq!(permutations.item(Order::Stored, 3, 7, 50), 7);
    }
}
