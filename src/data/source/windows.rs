//! The order of a source whose samples lie in shards.
//!
//! A pass takes the shards in a drawn order, a window of a few shards at a time; the samples of a window are
//! shuffled together. A lane takes the pieces of the shards that are its own likewise. Only the windows in use are opened,
//! so a place in a set of any size is found in the time that it takes to open the shards of one window.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use rand::seq::SliceRandom;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::source::lane::Lane;
use crate::data::source::opened::{lock, Opened, ShardSet};
use crate::data::source::pieces::{self, replaced_shards, replaced_window, window_counter, Epoch, Piece};
use crate::data::source::{Order, Ticket};
use crate::data::{Cursor, DataError};
use crate::seed::{rng, Purpose};

/// Windows of a lane whose shards stay open: the one whose samples are still being loaded, the current and the next.
const WINDOWS_KEPT: usize = 3;
/// Epochs whose order is kept: some lanes are in the next one while others end this one.
const EPOCHS_KEPT: usize = 2;
/// Shards of each lane, at least, where shards are dealt out whole: with fewer, some lanes get far more samples.
const ENOUGH_SHARDS: usize = 4;

/// Settings of the windows of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shuffle {
    /// Shards in a window; at least one.
    pub shards: usize,
    /// The shards of a training pass are drawn with replacement.
    pub resampled: bool,
    /// Shards of each epoch in a lane.
    pub deal: Deal,
}

/// Shards that a lane has in each epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum Deal {
    /// Others: lanes are cut anew from all shards.
    #[default]
    Anew,
    /// The same: a host reads its share of the shards once, and has them in its cache in later epochs, in another order.
    Kept,
}

/// The order over a set of shards.
pub(crate) struct Windows<S: ShardSet> {
    opened: Arc<Opened<S>>,
    shuffle: Shuffle,
    lanes: Mutex<BTreeMap<Lane, Arc<Mutex<Walked>>>>,
    epochs: Mutex<VecDeque<Arc<Epoch>>>,
}

/// A lane, where it is being walked. A window that is being entered is waited for by whoever asks for it.
struct Walked {
    /// The window that tickets were last asked from.
    window: Option<Arc<Window>>,
    /// Samples that will yet be asked for, about.
    wanted: u64,
}

/// The order of samples in one window.
struct Window {
    place: Place,
    /// (shard, sample in the shard)
    items: Vec<(u32, u32)>,
}

/// Everything that the order in a window depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    epoch: u64,
    window: u64,
    order: Order,
}

impl<S: ShardSet> Windows<S> {
    /// Nothing is opened yet.
    pub fn new(shards: S, shuffle: Shuffle) -> Self {
        let shuffle = Shuffle { shards: shuffle.shards.max(1), ..shuffle };
        Windows {
            opened: Arc::new(Opened::new(shards)),
            shuffle,
            lanes: Mutex::default(),
            epochs: Mutex::default(),
        }
    }

    pub fn shards(&self) -> &S {
        &self.opened.shards
    }

    /// An open shard.
    pub fn shard(&self, shard: u64) -> Result<Arc<S::Shard>, DataError> {
        self.opened.get(shard as u32)
    }

    /// Samples of each shard, where the order follows from them. A run without lanes takes shards as they are.
    fn counts(&self, order: Order) -> Option<&[u32]> {
        matches!(order, Order::Lane { .. }).then(|| self.shards().counts()).flatten()
    }

    /// The order of the shards of an epoch.
    fn epoch(&self, seed: u64, epoch: u64, order: Order) -> Arc<Epoch> {
        let counts = self.counts(order);
        let of = (seed, epoch, counts.is_some());
        let mut kept = lock(&self.epochs);
        if let Some(known) = kept.iter().find(|known| known.of == of) {
            return known.clone();
        }
        let drawn = Arc::new(Epoch::draw(seed, epoch, self.shards().count(), counts));
        kept.push_back(drawn.clone());
        if kept.len() > EPOCHS_KEPT {
            kept.pop_front();
        }
        drawn
    }

    /// The epoch whose order of shards is cut into the lanes of this one.
    fn cut(&self, epoch: u64) -> u64 {
        match self.shuffle.deal {
            Deal::Anew => epoch,
            Deal::Kept => 0,
        }
    }

