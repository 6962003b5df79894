//! The order of a source whose samples lie in shards that have to be opened before they can be counted.
//!
//! A pass takes the shards in a drawn order, a window of a few shards at a time; the samples of a window are
//! shuffled together. Only the windows in use are opened, so a place in a set of any size is found in the
//! time that it takes to open the shards of one window.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::seq::SliceRandom;
use rand::Rng;

use crate::data::source::{Order, Ticket};
use crate::data::{Cursor, DataError};
use crate::seed::{rng, Purpose};

/// Second counter of the draw that orders the shards of an epoch; windows count from 0.
const SHARDS: u64 = u64::MAX;
/// Set in the second counter of the draw of the shards of a window, where they are drawn with replacement.
const REPLACED: u64 = 1 << 63;
/// Windows whose shards stay open: the one whose samples are still being loaded, the current and the next.
const WINDOWS_KEPT: usize = 3;
/// Shards that are opened at the same time.
const OPENED_AT_ONCE: usize = 4;

/// Shards by number: tar files, blocks of a table.
pub(crate) trait ShardSet: Send + Sync + 'static {
    type Shard: Send + Sync + 'static;

    /// Shards.
    fn count(&self) -> usize;

    /// # Errors
    /// The shard cannot be had, and what would come without it is not what the recipe asks for.
    fn open(&self, shard: usize) -> Result<Self::Shard, DataError>;

    /// Samples of an open shard, broken ones included.
    fn samples(shard: &Self::Shard) -> usize;
}

/// Settings of the windows of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shuffle {
    /// Shards in a window; at least one.
    pub shards: usize,
    /// The shards of a training pass are drawn with replacement.
    pub resampled: bool,
}

/// The order over a set of shards.
pub(crate) struct Windows<S: ShardSet> {
    opened: Arc<Opened<S>>,
    shuffle: Shuffle,
    /// The window that tickets were last asked from.
    window: Mutex<Option<Arc<Window>>>,
}

/// The order of samples in one window.
struct Window {
    epoch: u64,
    index: u64,
    order: Order,
    /// (shard, sample in the shard)
    items: Vec<(u32, u32)>,
}

impl<S: ShardSet> Windows<S> {
    /// Nothing is opened yet.
    pub fn new(shards: S, shuffle: Shuffle) -> Self {
        let shuffle = Shuffle { shards: shuffle.shards.max(1), ..shuffle };
        let capacity = WINDOWS_KEPT * shuffle.shards;
        let opened = Opened { shards, capacity, recent: Mutex::new(VecDeque::new()) };
        Windows { opened: Arc::new(opened), shuffle, window: Mutex::new(None) }
    }

    pub fn shards(&self) -> &S {
        &self.opened.shards
    }

    /// An open shard.
    pub fn shard(&self, shard: u64) -> Result<Arc<S::Shard>, DataError> {
        self.opened.get(shard as u32)
    }

    fn windows(&self) -> u64 {
        self.shards().count().div_ceil(self.shuffle.shards) as u64
    }

    /// The shards of a window, in the order of the epoch.
    fn shards_of(&self, epoch: u64, window: u64, order: Order) -> Vec<u32> {
        let count = self.shards().count();
        let first = window as usize * self.shuffle.shards;
        let last = count.min(first.saturating_add(self.shuffle.shards));
        match order {
            Order::Stored => (first as u32..last as u32).collect(),
            Order::Shuffled { seed } if self.shuffle.resampled => {
                let mut draw = rng(seed, Purpose::Order, epoch, REPLACED | window);
                (first..last).map(|_| draw.gen_range(0..count as u32)).collect()
            }
            Order::Shuffled { seed } => {
                let mut shards: Vec<u32> = (0..count as u32).collect();
                shards.shuffle(&mut rng(seed, Purpose::Order, epoch, SHARDS));
                shards[first..last].to_vec()
            }
        }
    }

