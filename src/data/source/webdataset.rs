//! Tar shards of image-text pairs, as img2dataset and webdataset write them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::shard::Shard;
use crate::data::source;
use crate::data::source::listing::sizes;
use crate::data::source::opened::ShardSet;
use crate::data::source::shard_index::{Indexed, IndexedShard, ShardIndex};
use crate::data::source::windows::{Shuffle, Windows};
use crate::data::source::{Files, Lane, Order, Source, Ticket};
use crate::data::storage::{Location, Progress, Storage, StorageError};
use crate::data::text::{CaptionMember, CaptionUse};
use crate::data::{Cursor, DataError};
use crate::data::{Defect, LoadError, Raw};

/// Tar shards of image-text pairs, plain or packed with gzip or zstd, detected by content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebDatasetConfig {
    /// Path or URL with braces or wildcards, for example `/data/laion400m/{00000..41455}.tar`; a list of them; or
    /// a `.txt` file with one a line. URLs are `http(s)://`, `s3://`, `gs://` and `az://`.
    pub shards: Files,
    /// The index of the shards, a JSON file that `flip data index` or webdataset's `widsindex` wrote: samples and bytes of
    /// each. Shards that are other ones are refused. Default: where several ranks train, a run counts shards on this machine
    /// as it begins, and deals remote ones out whole.
    #[serde(default)]
    pub index: Option<PathBuf>,
    /// Shards whose samples are shuffled together.
    #[serde(default = "shuffle_shards")]
    #[schemars(range(min = 1, max = 65_536))]
    pub shuffle_shards: usize,
    /// Training draws shards with replacement instead of taking each once an epoch. An epoch then has as
    /// many shards as there are. Evaluation takes each once all the same.
    #[serde(default)]
    pub resampled: bool,
    /// Images with more pixels than this are skipped, counted as `image_too_large`.
    #[serde(default = "max_pixels")]
    pub max_pixels: u64,
    /// The member that holds the captions of a sample. Default: `txt`.
    #[serde(default)]
    pub caption: CaptionMember,
}

impl WebDatasetConfig {
    /// The shards of one pattern or several, with the defaults of the other fields.
    pub fn new(shards: impl Into<Files>) -> Self {
        WebDatasetConfig {
            shards: shards.into(),
            index: None,
            shuffle_shards: shuffle_shards(),
            resampled: false,
            max_pixels: max_pixels(),
            caption: CaptionMember::default(),
        }
    }
}

fn shuffle_shards() -> usize {
    4
}
fn max_pixels() -> u64 {
    source::MAX_PIXELS
}

/// Tar shards.
pub struct WebDataset {
    /// As in the recipe.
    name: String,
    windows: Windows<Shards>,
    max_pixels: u64,
    caption: CaptionMember,
    caption_use: CaptionUse,
    samples: OnceLock<u64>,
}

impl WebDataset {
    /// Finds the shards; none of them is read yet.
    ///
    /// # Errors
    /// The pattern matches nothing or cannot be read.
    pub fn open(config: &WebDatasetConfig) -> Result<Self, DataError> {
        WebDataset::open_in(config, Arc::default())
    }

    /// The same with shards anywhere.
    ///
    /// # Errors
    /// The pattern matches nothing or cannot be read.
    pub fn open_in(config: &WebDatasetConfig, storage: Arc<Storage>) -> Result<Self, DataError> {
        let shards = Shards::new(config.shards.locate(&storage)?, storage);
        if let Some(path) = &config.index {
            shards.hold_against(path)?;
        }
        let shuffle = Shuffle { shards: config.shuffle_shards, resampled: config.resampled };
        Ok(WebDataset {
            name: config.shards.to_string(),
            windows: Windows::new(shards, shuffle),
            max_pixels: config.max_pixels,
            caption: config.caption.clone(),
            caption_use: CaptionUse::Needed,
            samples: OnceLock::new(),
        })
    }

    /// The same shards for a purpose that may not need captions.
    pub fn captions(self, captions: CaptionUse) -> Self {
        WebDataset { caption_use: captions, ..self }
    }
}

impl Source for WebDataset {
    fn samples(&self) -> Option<u64> {
        if let Some(samples) = self.samples.get() {
            return Some(*samples);
        }
        let Shards { files, storage, index, .. } = self.windows.shards();
        if let Some(index) = index.get() {
            return Some(index.samples());
        }
        // To count remote shards they would all have to be brought.
        if files.iter().any(|file| matches!(file, Location::Url(_))) {
            return None;
        }
        // Not through the windows: a set may have more shards than indexes fit in memory.
        let mut samples = 0;
        for file in files {
            match Shard::open_at(file, storage) {
                Ok(shard) => samples += shard.len() as u64,
                Err(error) => {
                    tracing::warn!(target: "flip::data", "cannot count the samples: {error}");
                    return None;
                }
            }
        }
        Some(*self.samples.get_or_init(|| samples))
    }

    fn ticket(&self, cursor: Cursor, order: Order) -> Result<Option<Ticket>, DataError> {
        self.windows.ticket(cursor, order)
    }