    /// Windows of an epoch.
    fn windows(&self, epoch: u64, order: Order) -> u64 {
        let (count, stride) = (self.shards().count(), self.shuffle.shards);
        match order.shuffled() {
            None => pieces::windows(count, Lane::WHOLE, stride),
            Some((_, lane)) if self.shuffle.resampled => {
                pieces::windows(replaced_shards(count, lane), lane, stride)
            }
            Some((seed, lane)) => self.epoch(seed, self.cut(epoch), order).windows(lane, stride),
        }
    }

    /// The pieces of a window, in the order of the epoch.
    fn pieces(&self, Place { epoch, window, order }: Place) -> Vec<Piece> {
        let (count, stride) = (self.shards().count(), self.shuffle.shards);
        match order.shuffled() {
            None => {
                let first = window as usize * stride;
                let shards = first..count.min(first.saturating_add(stride));
                shards.map(|shard| Piece { shard: shard as u32, from: 0, to: None }).collect()
            }
            Some((seed, lane)) if self.shuffle.resampled => {
                replaced_window((seed, epoch), count, lane, stride, window)
            }
            Some((seed, lane)) => {
                let again = (self.shuffle.deal == Deal::Kept).then_some(epoch);
                self.epoch(seed, self.cut(epoch), order).window(lane, stride, window, again)
            }
        }
    }

    /// A lane, and how many there are.
    fn lane(&self, lane: Lane) -> (Arc<Mutex<Walked>>, usize) {
        let mut lanes = lock(&self.lanes);
        let new = || Arc::new(Mutex::new(Walked { window: None, wanted: u64::MAX }));
        (lanes.entry(lane).or_insert_with(new).clone(), lanes.len())
    }

    /// Says how many more samples a lane will be asked for: windows behind them are not opened beforehand.
    pub fn want(&self, lane: Lane, samples: u64) {
        lock(&self.lane(lane).0).wanted = samples;
    }

    /// The order of a window's samples; none behind the last window of the epoch.
    fn window(&self, place: Place) -> Result<Option<Arc<Window>>, DataError> {
        let lane = place.order.shuffled().map_or(Lane::WHOLE, |(_, lane)| lane);
        let (walked, lanes) = self.lane(lane);
        let mut walked = lock(&walked);
        let Walked { window: current, wanted } = &mut *walked;
        let window = match current.as_ref().filter(|window| window.place == place) {
            Some(window) => window.clone(),
            None => {
                if current.is_none() {
                    self.opened.keep(WINDOWS_KEPT * self.shuffle.shards * lanes);
                    self.check(lane, place.order)?;
                }
                if place.window >= self.windows(place.epoch, place.order) {
                    return Ok(None);
                }
                current.insert(Arc::new(self.enter(place, *wanted)?)).clone()
            }
        };
        *wanted = wanted.saturating_sub(1);
        Ok(Some(window))
    }

    /// Enters a window, and opens the shards of the one after it, aside, where it is `wanted`. Shards that are not counted
    /// have to be open.
    fn enter(&self, place: Place, wanted: u64) -> Result<Window, DataError> {
        let pieces = self.pieces(place);
        let shards: Vec<u32> = pieces.iter().map(|piece| piece.shard).collect();
        match pieces.iter().all(|piece| piece.to.is_some()) {
            true => self.opened.open_ahead(shards),
            false => self.opened.open_all(&shards)?,
        }
        let mut items = Vec::new();
        for Piece { shard, from, to } in pieces {
            let to = match to {
                Some(to) => to,
                None => S::samples(&*self.opened.get(shard)?) as u32,
            };
            items.extend((from..to).map(|sample| (shard, sample)));
        }
        if let Some((seed, lane)) = place.order.shuffled() {
            let counter = window_counter(lane, place.window);
            items.shuffle(&mut rng(seed, Purpose::Order, place.epoch, counter));
        }
        let Place { epoch, window, order } = place;
        let next = match window + 1 < self.windows(epoch, order) {
            true => Place { window: window + 1, ..place },
            false => Place { epoch: epoch.saturating_add(1), window: 0, order },
        };
        if wanted > items.len() as u64 {
            self.opened.open_ahead(self.pieces(next).iter().map(|piece| piece.shard).collect());
        }
        Ok(Window { place, items })
    }

