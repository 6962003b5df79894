//! The shards of an epoch in their drawn order, and what of them each lane takes.

use std::ops::Range;

use rand::seq::SliceRandom;
use rand::Rng;

use crate::data::source::lane::Lane;
use crate::seed::{rng, Purpose};

/// Second counter of the draw that orders the shards of an epoch; windows count from 0.
const SHARDS: u64 = u64::MAX;
/// Set in the second counter of the draw of the shards of a window, where they are drawn with replacement.
const REPLACED: u64 = 1 << 63;
/// Set in the second counter of the draw of a lane's own order of the shards that it keeps.
const KEPT: u64 = 1 << 62;
/// Bits of the second counter of a window's draws that count windows; those above count lanes.
const WINDOW_BITS: u32 = 40;

/// Samples of a shard, in a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub shard: u32,
    /// The first sample.
    pub from: u32,
    /// Behind the last sample; the end of the shard where that is not known.
    pub to: Option<u32>,
}

impl Piece {
    fn whole(shard: u32) -> Piece {
        Piece { shard, from: 0, to: None }
    }
}

/// The drawn order of the shards of an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Epoch {
    /// What it depends on: seed, epoch, and whether shards are counted.
    pub of: (u64, u64, bool),
    shards: Vec<u32>,
    /// Where the samples of each shard begin, and the end of the last; empty where they are not counted.
    starts: Vec<u64>,
}

impl Epoch {
    /// Draws the order of so many shards, of so many samples each where that is known.
    pub fn draw(seed: u64, epoch: u64, count: usize, counts: Option<&[u32]>) -> Epoch {
        let mut shards: Vec<u32> = (0..count as u32).collect();
        shards.shuffle(&mut rng(seed, Purpose::Order, epoch, SHARDS));
        let mut starts = Vec::new();
        if let Some(counts) = counts {
            let mut end = 0;
            starts.push(0);
            starts.extend(shards.iter().map(|&shard| {
                end += u64::from(counts[shard as usize]);
                end
            }));
        }
        Epoch { of: (seed, epoch, counts.is_some()), shards, starts }
    }

    /// The shards in order.
    pub fn shards(&self) -> &[u32] {
        &self.shards
    }

    /// Places in the order of the shards that a lane has a part of; for shards that are dealt out, the number of them.
    fn places(&self, lane: Lane) -> Range<usize> {
        match self.starts.last() {
            // A shard without samples is a piece of the only lane, as it is where nothing is counted.
            _ if lane.is_whole() => 0..self.shards.len(),
            Some(&total) => {
                let samples = lane.range(total);
                if samples.is_empty() {
                    return 0..0;
                }
                let first = self.starts.partition_point(|&start| start <= samples.start) - 1;
                first..self.starts.partition_point(|&start| start < samples.end)
            }
            None => {
                0..(self.shards.len() as u64).saturating_sub(lane.number.into()).div_ceil(lane.of.into())
                    as usize
            }
        }
    }

    /// The piece of a lane at one of its places.
    fn piece(&self, lane: Lane, place: usize) -> Piece {
        match self.starts.last() {
            None if lane.is_whole() => Piece::whole(self.shards[place]),
            None => Piece::whole(self.shards[place * lane.of as usize + lane.number as usize]),
            Some(&total) => {
                let samples = lane.range(total);
                let (start, end) = (self.starts[place], self.starts[place + 1]);
                let (from, to) = (samples.start.clamp(start, end), samples.end.clamp(start, end));
                Piece {
                    shard: self.shards[place],
                    from: (from - start) as u32,
                    to: Some((to - start) as u32),
                }
            }
        }
    }

    /// Number of windows of a lane.
    pub fn windows(&self, lane: Lane, stride: usize) -> u64 {
        windows(self.places(lane).len(), lane, stride)
    }

    /// The pieces of a window of a lane. Where lanes keep the pieces of this epoch, they take them in an order of their own
    /// in each epoch `again`.
    pub fn window(&self, lane: Lane, stride: usize, window: u64, again: Option<u64>) -> Vec<Piece> {
        let mut places: Vec<usize> = self.places(lane).collect();
        if let Some(epoch) = again {
            let counter = KEPT | u64::from(lane.number);
            places.shuffle(&mut rng(self.of.0, Purpose::Order, epoch, counter));
        }
        let within = window_of(places.len(), lane, stride, window);
        within
            .map(|place| self.piece(lane, places[place]))
            .filter(|piece| Some(piece.from) != piece.to || lane.is_whole())
            .collect()
    }
}

/// Pieces of the first window of a lane. Those of neighbours differ, so that not all lanes open a window at the same time.
fn first(lane: Lane, stride: usize) -> usize {
    stride - lane.number as usize % stride
}

/// Windows that so many pieces of a lane make.
pub(crate) fn windows(pieces: usize, lane: Lane, stride: usize) -> u64 {
    match pieces {
        0 => 0,
        pieces => 1 + pieces.saturating_sub(first(lane, stride)).div_ceil(stride) as u64,
    }
}

/// Places of the pieces of a window among those of the lane.
fn window_of(pieces: usize, lane: Lane, stride: usize, window: u64) -> Range<usize> {
    let first = first(lane, stride);
    let end = |windows: u64| match windows.checked_sub(1) {
        None => 0,
        Some(more) => pieces.min(first.saturating_add((more as usize).saturating_mul(stride))),
    };
    end(window)..end(window + 1)
}

