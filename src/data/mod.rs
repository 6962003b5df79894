//! From a recipe's sources to batches of images and tokens, in an order that depends on the seed alone.
//!
//! # What a failure means
//!
//! Every failure is one of three, and the third is never taken for one of the others: what a run learns depends on its
//! recipe and its data, not on how the machine felt.
//!
//! 1. **The sample's**: its bytes were read, and they are no image, no caption, no row. It is left out, counted by
//!    reason and named with its shard ([`source::LoadError::Skip`]). So is an image that a table or a list names and
//!    that does not exist: its folder is there, or its server answers 404 or 410.
//! 2. **The shard's**: its bytes were read, and from some place on they are no archive. What is before counts, and the
//!    damage is counted and named as one more sample ([`shard::Shard::damage`]). What came over a network is fetched
//!    twice before it is called damaged, and not kept in the cache. A shard behind a URL that the server does not have
//!    (404 or 410 at the first time of asking) is a missing one, counted and named likewise.
//! 3. **The machine's or the network's**: everything else. Any error of opening, looking at, reading or mapping a file
//!    that was there when its source was opened, and of unpacking or caching one (ENOSPC, EMFILE, ENFILE, ENOMEM, EIO,
//!    ESTALE, EACCES, ENOENT, ...); a name that cannot be resolved, a connection that is refused, breaks or falls
//!    silent; the answers 401, 403, 408, 425, 429 and 5xx; a page of HTML, or nothing, in place of a file; 404 for a
//!    shard that was there before. It is tried again after growing pauses, `data.storage.attempts` times and within
//!    `data.storage.stall_limit_s`; then the run ends with an error that names file and cause
//!    ([`source::LoadError::Failed`], [`DataError`]) after a checkpoint of what has been trained. Answers that cannot
//!    change (400, 405, ...) end it at once. With `data.storage.dead_links: Skip` an image of a table is the sample's
//!    even if its server cannot be reached, because on the open web many cannot.
//!
//! A file that is another one than when the run first read it - shorter, with other samples, with another header in
//! front of a sample - ends the run likewise, at once ([`storage::StorageError::Changed`]): the order of an epoch
//! and the place in a checkpoint name samples by their number. What is missing or cannot be looked at before the first
//! step is an error then, but for files of a pattern that do not exist: those are told as a warning.

pub mod decode;
#[cfg(test)]
mod failure_tests;
pub mod load;
pub mod shard;
pub mod source;
pub mod storage;
pub mod text;

use std::path::PathBuf;
use std::sync::Arc;

pub use source::cifar::CifarConfig;
pub use source::clip_benchmark::ClipBenchmarkConfig;
pub use source::folder::FolderConfig;
pub use source::imagenet::ImageNetConfig;
pub use source::karpathy::{KarpathyConfig, KarpathySplit};
pub use source::mix::Weighted;
pub use source::table::TableConfig;
pub use source::webdataset::WebDatasetConfig;
pub use source::{Cursor, Parts};
pub use storage::{DeadLinks, Storage, StorageConfig};
pub use text::{CaptionMember, CaptionUse};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where pairs come from and how they are prepared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Pairs to train on.
    pub train: SourceConfig,
    /// Pairs that training never sees; evaluators use them unless they name a source of their own.
    #[serde(default)]
    pub validation: Option<SourceConfig>,
    /// Size of an epoch in samples, for durations in epochs (the official "virtual" epoch has 1,281,167).
    /// Default: the size of the training source, where it has one.
    #[serde(default)]
    pub epoch_samples: Option<std::num::NonZeroU64>,
    /// Random resized crop and flip.
    #[serde(default)]
    pub augment: AugmentConfig,
    /// Good samples that are left out of training nevertheless.
    #[serde(default)]
    pub filter: source::filter::FilterConfig,
    /// What a sample may ask for, and how many may be broken.
    #[serde(default)]
    pub limits: load::LimitsConfig,
    /// How files are reached: cache, attempts, patience.
    #[serde(default)]
    pub storage: StorageConfig,
    /// Threads that decode and tokenize, at most 1,024. Default: one a core, at least one.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1_024))]
    pub workers: Option<std::num::NonZeroUsize>,
}

