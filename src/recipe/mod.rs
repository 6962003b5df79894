//! One RON document that says everything about a run. The configuration of a room lives in that room;
//! this composes them.
//!
//! The way of a text ([`read`]): a document with its `--set` overrides spliced in, a tree with places,
//! held against the shapes that the JSON Schema gives, deserialised by ron, then held against the invariants
//! that span modules. What is wrong is told all at once, each error where it was written.

#![warn(missing_docs)]

mod alternatives;
pub mod assist;
mod change;
mod check;
pub mod cluster;
mod described;
mod document;
mod error;
mod field_path;
pub mod files;
pub mod forecast;
mod initial;
pub mod memory;
mod override_text;
mod overrides;
mod problem;
mod read;
mod repair;
mod scan;
mod schema;
mod shape;
mod suggest;
mod syntax;
pub mod validate;
mod write;

pub use crate::model::{Compute, Fusion, Precision, Recompute};
pub use alternatives::alternatives;
pub use change::{changes, Change, Effect};
pub use described::{check_described, looks_like, read_described, Described};
pub use error::{RecipeError, RecipeErrors};
pub use field_path::{FieldPath, Segment};
pub use initial::{model_of, ModelUnknown};
pub use override_text::{Origin, Override};
pub(crate) use read::options;
pub use read::{argument_error, read, read_open, read_overridden, read_text, text};
pub use schema::recipe_json;
pub use shape::schema as recipe_schema;
pub use suggest::nearest;
pub use write::{difference, write, written};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{CheckpointConfig, InitConfig};
use crate::data::DataConfig;
use crate::device::DeviceConfig;
use crate::log::MetricsConfig;
use crate::model::ModelConfig;
use crate::ranks::RanksConfig;
use crate::train::Stage;

/// A run: model, data, and the stages in sequence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Names the run folder: `runs/<name>` unless `--out` says otherwise.
    pub name: String,
    /// Every random choice derives from it.
    #[serde(default)]
    pub seed: u64,
    /// Device to compute on.
    #[serde(default)]
    pub device: DeviceConfig,
    /// Numbers inside the encoders; masters, optimizer and loss are always 32-bit.
    #[serde(default)]
    pub precision: Precision,
    /// Implementation of the encoders.
    #[serde(default)]
    pub compute: Compute,
    /// Gradient checkpointing: the fused encoders keep what the backward pass needs, or compute it once more.
    #[serde(default)]
    pub recompute: Recompute,
    /// CPU threads that compute, at most 1,024. They change the speed and nothing else. Default: one a core.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1_024))]
    pub threads: Option<std::num::NonZeroUsize>,
    /// Weights to start from. Default: random ones, as the seed says.
    #[serde(default)]
    pub init: Option<InitConfig>,
    /// The architecture. Where `init` is given it may be left out: then it is that of the checkpoint, its
    /// tokenizer and the normalisation of its pixels included.
    pub model: ModelConfig,
    /// Sources of pairs.
    pub data: DataConfig,
    /// Run in this order.
    pub stages: Vec<Stage>,
    /// Snapshots.
    #[serde(default)]
    pub checkpoints: CheckpointConfig,
    /// Lines of `metrics.jsonl`.
    #[serde(default)]
    pub metrics: MetricsConfig,
    /// Runs of several processes.
    #[serde(default)]
    pub ranks: RanksConfig,
}

impl Recipe {
    /// Options of the fused encoders.
    pub fn fusion(&self) -> Fusion {
        Fusion { precision: self.precision, recompute: self.recompute, threads: self.threads }
    }
}