/// Shards of a pass of a lane where they are drawn with replacement: its share of as many as there are, at least one.
pub(crate) fn replaced_shards(count: usize, lane: Lane) -> usize {
    let share = lane.range(count as u64);
    ((share.end - share.start) as usize).max(1)
}

/// The pieces of a window where shards are drawn with replacement: whole ones of all.
pub(crate) fn replaced_window(
    (seed, epoch): (u64, u64),
    count: usize,
    lane: Lane,
    stride: usize,
    window: u64,
) -> Vec<Piece> {
    let mut draw = rng(seed, Purpose::Order, epoch, REPLACED | window_counter(lane, window));
    let places = window_of(replaced_shards(count, lane), lane, stride, window);
    places.map(|_| Piece::whole(draw.gen_range(0..count as u32))).collect()
}

/// Second counter of the draws of a window.
pub(crate) fn window_counter(lane: Lane, window: u64) -> u64 {
    u64::from(lane.number) << WINDOW_BITS | window
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use rand::Rng;

    use super::*;

    fn all(epoch: &Epoch, lane: Lane, stride: usize) -> Vec<Piece> {
        (0..epoch.windows(lane, stride)).flat_map(|window| epoch.window(lane, stride, window, None)).collect()
    }

    fn lanes(of: u32) -> impl Iterator<Item = Lane> {
        (0..of).map(move |number| Lane { number, of })
    }

    proptest! {
        #[test]
        fn lanes_take_every_sample_once(
            counts in prop::collection::vec(0u32..9, 1..12), of in 1u32..9, stride in 1usize..5, seed in 0u64..99,
        ) {
            let epoch = Epoch::draw(seed, 3, counts.len(), Some(&counts));
            let mut seen: Vec<(u32, u32)> = Vec::new();
            let mut lengths = Vec::new();
            for lane in lanes(of) {
                let before = seen.len();
                for piece in all(&epoch, lane, stride) {
                    seen.extend((piece.from..piece.to.unwrap()).map(|sample| (piece.shard, sample)));
                }
                lengths.push(seen.len() - before);
            }
            prop_assert!(lengths.iter().max().unwrap() - lengths.iter().min().unwrap() <= 1);
            let distinct: BTreeSet<_> = seen.iter().copied().collect();
            prop_assert_eq!(distinct.len(), seen.len());
            prop_assert_eq!(seen.len(), counts.iter().sum::<u32>() as usize);
        }

        #[test]
        fn shards_that_nobody_counted_are_dealt_out_whole(
            count in 1usize..40, of in 1u32..9, stride in 1usize..5, seed in 0u64..99,
        ) {
            let epoch = Epoch::draw(seed, 0, count, None);
            let mut seen: Vec<u32> =
                lanes(of).flat_map(|lane| all(&epoch, lane, stride)).map(|piece| piece.shard).collect();
            seen.sort();
            prop_assert_eq!(seen, (0..count as u32).collect::<Vec<_>>());
        }
    }

    #[test]
    fn first_windows_are_staggered_and_the_only_lane_has_whole_ones() {
        let epoch = Epoch::draw(5, 0, 40, Some(&[10; 40]));
        let first = |lane| epoch.window(lane, 4, 0, None).len();
        assert_eq!(first(Lane::WHOLE), 4);
        assert_eq!(lanes(4).map(first).collect::<Vec<_>>(), [4, 3, 2, 1]);
    }

    /// LAION-400M on 64 hosts of 8 ranks: its 41,455 shards are uneven.
    #[test]
    fn a_large_set_is_opened_once_and_every_batch_mixes_a_thousand_shards() {
        const LANES: u32 = 512;
        const HOSTS: u32 = 64;
        let mut draw = rng(0, Purpose::Bench, 0, 0);
        let counts: Vec<u32> = (0..41_455).map(|_| draw.gen_range(6_000..10_000)).collect();
        let total: u64 = counts.iter().map(|&count| u64::from(count)).sum();
        let epoch = Epoch::draw(1, 0, counts.len(), Some(&counts));
        let (mut opened, mut first, mut read) = (0, BTreeSet::new(), vec![BTreeSet::new(); HOSTS as usize]);
        for lane in lanes(LANES) {
            for piece in all(&epoch, lane, 4) {
                opened += 1;
                // A host brings a shard once and as a whole, whatever its lanes take of it.
                read[(lane.number / (LANES / HOSTS)) as usize].insert(piece.shard);
            }
            // A batch of 65,536 takes 128 samples of each lane, from its first window.
            let window = epoch.window(lane, 4, 0, None);
            first.extend(window.iter().map(|piece| piece.shard));
        }
        let times = f64::from(opened) / counts.len() as f64;
        assert!(times <= 1.02, "a shard is opened {times} times");
        let bytes =
            |shards: &BTreeSet<u32>| shards.iter().map(|&shard| u64::from(counts[shard as usize])).sum();
        let most: u64 = read.iter().map(bytes).max().unwrap();
        let most = most as f64 / (total as f64 / f64::from(HOSTS));
        assert!(most <= 1.01, "a host reads {most} of its share");
        assert!(first.len() >= 1000, "a batch is of {} shards", first.len());
    }
}
