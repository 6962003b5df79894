//! Tar shards of image-text pairs, as img2dataset and webdataset write them, read where they are.
//!
//! A pass takes the shards in a drawn order, a window of a few shards at a time; the samples of a window are
//! shuffled together. Only the windows in use are indexed, so a place in a set of any size is found in the
//! time that it takes to read the headers of one window.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rand::seq::SliceRandom;

use super::pattern;
use super::shard::Shard;
use super::source::{Order, Raw, Skip, Source, Ticket};
use super::{Cursor, DataError, WebDatasetConfig};
use crate::seed::{rng, Purpose};

/// Second counter of the draw that orders the shards of an epoch; windows count from 0.
const SHARDS: u64 = u64::MAX;
/// Windows whose shards stay indexed: the one whose samples are still being loaded, the current and the next.
const WINDOWS_KEPT: usize = 3;

/// Tar shards.
pub struct WebDataset {
    pattern: String,
    shards: Arc<Shards>,
    /// Shards in a window.
    stride: usize,
    max_pixels: u64,
    /// The window that tickets were last asked from.
    window: Mutex<Option<Arc<Window>>>,
    samples: OnceLock<u64>,
    /// Whether a sample without a caption is left out.
    needs_captions: bool,
}

/// The order of samples in one window.
struct Window {
    epoch: u64,
    index: u64,
    order: Order,
    /// (shard, sample in the shard)
    items: Vec<(u32, u32)>,
}

impl WebDataset {
    /// Finds the shards; none of them is read yet.
    ///
    /// # Errors
    /// The pattern matches nothing or cannot be read.
    pub fn open(config: &WebDatasetConfig) -> Result<Self, DataError> {
        let paths = pattern::shards(&config.shards)?;
        let stride = config.shuffle_shards.max(1);
        Ok(WebDataset {
            pattern: config.shards.clone(),
            shards: Arc::new(Shards::new(paths, WINDOWS_KEPT * stride)),
            stride,
            max_pixels: config.max_pixels,
            window: Mutex::new(None),
            samples: OnceLock::new(),
            needs_captions: true,
        })
    }

    /// The same shards, of which samples without a caption are loaded too.
    pub fn captions_optional(self) -> Self {
        WebDataset { needs_captions: false, ..self }
    }

    fn windows(&self) -> u64 {
        self.shards.paths.len().div_ceil(self.stride) as u64
    }

    /// The shards of a window, in the order of the epoch.
    fn shards_of(&self, epoch: u64, window: u64, order: Order) -> Vec<u32> {
        let mut shards: Vec<u32> = (0..self.shards.paths.len() as u32).collect();
        if let Order::Shuffled { seed } = order {
            shards.shuffle(&mut rng(seed, Purpose::Order, epoch, SHARDS));
        }
        shards.into_iter().skip(window as usize * self.stride).take(self.stride).collect()
    }

    /// The order of a window's samples. Entering a window indexes the shards of the one after it, aside.
    fn window(&self, epoch: u64, index: u64, order: Order) -> Arc<Window> {
        let mut current = lock(&self.window);
        match &*current {
            Some(window) if (window.epoch, window.index, window.order) == (epoch, index, order) => {
                return window.clone()
            }
            _ => {}
        }
        let mut items = Vec::new();
        for shard in self.shards_of(epoch, index, order) {
            items.extend((0..self.shards.get(shard).len() as u32).map(|sample| (shard, sample)));
        }
        if let Order::Shuffled { seed } = order {
            items.shuffle(&mut rng(seed, Purpose::Order, epoch, index));
        }
        let next = if index + 1 < self.windows() { (epoch, index + 1) } else { (epoch.saturating_add(1), 0) };
        let ahead = self.shards_of(next.0, next.1, order);
        let shards = self.shards.clone();
        // Nothing waits for this thread: it only makes the next window quick to enter.
        let _ = std::thread::Builder::new().name("flip-index".into()).spawn(move || {
            for shard in ahead {
                // The source itself may be gone by now.
                if Arc::strong_count(&shards) > 1 {
                    shards.get(shard);
                }
            }
        });
        let window = Arc::new(Window { epoch, index, order, items });
        *current = Some(window.clone());
        window
    }
}

impl Source for WebDataset {
    fn samples(&self) -> Option<u64> {
        Some(*self.samples.get_or_init(|| {
            // Not through the cache: a set may have more shards than indexes fit in memory.
            self.shards.paths.iter().map(|path| Shard::open(path).len() as u64).sum()
        }))
    }