    fn takes_turns(&self) -> bool {
        false
    }

    fn want(&self, lane: Lane, samples: u64) {
        self.windows.want(lane, samples);
    }

    fn files(&self) -> Vec<Location> {
        self.windows.shards().files.clone()
    }

    fn indexed(&self) -> Vec<&dyn Indexed> {
        vec![self.windows.shards()]
    }

    fn load(&self, ticket: &Ticket) -> Result<Raw, LoadError> {
        let shard = self.windows.shard(ticket.item.0)?;
        if let Some(absent) = self.windows.shards().absent(ticket, &shard) {
            return Err(absent.of(shard.location().to_string()).into());
        }
        shard.load_with(ticket.item.1 as usize, &self.caption, self.caption_use)
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn sample_name(&self, ticket: &Ticket, key: &str) -> String {
        format!("{}: {key}", self.windows.shards().files[ticket.item.0 as usize])
    }

    fn shards(&self) -> Vec<String> {
        self.windows.shards().files.iter().map(Location::to_string).collect()
    }

    fn shard_of(&self, ticket: &Ticket) -> Option<String> {
        Some(self.windows.shards().files[ticket.item.0 as usize].to_string())
    }

    fn occurrence(&self, ticket: &Ticket) -> u32 {
        self.windows.shard(ticket.item.0).map_or(1, |shard| shard.occurrence(ticket.item.1 as usize))
    }

    fn max_pixels(&self) -> u64 {
        self.max_pixels
    }

    fn progress(&self) -> Option<Arc<Progress>> {
        Some(self.windows.shards().storage.progress().clone())
    }
}

/// The shards, opened on demand.
struct Shards {
    files: Vec<Location>,
    storage: Arc<Storage>,
    /// By which a shard is known when it is opened again; 0 where it never was.
    stamps: Vec<AtomicU64>,
    /// Bytes and samples of each, once they are known.
    index: OnceLock<ShardIndex>,
    /// Samples of each, where there is an index.
    counts: OnceLock<Vec<u32>>,
}

impl Shards {
    fn new(files: Vec<Location>, storage: Arc<Storage>) -> Self {
        let stamps = files.iter().map(|_| AtomicU64::new(0)).collect();
        Shards { files, storage, stamps, index: OnceLock::new(), counts: OnceLock::new() }
    }

    /// Takes the index of a file, which has to be that of the shards.
    fn hold_against(&self, path: &Path) -> Result<(), DataError> {
        let refused = |what: String| {
            DataError::OtherData(format!(
                "{}: not the index of these shards: {what}. Put the shards back, or make it anew with `flip data index`",
                path.display()
            ))
        };
        let index = ShardIndex::read(path)?.of_files(&self.files).map_err(refused)?;
        let sizes = sizes(&self.files)?;
        for (shard, bytes) in index.shards().iter().zip(sizes) {
            match (shard.bytes, bytes) {
                (Some(expected), Some(found)) if expected != found => {
                    return Err(refused(format!("{} has {found} bytes instead of {expected}", shard.url)));
                }
                _ => {}
            }
        }
        self.settle(index);
        Ok(())
    }

    /// The index says that there is a sample, and its shard ends before it.
    fn absent(&self, ticket: &Ticket, shard: &Shard) -> Option<Defect> {
        let indexed = self.index.get()?.shards()[ticket.item.0 as usize].samples;
        let (sample, there) = (ticket.item.1, shard.len() as u64);
        (there <= sample && sample < indexed).then(|| {
            let detail = format!("sample {sample}, counted from 0, of {there}; the index says {indexed}");
            Defect::new("sample_absent", detail)
        })
    }

    /// Warns of a shard that has more samples than the index says, and refuses one of another length.
    fn check_indexed(&self, number: usize, shard: &Shard) -> Result<(), StorageError> {
        let Some(IndexedShard { bytes, samples, .. }) = self.index.get().map(|index| &index.shards()[number])
        else {
            return Ok(());
        };
        let (location, there) = (shard.location(), shard.len() as u64);
        if bytes.is_some_and(|bytes| bytes != shard.bytes()) {
            let (bytes, found) = (bytes.unwrap_or_default(), shard.bytes());
            let problem = match shard.damage() {
                Some(damage) if found == 0 => damage.detail.clone(),
                _ => format!("it has {found} bytes"),
            };
            let detail = format!("{problem}, and the index says {bytes} bytes");
            return Err(StorageError::Changed { location: location.clone(), detail });
        }
        if there > *samples {
            tracing::warn!(
                target: "flip::data",
                "{location}: holds {there} samples, and the index says {samples}; those behind are left out"
            );
        }
        Ok(())
    }

    /// The order of a window names samples by their number, and so does a checkpoint.
    fn check_unchanged(&self, number: usize, shard: &Shard) -> Result<(), StorageError> {
        let stamp = shard.stamp().max(1);
        match self.stamps[number].compare_exchange(0, stamp, Ordering::Relaxed, Ordering::Relaxed) {
            Err(known) if known != stamp => Err(StorageError::Changed {
                location: shard.location().clone(),
                detail: format!(
                    "it has {} bytes and {} samples now, which are not those that it had when it was first opened",
                    shard.bytes(),
                    shard.len()
                ),
            }),
            _ => Ok(()),
        }
    }
}

impl ShardSet for Shards {
    type Shard = Shard;

