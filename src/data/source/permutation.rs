//! The order of a source that can reach every sample directly.

use std::sync::{Arc, Mutex, PoisonError};

use rand::seq::SliceRandom;

use crate::data::source::lane::Lane;
use crate::data::source::{Order, Ticket};
use crate::data::Cursor;
use crate::seed::{rng, Purpose};

/// Items that are shuffled together: all of them, up to a number (64 MiB of memory) where a source of
/// billions could not hold its order.
const BLOCK: u64 = 1 << 24;

/// A permutation per epoch of a fixed number of items. The latest block of it is kept, and drawn again
/// when the epoch, the seed or the block changes.
#[derive(Debug, Default)]
pub struct Permutations {
    latest: Mutex<Option<Latest>>,
}

#[derive(Debug)]
struct Latest {
    of: Block,
    /// By position in the block.
    items: Arc<[u32]>,
}

/// Everything that a block's order depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    seed: u64,
    epoch: u64,
    block: u64,
    items: u32,
}

impl Permutations {
    /// The item at a position of an epoch of `samples` items; `position` must be less than `samples`.
    pub fn item(&self, order: Order, epoch: u64, position: u64, samples: u64) -> u64 {
        match order.shuffled() {
            None => position,
            Some((seed, _)) => {
                let block = position / BLOCK;
                let first = block * BLOCK;
                let items = (samples - first).min(BLOCK) as u32;
                let shuffled = self.shuffled(Block { seed, epoch, block, items });
                first + u64::from(shuffled[(position - first) as usize])
            }
        }
    }

    /// The sample at `cursor` of a source whose `samples` are numbered from 0; `None` at the end of the epoch. Lanes take
    /// the places of the permutation in turns, and a cursor names a place: while lanes advance together, theirs are equal.
    pub fn ticket(&self, order: Order, cursor: Cursor, samples: u64) -> Option<Ticket> {
        let (position, after) = dealt(order, cursor);
        (position < samples).then(|| Ticket {
            epoch: cursor.epoch,
            index: position,
            item: (0, self.item(order, cursor.epoch, position, samples)),
            after,
        })
    }

    fn shuffled(&self, of: Block) -> Arc<[u32]> {
        // A block is replaced whole, so a panic elsewhere cannot have left half of one.
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*latest {
            Some(known) if known.of == of => known.items.clone(),
            _ => {
                let mut items: Vec<u32> = (0..of.items).collect();
                items.shuffle(&mut rng(of.seed, Purpose::Order, of.epoch, of.block));
                let items: Arc<[u32]> = items.into();
                *latest = Some(Latest { of, items: items.clone() });
                items
            }
        }
    }
}

/// The place in the epoch that is next in a lane, and the cursor behind it.
pub(super) fn dealt(order: Order, cursor: Cursor) -> (u64, Cursor) {
    let lane = order.shuffled().map_or(Lane::WHOLE, |(_, lane)| lane);
    let position = lane.next_dealt(cursor.position);
    let round = position - u64::from(lane.number);
    (position, Cursor { position: round + u64::from(lane.of.max(1)), ..cursor })
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

    #[test]
    fn lanes_take_turns_and_the_only_one_takes_all() {
        let permutations = Permutations::default();
        let walk = |order: Order, mut cursor: Cursor| -> Vec<u64> {
            let mut items = Vec::new();
            while let Some(ticket) = permutations.ticket(order, cursor, 50) {
                items.push(ticket.item.1);
                cursor = ticket.after;
            }
            items
        };
        let whole = walk(Order::Shuffled { seed: 1 }, Cursor::epoch(2));
        assert_eq!(walk(Order::Lane { seed: 1, lane: Lane::WHOLE }, Cursor::epoch(2)), whole);
        for of in [2, 3, 7] {
            for number in 0..of {
                let order = Order::Lane { seed: 1, lane: Lane { number, of } };
                let turns: Vec<u64> =
                    whole.iter().copied().skip(number as usize).step_by(of as usize).collect();
                assert_eq!(walk(order, Cursor::epoch(2)), turns);
                // From a place where another number of lanes stood.
                let cursor = Cursor { position: 21, ..Cursor::epoch(2) };
                let rest = (21..50).filter(|place| place % of as usize == number as usize);
                assert_eq!(walk(order, cursor), rest.map(|place| whole[place]).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_source_of_billions_is_shuffled_block_by_block() {
        let permutations = Permutations::default();
        let samples = 3 * BLOCK + 4;
        let mut tail: Vec<u64> = (3 * BLOCK..samples)
            .map(|position| permutations.item(Order::Shuffled { seed: 0 }, 0, position, samples))
            .collect();
        tail.sort_unstable();
        assert_eq!(tail, (3 * BLOCK..samples).collect::<Vec<u64>>());
    }
}