/// A source of image-text pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum SourceConfig {
    /// The built-in procedural images: endless, deterministic, nothing to download.
    Scenes(ScenesConfig),
    /// Tar shards as img2dataset writes them: jpg, png or webp + txt + json per key.
    WebDataset(WebDatasetConfig),
    /// Tables of pairs as LAION and open_clip have them: CSV, TSV, JSON Lines or Parquet.
    Table(TableConfig),
    /// A folder per class, images inside.
    Folder(FolderConfig),
    /// A folder as CLIP_benchmark's webdataset exporter writes it: shards, class names, templates.
    ClipBenchmark(ClipBenchmarkConfig),
    /// COCO or Flickr30k in Karpathy's splits: a JSON file and a folder of images.
    Karpathy(KarpathyConfig),
    /// ImageNet (ILSVRC 2012), for evaluation.
    ImageNet(ImageNetConfig),
    /// CIFAR-10 or CIFAR-100, for evaluation.
    Cifar(CifarConfig),
    /// Several of these at once, each with a weight: `Mix([(WebDataset(shards: "a/*.tar"), 3), (..., 1)])`.
    Mix(Vec<Weighted>),
}

/// Small images of coloured, textured, sized, placed shapes with varied English captions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScenesConfig {
    /// Side of an image, pixels; from the level `Clutter` on at least 32.
    #[schemars(range(min = 8, max = 4_096))]
    pub size: usize,
    /// Which combinations of attributes are shown.
    pub split: ScenesSplit,
    /// How much an image shows and a caption tells.
    #[serde(default)]
    pub level: ScenesLevel,
    /// Number of images, for an evaluation. Default: endless.
    #[serde(default)]
    pub samples: Option<std::num::NonZeroU64>,
}

/// Training never shows a held-out combination of attributes; evaluation shows nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ScenesSplit {
    Train,
    HeldOut,
}

/// How much an image shows and a caption tells. In training every level from `Clutter` on shows, in equal
/// shares, what those from `Clutter` to itself show, and nothing of what any of them holds out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
pub enum ScenesLevel {
    /// One or two large shapes and nothing else. Held out: 48 of 144 combinations of shape and colour.
    #[default]
    Plain,
    /// One shape anywhere, among smaller ones that the caption does not tell. Held out: the same 48.
    Clutter,
    /// Two shapes and where one is from the other, perhaps with a smaller third. Held out: pairs that
    /// training never shows together; 96 classes, which differ by side and by whose colour is whose.
    Relations,
    /// Two to four shapes that are alike, alone or beside another one, among smaller ones. Held out: such
    /// pairs; 128 classes, which differ by number, side, and whose colour is whose.
    Counts,
}

/// Random resized crop and horizontal flip of training images, as the paper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Smallest and largest area of the crop, as a share of the image.
    pub crop_area: (f64, f64),
    /// Smallest and largest ratio of width to height of the crop.
    pub crop_aspect: (f64, f64),
    /// Whether images are mirrored half of the time. Turn it off where captions say left and right.
    pub flip: bool,
}

impl Default for AugmentConfig {
    fn default() -> Self {
        AugmentConfig { crop_area: (0.5, 1.0), crop_aspect: (0.75, 4.0 / 3.0), flip: true }
    }
}

/// Pairs ready for the encoders.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Stored bytes: [batch, size, size, 3], or [batch, kept, patch * patch * 3] where the plan cuts patches.
    pub pixels: Vec<u8>,
    /// Side of the images.
    pub size: usize,
    /// [batch, kept]: which patches of each image `pixels` holds, counted row by row. Empty where the plan
    /// takes whole images.
    pub patches: Vec<u32>,
    /// [batch, context] token ids of one caption each, padded.
    pub tokens: Vec<u32>,
    /// Real tokens of each caption, at most `context`.
    pub lengths: Vec<u32>,
    /// Every caption of each image, as text.
    pub captions: Vec<Vec<String>>,
    /// Class of each image, where the plan asked for one and the sample has it.
    pub labels: Vec<Option<i64>>,
    /// Name of each sample, for messages.
    pub keys: Vec<String>,
    /// Which image each one is, where the source may have several samples of one.
    pub images: Vec<Option<u64>>,
    /// The cursor just past the last sample.
    pub cursor: Cursor,
}