    fn count(&self) -> usize {
        self.files.len()
    }

    fn counts(&self) -> Option<&[u32]> {
        let index = self.index.get()?;
        let counts = || index.shards().iter().map(|shard| shard.samples as u32).collect();
        Some(self.counts.get_or_init(counts))
    }

    fn open(&self, number: usize) -> Result<Shard, DataError> {
        let opened = Shard::open_at(&self.files[number], &self.storage)?;
        self.check_unchanged(number, &opened)?;
        self.check_indexed(number, &opened)?;
        if let Some(damage) = opened.damage() {
            tracing::warn!(
                target: "flip::data",
                "{}: {}: {}; its first {} samples are used",
                opened.location(),
                damage.reason,
                damage.detail,
                opened.len() - 1
            );
        } else if opened.is_empty() {
            let (shard, bytes) = (opened.location(), opened.bytes());
            tracing::warn!(target: "flip::data", "{shard}: holds no sample; it has {bytes} bytes");
        }
        Ok(opened)
    }

    fn samples(shard: &Shard) -> usize {
        shard.len()
    }
}

impl Indexed for Shards {
    fn files(&self) -> &[Location] {
        &self.files
    }

    fn storage(&self) -> &Storage {
        &self.storage
    }

    fn index(&self) -> Option<&ShardIndex> {
        self.index.get()
    }

    fn settle(&self, index: ShardIndex) {
        self.index.get_or_init(|| index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A shard of `samples` samples of headers alone: no images, but as many places as a real one.
    fn headers(samples: usize) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for sample in 0..samples {
            let mut header = tar::Header::new_ustar();
            header.set_size(0);
            builder.append_data(&mut header, format!("{sample:05}.jpg"), &b""[..]).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn resuming_in_ten_million_samples_takes_under_a_second_and_goes_on_exactly() {
        let folder = tempfile::tempdir().unwrap();
        let shard = folder.path().join("shard");
        std::fs::write(&shard, headers(10_000)).unwrap();
        for i in 0..1000 {
            std::os::unix::fs::symlink(&shard, folder.path().join(format!("{i:04}.tar"))).unwrap();
        }
        let config = WebDatasetConfig::new(folder.path().join("*.tar").display().to_string().as_str());
        let order = Order::Shuffled { seed: 5 };

        // What a run that was never stopped comes to: it is in the 25th of 250 windows of 40,000 samples.
        let whole = WebDataset::open(&config).unwrap();
        let mut cursor = Cursor { window: 24, ..Cursor::default() };
        for _ in 960_000..1_000_003 {
            cursor = whole.ticket(cursor, order).unwrap().unwrap().after;
        }
        assert_eq!(cursor, Cursor { window: 25, position: 3, ..Cursor::default() });

        let began = std::time::Instant::now();
        let resumed = WebDataset::open(&config).unwrap();
        let mut next = cursor;
        let mut tickets = vec![resumed.ticket(next, order).unwrap().unwrap()];
        let seconds = began.elapsed().as_secs_f64();
        assert!(seconds < 1.0, "{seconds} s");
        next = tickets[0].after;
        for _ in 0..50_000 {
            let ticket = resumed.ticket(next, order).unwrap().unwrap();
            next = ticket.after;
            tickets.push(ticket);
        }
        for expected in tickets {
            let ticket = whole.ticket(cursor, order).unwrap().unwrap();
            assert_eq!(ticket, expected);
            cursor = ticket.after;
        }
    }

    #[test]
    fn a_packed_shard_is_the_shard() {
        let folder = tempfile::tempdir().unwrap();
        let plain = headers(20);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::encode_all(&plain[..], 1).unwrap();
        let keys = |name: &str, bytes: &[u8]| -> Vec<String> {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let shard = Shard::open(&path).unwrap();
            assert_eq!(shard.damage(), None, "{name}");
            (0..shard.len()).map(|sample| shard.key(sample).to_owned()).collect()
        };
        let expected = keys("a.tar", &plain);
        assert_eq!(expected.len(), 20);
        for (name, bytes) in [("b.tar.gz", &gzip), ("c.tar.zst", &zstd), ("d.tar", &gzip), ("e.tar", &zstd)] {
            assert_eq!(keys(name, bytes), expected, "{name}");
        }
        let cut = folder.path().join("cut.tar.gz");
        std::fs::write(&cut, &gzip[..gzip.len() - 20]).unwrap();
        let shard = Shard::open(&cut).unwrap();
        assert!(shard.len() > 2);
        let damage = shard.damage().unwrap();
        assert_eq!(damage.reason, "shard_compressed");
        assert!(damage.detail.contains("cannot be unpacked behind byte"), "{}", damage.detail);
    }
}