    /// Refuses lanes of which one would have nothing, and warns of uneven ones.
    fn check(&self, lane: Lane, order: Order) -> Result<(), DataError> {
        let (lanes, shards) = (lane.of as usize, self.shards().count());
        if lane.is_whole() || self.shuffle.resampled {
            return Ok(());
        }
        let advice = "Set fewer with data.lanes, or ranks.parts where that is not set";
        match self.counts(order) {
            Some(counts) => {
                let samples: u64 = counts.iter().map(|&count| u64::from(count)).sum();
                if samples < lanes as u64 {
                    let problem = format!("{samples} samples cannot be cut into {lanes} lanes. {advice}");
                    return Err(DataError::OtherData(problem));
                }
            }
            None if shards < lanes => {
                return Err(DataError::OtherData(format!(
                    "{shards} shards that nobody has counted cannot be dealt out to {lanes} lanes. Count them with `flip \
                     data index` and name the index beside them, so that shards are cut. Or: {advice}"
                )));
            }
            None if shards < ENOUGH_SHARDS * lanes && lane.number == 0 => tracing::warn!(
                target: "flip::data",
                "{shards} shards that nobody has counted are dealt out whole to {lanes} lanes: some lanes begin their next \
                 epoch sooner than others. Count them with `flip data index` and name the index beside them"
            ),
            None => {}
        }
        Ok(())
    }

