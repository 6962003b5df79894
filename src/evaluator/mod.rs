//! Measurements of a model on pairs it was not trained on.
//!
//! An evaluator sees closures over host vectors, never the model, so it measures whatever can embed
//! images and texts. A new one is a file with its configuration and an [`Evaluator`], and a line in
//! [`EvaluatorConfig`].
//!
//! | evaluator | asks |
//! |---|---|
//! | [`zero_shot`] | which class name is nearest to an image; of images of several classes, how early those of a class come |
//! | [`retrieval`] | how early an image's caption comes among all, and a caption's image |
//! | [`nearest_neighbours`] | which class the nearest labelled images have |
//! | [`linear_probe`] | what a linear classifier on frozen embeddings learns from all labels |
//! | [`few_shot`] | what it learns from a few labels of each class |
//! | [`held_out_loss`] | the training loss, on pairs that training never sees |
//!
//! ```
//! use flip::evaluator::{Classes, ClassesConfig, Known};
//!
//! let config = ClassesConfig::Names {
//!     names: vec!["cat".into(), "dog".into()],
//!     templates: vec!["a photo of a {}".into()],
//!     label_field: "label".into(),
//! };
//! let classes = Classes::read(&config, Known::default())?;
//! assert_eq!(classes.prompts(1).collect::<Vec<_>>(), ["a photo of a dog"]);
//! # Ok::<(), flip::evaluator::EvaluatorError>(())
//! ```

mod average_precision;
pub mod classes;
mod contract;
pub mod data_sets;
pub mod embedded_set;
mod embedder;
pub mod embedding_cache;
mod error;
mod evaluated;
pub mod examples;
pub mod few_shot;
pub mod held_out_loss;
mod label_sets;
mod labelled;
mod lbfgs;
pub mod linear_probe;
mod logistic;
pub mod nearest_neighbours;
mod products;
pub mod prompts;
pub(crate) mod ranking;
pub mod retrieval;
mod roc_auc;
mod similarity;
mod tally;
pub mod zero_shot;

pub use classes::{Classes, ClassesConfig};
pub use contract::{Evaluator, Known, Material};
pub use data_sets::DataSet;
pub use embedded_set::{EmbeddedSample, EmbeddedSet};
pub use embedder::{Batches, EmbedImages, EmbedTexts, Embedder};
pub use embedding_cache::EmbeddingCache;
pub use error::{BoxError, EvaluatorError};
pub use evaluated::Evaluated;
pub use few_shot::FewShotConfig;
pub use held_out_loss::HeldOutLossConfig;
pub use labelled::LabelsConfig;
pub use linear_probe::{LinearProbeConfig, Penalty};
pub use nearest_neighbours::NearestNeighboursConfig;
pub use prompts::Prompts;
pub use retrieval::{RetrievalCaptions, RetrievalConfig};
pub use zero_shot::ZeroShotConfig;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::SourceConfig;

/// One evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum EvaluatorConfig {
    /// Classification by the text of the class names.
    ZeroShot(ZeroShotConfig),
    /// Finding the caption of an image and the image of a caption.
    Retrieval(RetrievalConfig),
    /// Classification by the labels of the nearest images.
    NearestNeighbours(NearestNeighboursConfig),
    /// A linear classifier on frozen embeddings.
    LinearProbe(LinearProbeConfig),
    /// The same from a few images of each class.
    FewShot(FewShotConfig),
    /// The contrastive loss on pairs that training never sees.
    HeldOutLoss(HeldOutLossConfig),
}

impl EvaluatorConfig {
    /// The evaluator of this configuration.
    pub fn evaluator(&self) -> &dyn Evaluator {
        match self {
            EvaluatorConfig::ZeroShot(config) => config,
            EvaluatorConfig::Retrieval(config) => config,
            EvaluatorConfig::NearestNeighbours(config) => config,
            EvaluatorConfig::LinearProbe(config) => config,
            EvaluatorConfig::FewShot(config) => config,
            EvaluatorConfig::HeldOutLoss(config) => config,
        }
    }

    /// The classes and the sources that it names itself, the latter with the fields that name them.
    pub fn inputs_mut(&mut self) -> (Option<&mut ClassesConfig>, Vec<(&'static str, &mut SourceConfig)>) {
        let (classes, data, train) = match self {
            EvaluatorConfig::ZeroShot(config) => (Some(&mut config.classes), &mut config.data, None),
            EvaluatorConfig::Retrieval(config) => (None, &mut config.data, None),
            EvaluatorConfig::NearestNeighbours(config) => (None, &mut config.data, Some(&mut config.train)),
            EvaluatorConfig::LinearProbe(config) => (None, &mut config.data, Some(&mut config.train)),
            EvaluatorConfig::FewShot(config) => (None, &mut config.data, Some(&mut config.train)),
            EvaluatorConfig::HeldOutLoss(config) => (None, &mut config.data, None),
        };
        let train = train.map(|train| ("train", train));
        (classes, train.into_iter().chain(data.as_mut().map(|data| ("data", data))).collect())
    }
}
