//! The `data` block of a recipe.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::decode::AugmentConfig;
use crate::data::load::LimitsConfig;
use crate::data::source::filter::FilterConfig;
use crate::data::source::open::open_in;
use crate::data::source::{Source, SourceConfig};
use crate::data::storage::{with_stall_timeout, Storage, StorageConfig};
use crate::data::text::CaptionUse;
use crate::data::DataError;

/// Sources of pairs, and their preparation.
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
    pub filter: FilterConfig,
    /// Limits on the size of samples and on the share of broken ones.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// Access to files: cache, attempts, stall timeout.
    #[serde(default)]
    pub storage: StorageConfig,
    /// Lanes that an epoch of the training data is cut into, each walked by one rank; every batch has as many samples of each.
    /// They divide every batch, and the parts of a batch (`ranks.parts`) divide them. More lanes mix more shards in a batch,
    /// and keep more of them open. The order of the samples depends on this and on no number of ranks. Default: one a part.
    #[serde(default)]
    #[schemars(range(min = 1, max = 65_536))]
    pub lanes: Option<std::num::NonZeroUsize>,
    /// Threads that decode and tokenize, at most 1,024. Default: one a core, at least one.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1_024))]
    pub workers: Option<std::num::NonZeroUsize>,
}

impl DataConfig {
    /// Opens a source of the recipe. `seed` is the run's.
    ///
    /// # Errors
    /// The source has nothing to offer, cannot be read, or does not answer in time.
    pub fn open(&self, source: &SourceConfig, seed: u64) -> Result<Arc<dyn Source>, DataError> {
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
    ) -> Result<Arc<dyn Source>, DataError> {
        let storage = Arc::new(Storage::new(&self.storage));
        let (progress, config) = (storage.progress().clone(), source.clone());
        let open = move || open_in(&config, storage, seed, captions);
        with_stall_timeout(self.storage.stall_timeout(), "the source", "opening it", Some(progress), open)?
    }
}