    /// The sample at `cursor`; `None` at the end of the cursor's epoch.
    pub fn ticket(&self, mut cursor: Cursor, order: Order) -> Result<Option<Ticket>, DataError> {
        loop {
            let place = Place { epoch: cursor.epoch, window: cursor.window, order };
            let Some(window) = self.window(place)? else { return Ok(None) };
            let rest = window.items.get(cursor.position as usize..).unwrap_or_default();
            let next_window = Cursor { window: cursor.window + 1, position: 0, ..cursor };
            let Some(&(shard, sample)) = rest.first() else {
                cursor = next_window;
                continue;
            };
            let next = Cursor { position: cursor.position + 1, ..cursor };
            return Ok(Some(Ticket {
                epoch: cursor.epoch,
                index: match order {
                    Order::Lane { .. } => u64::from(shard) << 32 | u64::from(sample),
                    // Windows are not counted before they are entered, so places are numbered within each.
                    Order::Shuffled { .. } | Order::Stored => cursor.window << 32 | cursor.position,
                },
                item: (shard.into(), sample.into()),
                after: if rest.len() == 1 { next_window } else { next },
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    /// Shards of so many samples; counts how often one is opened.
    struct Sizes {
        sizes: Vec<usize>,
        counted: Option<Vec<u32>>,
        opened: AtomicUsize,
    }

    impl ShardSet for Sizes {
        type Shard = usize;

        fn count(&self) -> usize {
            self.sizes.len()
        }

        fn counts(&self) -> Option<&[u32]> {
            self.counted.as_deref()
        }

        fn open(&self, shard: usize) -> Result<usize, DataError> {
            self.opened.fetch_add(1, Ordering::Relaxed);
            Ok(self.sizes[shard])
        }

        fn samples(shard: &usize) -> usize {
            *shard
        }
    }

    fn windows(sizes: Vec<usize>, shards: usize, resampled: bool) -> Windows<Sizes> {
        Windows::new(
            Sizes { sizes, counted: None, opened: AtomicUsize::new(0) },
            Shuffle { shards, resampled, deal: Deal::Anew },
        )
    }

    fn pass(source: &Windows<Sizes>, mut cursor: Cursor, order: Order) -> Vec<Ticket> {
        let mut tickets = Vec::new();
        while let Some(ticket) = source.ticket(cursor, order).unwrap() {
            cursor = ticket.after;
            tickets.push(ticket);
        }
        tickets
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn an_epoch_holds_each_sample_once(
            sizes in prop::collection::vec(0usize..9, 1..9), stride in 1usize..6,
            seed in 0u64..1000, epoch in 0u64..3, resume in 0usize..40,
        ) {
            let total: usize = sizes.iter().sum();
            let source = windows(sizes, stride, false);
            for order in [Order::Stored, Order::Shuffled { seed }] {
                let tickets = pass(&source, Cursor::epoch(epoch), order);
                prop_assert_eq!(tickets.len(), total);
                let items: Vec<_> = tickets.iter().map(|ticket| ticket.item).collect();
                let distinct: BTreeSet<_> = items.iter().copied().collect();
                prop_assert_eq!(distinct.len(), total);
                prop_assert!(tickets.windows(2).all(|pair| pair[0].index < pair[1].index));
                if order == Order::Stored {
                    prop_assert!(items.is_sorted());
                }
                if resume < total {
                    prop_assert_eq!(&pass(&source, tickets[resume].after, order), &tickets[resume + 1..]);
                }
            }
        }
    }

    #[test]
    fn epochs_and_seeds_differ_and_windows_hold_whole_shards() {
        let source = windows(vec![20; 6], 2, false);
        let items = |epoch, seed| -> Vec<_> {
            pass(&source, Cursor::epoch(epoch), Order::Shuffled { seed }).iter().map(|t| t.item).collect()
        };
        let first = items(0, 7);
        assert_eq!(first, items(0, 7));
        assert_ne!(first, items(1, 7));
        assert_ne!(first, items(0, 8));
        for window in first.chunks(40) {
            let shards: BTreeSet<u64> = window.iter().map(|item| item.0).collect();
            assert_eq!(shards.len(), 2);
            assert!(!window.is_sorted());
        }
    }

    #[test]
    fn resampled_shards_are_drawn_with_replacement_and_resume() {
        let source = windows(vec![3; 50], 5, true);
        let order = Order::Shuffled { seed: 1 };
        let tickets = pass(&source, Cursor::default(), order);
        assert_eq!(tickets.len(), 150, "as many shards as there are");
        let shards: BTreeSet<u64> = tickets.iter().map(|ticket| ticket.item.0).collect();
        assert!((20..45).contains(&shards.len()), "{} of 50 shards, about 32 expected", shards.len());
        assert_eq!(&pass(&source, tickets[70].after, order), &tickets[71..]);
        assert_ne!(pass(&source, Cursor::epoch(1), order)[0].item, tickets[0].item);
        let stored = pass(&source, Cursor::default(), Order::Stored);
        assert_eq!(
            stored.iter().map(|t| t.item).collect::<BTreeSet<_>>().len(),
            150,
            "stored order is whole"
        );
    }

    #[test]
    fn a_place_in_ten_million_samples_is_found_by_opening_one_window() {
        let source = windows(vec![10_000; 1000], 4, false);
        let order = Order::Shuffled { seed: 9 };
        let began = Instant::now();
        let cursor = Cursor { epoch: 2, window: 25, position: 3, ..Cursor::default() };
        let ticket = source.ticket(cursor, order).unwrap().unwrap();
        assert!(began.elapsed().as_secs_f64() < 1.0);
        assert!(source.shards().opened.load(Ordering::Relaxed) <= 8, "this window and the next");
        let mut walked = Cursor { epoch: 2, window: 25, ..Cursor::default() };
        for _ in 0..3 {
            walked = source.ticket(walked, order).unwrap().unwrap().after;
        }
        assert_eq!(source.ticket(walked, order).unwrap().unwrap(), ticket);
    }
    /// The same, counted beforehand.
    fn counted(sizes: Vec<usize>, shards: usize) -> Windows<Sizes> {
        let counted = Some(sizes.iter().map(|&size| size as u32).collect());
        Windows::new(
            Sizes { sizes, counted, opened: AtomicUsize::new(0) },
            Shuffle { shards, resampled: false, deal: Deal::Anew },
        )
    }

    fn lanes(seed: u64, of: u32) -> impl Iterator<Item = Order> {
        (0..of).map(move |number| Order::Lane { seed, lane: Lane { number, of } })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn lanes_hold_each_sample_once_and_resume(
            sizes in prop::collection::vec(0usize..9, 1..9), stride in 1usize..6, of in 1u32..7,
            seed in 0u64..1000, epoch in 0u64..3, resume in 0usize..10, known: bool,
        ) {
            let total: usize = sizes.iter().sum();
            let source = if known { counted(sizes.clone(), stride) } else { windows(sizes.clone(), stride, false) };
            let enough = if known { total } else { sizes.len() } >= of as usize;
            let mut items = Vec::new();
            let mut indexes = BTreeSet::new();
            for order in lanes(seed, of) {
                if of > 1 && !enough {
                    prop_assert!(source.ticket(Cursor::epoch(epoch), order).is_err());
                    continue;
                }
                let tickets = pass(&source, Cursor::epoch(epoch), order);
                if let Some(ticket) = tickets.get(resume) {
                    prop_assert_eq!(&pass(&source, ticket.after, order), &tickets[resume + 1..]);
                }
                indexes.extend(tickets.iter().map(|ticket| ticket.index));
                items.extend(tickets.iter().map(|ticket| ticket.item));
            }
            if of == 1 || enough {
                let distinct: BTreeSet<_> = items.iter().copied().collect();
                prop_assert_eq!((distinct.len(), items.len(), indexes.len()), (total, total, total));
            }
            // The only lane has the order of a run without lanes, whether shards are counted or not.
            let order = |order| pass(&source, Cursor::epoch(epoch), order).iter().map(|t| t.item).collect::<Vec<_>>();
            prop_assert_eq!(order(Order::Lane { seed, lane: Lane::WHOLE }), order(Order::Shuffled { seed }));
        }
    }

    #[test]
    fn several_lanes_keep_their_windows_and_open_each_shard_about_once() {
        let source = counted(vec![20; 64], 4);
        let orders: Vec<Order> = lanes(3, 16).collect();
        let mut cursors = vec![Cursor::default(); 16];
        let mut given = 0;
        // In turns, as one rank with several lanes asks for them.
        loop {
            let mut some = false;
            for (cursor, order) in cursors.iter_mut().zip(&orders) {
                if let Some(ticket) = source.ticket(*cursor, *order).unwrap() {
                    (*cursor, some) = (ticket.after, true);
                    source.shard(ticket.item.0).unwrap();
                    given += 1;
                }
            }
            if !some {
                break;
            }
        }
        assert_eq!(given, 64 * 20);
        let opened = source.shards().opened.load(Ordering::Relaxed);
        // Those of this epoch, and of the next one's first windows, which are opened beforehand.
        assert!(opened <= 64 + 64, "{opened} shards were opened");
    }

    #[test]
    fn nothing_is_opened_behind_what_is_wanted() {
        let opened = |wanted: u64| {
            let source = counted(vec![20; 16], 4);
            source.want(Lane::WHOLE, wanted);
            let mut cursor = Cursor::default();
            for _ in 0..80 {
                let order = Order::Lane { seed: 3, lane: Lane::WHOLE };
                let ticket = source.ticket(cursor, order).unwrap().unwrap();
                cursor = ticket.after;
                source.shard(ticket.item.0).unwrap();
            }
            let began = Instant::now();
            while source.shards().opened.load(Ordering::Relaxed) < 8 && began.elapsed().as_millis() < 500 {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            source.shards().opened.load(Ordering::Relaxed)
        };
        assert_eq!(opened(80), 4, "the first of four windows");
        assert_eq!(opened(81), 8, "and the second");
    }

    #[test]
    fn resampled_lanes_draw_from_all_shards() {
        let source = windows(vec![3; 50], 5, true);
        let passes: Vec<Vec<Ticket>> =
            lanes(1, 4).map(|order| pass(&source, Cursor::default(), order)).collect();
        let drawn: usize = passes.iter().map(Vec::len).sum();
        assert_eq!(drawn, 150, "as many shards as there are, in all lanes together");
        let shards = |pass: &[Ticket]| -> Vec<u64> { pass.iter().map(|ticket| ticket.item.0).collect() };
        assert_ne!(shards(&passes[0]), shards(&passes[1]));
        assert!(passes.iter().any(|pass| shards(pass).iter().any(|shard| *shard > 40)));
    }

    #[test]
    fn kept_shards_stay_in_their_lane_and_come_in_another_order() {
        let sizes = vec![5, 9, 7, 3, 8, 6, 4, 10, 2, 11];
        let counted = Some(sizes.iter().map(|&size| size as u32).collect());
        let shuffle = Shuffle { shards: 2, resampled: false, deal: Deal::Kept };
        let source = Windows::new(Sizes { sizes, counted, opened: AtomicUsize::new(0) }, shuffle);
        let mut all = 0;
        for order in lanes(4, 3) {
            let epoch = |epoch| -> Vec<(u64, u64)> {
                pass(&source, Cursor::epoch(epoch), order).iter().map(|ticket| ticket.item).collect()
            };
            let set = |items: &[(u64, u64)]| items.iter().copied().collect::<BTreeSet<_>>();
            let (first, second) = (epoch(0), epoch(1));
            assert_ne!(first, second);
            assert_eq!(set(&first), set(&second));
            all += first.len();
        }
        assert_eq!(all, 65);
    }
}