    /// The order of a window's samples. Entering a window opens the shards of the one after it, aside.
    fn window(&self, epoch: u64, index: u64, order: Order) -> Result<Arc<Window>, DataError> {
        let mut current = lock(&self.window);
        match &*current {
            Some(window) if (window.epoch, window.index, window.order) == (epoch, index, order) => {
                return Ok(window.clone())
            }
            _ => {}
        }
        let shards = self.shards_of(epoch, index, order);
        self.opened.open_all(&shards, || true)?;
        let mut items = Vec::new();
        for shard in shards {
            let open = self.opened.get(shard)?;
            let samples = S::samples(&open);
            items.extend((0..samples as u32).map(|sample| (shard, sample)));
        }
        if let Order::Shuffled { seed } = order {
            items.shuffle(&mut rng(seed, Purpose::Order, epoch, index));
        }
        let next = if index + 1 < self.windows() { (epoch, index + 1) } else { (epoch.saturating_add(1), 0) };
        let ahead = self.shards_of(next.0, next.1, order);
        let opened = self.opened.clone();
        // Nothing waits for this thread: it only makes the next window quick to enter. What fails here fails
        // again, and is told, when the window is entered.
        let _ = std::thread::Builder::new().name("flip-index".into()).spawn(move || {
            // The source itself may be gone by now.
            let _ = opened.open_all(&ahead, || Arc::strong_count(&opened) > 1);
        });
        let window = Arc::new(Window { epoch, index, order, items });
        *current = Some(window.clone());
        Ok(window)
    }

    /// The sample at `cursor`; `None` at the end of the cursor's epoch.
    pub fn ticket(&self, mut cursor: Cursor, order: Order) -> Result<Option<Ticket>, DataError> {
        while cursor.window < self.windows() {
            let window = self.window(cursor.epoch, cursor.window, order)?;
            let rest = window.items.get(cursor.position as usize..).unwrap_or_default();
            let next_window = Cursor { window: cursor.window + 1, position: 0, ..cursor };
            let Some(&(shard, sample)) = rest.first() else {
                cursor = next_window;
                continue;
            };
            let next = Cursor { position: cursor.position + 1, ..cursor };
            return Ok(Some(Ticket {
                epoch: cursor.epoch,
                // Windows are not counted before they are entered, so places are numbered within each.
                index: cursor.window << 32 | cursor.position,
                item: (shard.into(), sample.into()),
                after: if rest.len() == 1 { next_window } else { next },
            }));
        }
        Ok(None)
    }
}

/// The last few shards that were used.
struct Opened<S: ShardSet> {
    shards: S,
    capacity: usize,
    /// Least recently used first.
    recent: Mutex<VecDeque<(u32, Slot<S::Shard>)>>,
}

/// A shard that is open or being opened; whoever asks for it meanwhile waits.
type Slot<T> = Arc<Mutex<Option<Arc<T>>>>;

impl<S: ShardSet> Opened<S> {
    fn get(&self, shard: u32) -> Result<Arc<S::Shard>, DataError> {
        let slot: Slot<S::Shard> = {
            let mut recent = lock(&self.recent);
            let slot = match recent.iter().position(|(known, _)| *known == shard) {
                Some(at) => recent.remove(at).map(|(_, slot)| slot).unwrap_or_default(),
                None => Arc::default(),
            };
            recent.push_back((shard, slot.clone()));
            if recent.len() > self.capacity {
                recent.pop_front();
            }
            slot
        };
        let mut place = lock(&slot);
        if let Some(open) = &*place {
            return Ok(open.clone());
        }
        let open = Arc::new(self.shards.open(shard as usize)?);
        *place = Some(open.clone());
        Ok(open)
    }

    /// Opens shards, several at a time.
    ///
    /// # Errors
    /// The first that cannot be had; none is begun after it.
    fn open_all(&self, shards: &[u32], wanted: impl Fn() -> bool + Sync) -> Result<(), DataError> {
        let next = AtomicUsize::new(0);
        let failure = Mutex::new(None);
        let (next, wanted, failed) = (&next, &wanted, &failure);
        let work = || {
            while let Some(&shard) = shards.get(next.fetch_add(1, Ordering::Relaxed)) {
                if !wanted() || lock(failed).is_some() {
                    return;
                }
                if let Err(error) = self.get(shard) {
                    lock(failed).get_or_insert(error);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..shards.len().min(OPENED_AT_ONCE) {
                // Where the system refuses a thread, the others do its work.
                let _ = std::thread::Builder::new().name("flip-index".into()).spawn_scoped(scope, work);
            }
            work();
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

/// Locks; whatever a panicking thread left is still a valid cache.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::time::Instant;

    /// Shards of so many samples; counts how often one is opened.
    struct Sizes {
        sizes: Vec<usize>,
        opened: AtomicUsize,
    }

    impl ShardSet for Sizes {
        type Shard = usize;

        fn count(&self) -> usize {
            self.sizes.len()
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
        Windows::new(Sizes { sizes, opened: AtomicUsize::new(0) }, Shuffle { shards, resampled })
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
}
