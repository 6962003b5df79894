//! Tar shards of image-text pairs, as img2dataset and webdataset write them.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::shard::Shard;
use crate::data::source;
use crate::data::source::shard_index::Indexed;
use crate::data::source::tar_shards::Shards;
use crate::data::source::windows::{Deal, Shuffle, Windows};
use crate::data::source::{Files, Lane, Order, Source, Ticket};
use crate::data::storage::{Location, Progress, Storage};
use crate::data::text::{CaptionMember, CaptionUse};
use crate::data::{Cursor, DataError};
use crate::data::{LoadError, Raw};

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
    /// Shards of each epoch in a lane: `Anew`, others, or `Kept`, the same ones, so that a host that caches its share reads
    /// the store once; the pairs of a batch then come from the same part of the data in every epoch.
    #[serde(default)]
    pub deal: Deal,
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
            deal: Deal::Anew,
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
        let shuffle =
            Shuffle { shards: config.shuffle_shards, resampled: config.resampled, deal: config.deal };
        Ok(WebDataset {
            name: config.shards.to_string(),
            windows: Windows::new(shards, shuffle),
            max_pixels: config.max_pixels,
            caption: config.caption.clone(),
            caption_use: CaptionUse::Needed,
            samples: OnceLock::new(),
        })
    }

    /// Classes of a sample that shows several: the places in its `.npy` member that are not 0.
    pub(crate) fn load_label_set(&self, ticket: &Ticket) -> Result<Vec<u32>, LoadError> {
        let shard = self.windows.shard(ticket.item.0)?;
        shard.load_label_set(ticket.item.1 as usize)
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
        let shards = self.windows.shards();
        let Shards { files, storage, .. } = shards;
        if let Some(index) = shards.index() {
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
