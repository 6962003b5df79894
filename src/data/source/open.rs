//! From the name of a source in a recipe to the source.

use std::sync::Arc;

use crate::data::source::cifar::Cifar;
use crate::data::source::clip_benchmark::ClipBenchmark;
use crate::data::source::folder::Folder;
use crate::data::source::imagenet::ImageNet;
use crate::data::source::karpathy::Karpathy;
use crate::data::source::mix::Mix;
use crate::data::source::scenes::Scenes;
use crate::data::source::table::Table;
use crate::data::source::webdataset::WebDataset;
use crate::data::source::{Source, SourceConfig, Weighted};
use crate::data::storage::Storage;
use crate::data::text::CaptionUse;
use crate::data::DataError;

/// Opens a source with the defaults of everything else. `seed` is the run's.
///
/// # Errors
/// The source has nothing to offer or cannot be read.
///
/// ```
/// use flip::data::source::Order;
/// use flip::data::{open_source, Cursor, ScenesConfig, ScenesLevel, ScenesSplit, SourceConfig};
///
/// let config = ScenesConfig { size: 32, split: ScenesSplit::Train, level: ScenesLevel::Plain, samples: None };
/// let source = open_source(&SourceConfig::Scenes(config), 0)?;
/// let ticket = source.ticket(Cursor::default(), Order::Stored)?.expect("it has no end");
/// let sample = source.load(&ticket).expect("its samples are never broken");
/// assert!(!sample.captions.is_empty());
/// # Ok::<(), flip::data::DataError>(())
/// ```
pub fn open_source(config: &SourceConfig, seed: u64) -> Result<Arc<dyn Source>, DataError> {
    open_in(config, Arc::default(), seed, CaptionUse::Needed)
}

pub(crate) fn open_in(
    config: &SourceConfig,
    storage: Arc<Storage>,
    seed: u64,
    captions: CaptionUse,
) -> Result<Arc<dyn Source>, DataError> {
    match config {
        SourceConfig::WebDataset(config) => {
            Ok(Arc::new(WebDataset::open_in(config, storage)?.captions(captions)))
        }
        SourceConfig::Scenes(config) => Ok(Arc::new(Scenes::new(config, seed)?)),
        SourceConfig::Table(config) => Ok(Arc::new(Table::open(config, storage)?.captions(captions))),
        SourceConfig::Folder(config) => Ok(Arc::new(Folder::open(config, storage)?)),
        SourceConfig::ImageNet(config) => Ok(Arc::new(ImageNet::open(config, storage)?)),
        SourceConfig::Cifar(config) => Ok(Arc::new(Cifar::open(config, storage)?)),
        SourceConfig::Mix(sources) => {
            let open = |Weighted(config, weight): &Weighted| {
                Ok::<_, DataError>((open_in(config, storage.clone(), seed, captions)?, *weight))
            };
            Ok(Arc::new(Mix::new(sources.iter().map(open).collect::<Result<_, _>>()?)?))
        }
        SourceConfig::ClipBenchmark(config) => {
            Ok(Arc::new(ClipBenchmark::open(config, storage)?.captions(captions)))
        }
        SourceConfig::Karpathy(config) => Ok(Arc::new(Karpathy::open(config, storage)?)),
    }
}