/// What can go wrong with a whole source (a single broken sample is a [`source::Skip`]).
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("{pattern} matches no shard; check the path, or quote the braces if a shell expanded them")]
    NoShards { pattern: String },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Storage(#[from] storage::StorageError),
    #[error("no usable sample in a whole pass over {source_name}: {skipped}")]
    NothingUsable { source_name: String, skipped: String },
    #[error(
        "{source_name}: {broken} of the first {of} samples are broken, more than the share of {limit} that \
         data.limits.broken_share allows: {skipped}. Look at them with `flip data inspect`, or raise the limit"
    )]
    TooManyBroken { source_name: String, broken: u64, of: u64, limit: f64, skipped: String },
    #[error(
        "{source_name}: nothing from {what} for {seconds:.1} s, which is data.storage.stall_limit_s; the storage \
         is stalled. Resume when it answers again"
    )]
    Stalled { source_name: String, what: String, seconds: f64 },
    #[error("{0}")]
    Tokenizer(String),
    #[error("{0}")]
    Invalid(String),
}

impl DataConfig {
    /// Opens a source of the recipe. `seed` is the run's.
    ///
    /// # Errors
    /// The source has nothing to offer, cannot be read, or does not answer in time.
    pub fn open(&self, source: &SourceConfig, seed: u64) -> Result<Arc<dyn source::Source>, DataError> {
        self.open_for(source, seed, CaptionUse::Needed)
    }

    /// The same for a purpose that may not need captions.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_for(
        &self,
        source: &SourceConfig,
        seed: u64,
        captions: CaptionUse,
    ) -> Result<Arc<dyn source::Source>, DataError> {
        let storage = Arc::new(Storage::new(&self.storage));
        let (pulse, config) = (storage.pulse().clone(), source.clone());
        let open = move || open_in(&config, storage, seed, captions);
        storage::patiently(self.storage.patience(), "the source", "opening it", Some(pulse), open)?
    }
}

/// Opens a source with the defaults of everything else. `seed` is the run's.
///
/// # Errors
/// The source has nothing to offer or cannot be read.
pub fn open_source(config: &SourceConfig, seed: u64) -> Result<Arc<dyn source::Source>, DataError> {
    open_in(config, Arc::default(), seed, CaptionUse::Needed)
}

fn open_in(
    config: &SourceConfig,
    storage: Arc<Storage>,
    seed: u64,
    captions: CaptionUse,
) -> Result<Arc<dyn source::Source>, DataError> {
    match config {
        SourceConfig::WebDataset(config) => {
            Ok(Arc::new(source::webdataset::WebDataset::open_in(config, storage)?.captions(captions)))
        }
        SourceConfig::Scenes(config) => Ok(Arc::new(source::scenes::Scenes::new(config, seed)?)),
        SourceConfig::Table(config) => {
            Ok(Arc::new(source::table::Table::open(config, storage)?.captions(captions)))
        }
        SourceConfig::Folder(config) => Ok(Arc::new(source::folder::Folder::open(config, storage)?)),
        SourceConfig::ImageNet(config) => Ok(Arc::new(source::imagenet::ImageNet::open(config, storage)?)),
        SourceConfig::Cifar(config) => Ok(Arc::new(source::cifar::Cifar::open(config, storage)?)),
        SourceConfig::Mix(sources) => {
            let open = |Weighted(config, weight): &Weighted| {
                Ok::<_, DataError>((open_in(config, storage.clone(), seed, captions)?, *weight))
            };
            Ok(Arc::new(source::mix::Mix::new(sources.iter().map(open).collect::<Result<_, _>>()?)?))
        }
        SourceConfig::ClipBenchmark(config) => {
            Ok(Arc::new(source::clip_benchmark::ClipBenchmark::open(config, storage)?.captions(captions)))
        }
        SourceConfig::Karpathy(config) => Ok(Arc::new(source::karpathy::Karpathy::open(config, storage)?)),
    }
}
