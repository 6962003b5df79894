//! The sources that a recipe can name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::source::cifar::CifarConfig;
use crate::data::source::clip_benchmark::ClipBenchmarkConfig;
use crate::data::source::folder::FolderConfig;
use crate::data::source::imagenet::ImageNetConfig;
use crate::data::source::karpathy::KarpathyConfig;
use crate::data::source::scenes::ScenesConfig;
use crate::data::source::shard_index::ShardIndex;
use crate::data::source::table::TableConfig;
use crate::data::source::webdataset::WebDatasetConfig;

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

impl SourceConfig {
    /// The index that the recipe names, of a mix those of all its sources; none where one is not named or cannot be read.
    pub fn index(&self) -> Option<ShardIndex> {
        match self {
            SourceConfig::WebDataset(config) => ShardIndex::read(config.index.as_deref()?).ok(),
            SourceConfig::Mix(sources) => {
                let indexes = sources.iter().map(|Weighted(source, _)| source.index());
                let indexes: Vec<ShardIndex> = indexes.collect::<Option<_>>()?;
                Some(ShardIndex::new(indexes.iter().flat_map(|index| index.shards().to_vec()).collect()))
            }
            _ => None,
        }
    }
}

/// A source of a mix and its weight: `(WebDataset(shards: "..."), 3)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Weighted(
    /// Anything but another mix.
    pub SourceConfig,
    /// Share of the samples, relative to the other weights.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub f64,
);