    fn ticket(&self, mut cursor: Cursor, order: Order) -> Result<Option<Ticket>, DataError> {
        while cursor.window < self.windows() {
            let window = self.window(cursor.epoch, cursor.window, order);
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

    fn load(&self, ticket: &Ticket) -> Result<Raw, Skip> {
        let (shard, sample) = (self.shards.get(ticket.item.0 as u32), ticket.item.1 as usize);
        if self.needs_captions {
            shard.load(sample)
        } else {
            shard.load_labelled(sample)
        }
    }

    fn name(&self) -> String {
        self.pattern.clone()
    }

    fn sample_name(&self, ticket: &Ticket, key: &str) -> String {
        format!("{}: {key}", self.shards.paths[ticket.item.0 as usize].display())
    }

    fn max_pixels(&self) -> u64 {
        self.max_pixels
    }
}

/// Every shard by name, and the indexes of the last few that were used.
struct Shards {
    paths: Vec<PathBuf>,
    capacity: usize,
    /// Least recently used first.
    opened: Mutex<VecDeque<(u32, Slot)>>,
}

/// Where a shard is or will be; filled by whoever asks first.
type Slot = Arc<OnceLock<Arc<Shard>>>;

impl Shards {
    fn new(paths: Vec<PathBuf>, capacity: usize) -> Self {
        Shards { paths, capacity, opened: Mutex::new(VecDeque::new()) }
    }

    /// The index of a shard; whoever asks for it while it is being read waits.
    fn get(&self, shard: u32) -> Arc<Shard> {
        let slot = {
            let mut opened = lock(&self.opened);
            let slot = match opened.iter().position(|(known, _)| *known == shard) {
                Some(at) => opened.remove(at).map(|(_, slot)| slot).unwrap_or_default(),
                None => Arc::default(),
            };
            opened.push_back((shard, slot.clone()));
            if opened.len() > self.capacity {
                opened.pop_front();
            }
            slot
        };
        slot.get_or_init(|| {
            let opened = Shard::open(&self.paths[shard as usize]);
            if let Some(damage) = opened.damage() {
                tracing::warn!(
                    target: "flip::data",
                    "{}: {}: {}; its first {} samples are used",
                    opened.path().display(),
                    damage.reason,
                    damage.detail,
                    opened.len() - 1
                );
            }
            Arc::new(opened)
        })
        .clone()
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

    /// Shards of headers alone: `sizes[i]` samples in shard i.
    fn dataset(folder: &std::path::Path, sizes: &[usize], stride: usize) -> WebDataset {
        for (i, &samples) in sizes.iter().enumerate() {
            let file = std::fs::File::create(folder.join(format!("{i:02}.tar"))).unwrap();
            let mut builder = tar::Builder::new(std::io::BufWriter::new(file));
            for sample in 0..samples {
                let mut header = tar::Header::new_ustar();
                header.set_size(0);
                builder.append_data(&mut header, format!("{sample}.jpg"), &b""[..]).unwrap();
            }
            builder.finish().unwrap();
        }
        WebDataset::open(&WebDatasetConfig {
            shards: folder.join("*.tar").display().to_string(),
            shuffle_shards: stride,
            max_pixels: 1,
        })
        .unwrap()
    }

    fn pass(source: &WebDataset, mut cursor: Cursor, order: Order) -> Vec<Ticket> {
        let mut tickets = Vec::new();
        while let Some(ticket) = source.ticket(cursor, order).unwrap() {
            cursor = ticket.after;
            tickets.push(ticket);
        }
        tickets
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn an_epoch_holds_each_sample_once(
            sizes in prop::collection::vec(0usize..9, 1..9), stride in 1usize..6,
            seed in 0u64..1000, epoch in 0u64..3, resume in 0usize..40,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let source = dataset(folder.path(), &sizes, stride);
            let total: usize = sizes.iter().sum();
            prop_assert_eq!(source.samples(), Some(total as u64));
            for order in [Order::Stored, Order::Shuffled { seed }] {
                let tickets = pass(&source, Cursor { epoch, ..Cursor::default() }, order);
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
        let folder = tempfile::tempdir().unwrap();
        let source = dataset(folder.path(), &[20; 6], 2);
        let items = |epoch, seed| -> Vec<_> {
            let start = Cursor { epoch, ..Cursor::default() };
            pass(&source, start, Order::Shuffled { seed }).iter().map(|t| t.item).collect()
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
}
