//! Measurements of a model on pairs it was not trained on.
//!
//! An evaluator sees closures over host vectors, never the model, so it measures whatever can embed
//! images and texts. A new one is a file with its configuration and an [`Evaluator`], and a line in
//! [`EvaluatorConfig`].
//!
//! | evaluator | asks |
//! |---|---|
//! | [`zero_shot`] | which class name is nearest to an image |
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

pub mod classes;
mod embedder;
mod error;
mod evaluated;
pub mod examples;
pub mod few_shot;
pub mod held_out_loss;
mod labelled;
mod lbfgs;
pub mod linear_probe;
mod logistic;
pub mod nearest_neighbours;
mod products;
pub mod retrieval;
mod similarity;
mod tally;
pub mod zero_shot;

pub use classes::{Classes, ClassesConfig};
pub use embedder::{Batches, BoxError, EmbedImages, EmbedTexts, Embedder};
pub use error::EvaluatorError;
pub use evaluated::Evaluated;
pub use few_shot::FewShotConfig;
pub use held_out_loss::HeldOutLossConfig;
pub use labelled::LabelsConfig;
pub use linear_probe::{LinearProbeConfig, Penalty};
pub use nearest_neighbours::NearestNeighboursConfig;
pub use retrieval::{RetrievalCaptions, RetrievalConfig};
pub use zero_shot::ZeroShotConfig;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::load::LabelFrom;
use crate::data::SourceConfig;
use crate::mask::ImageMask;

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

/// Input of an evaluation besides the model.
pub struct Material<'a> {
    /// The images it is about.
    pub test: &'a mut Batches<'a>,
    /// Labels as the source of `test` knows them.
    pub known: Known<'a>,
    /// The images it learns from: what [`Evaluator::train`] names.
    pub train: Option<&'a mut Batches<'a>>,
    /// Factor of cosine similarities: the exponential of the clipped parameter.
    pub logit_scale: f64,
    /// Every random choice derives from it.
    pub seed: u64,
    /// True once an evaluation is to give up: long computations ask now and then. Their result is of no use then.
    pub stop: &'a dyn Fn() -> bool,
}

/// Labels as a source knows them; empty where it knows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known<'a> {
    /// Names of the classes that labels count.
    pub classes: &'a [String],
    /// Prompt templates, with `{}` where the class name goes.
    pub templates: &'a [String],
}

/// One kind of measurement, configured.
pub trait Evaluator {
    /// As it is spelled in `eval.json`.
    fn kind(&self) -> &'static str;

    /// Name of the result.
    fn name(&self) -> &str;

    /// The data it is about, where that is not `data.validation`.
    fn data(&self) -> Option<&SourceConfig>;

    /// The data it learns from, for those that learn.
    fn train(&self) -> Option<&SourceConfig> {
        None
    }

    /// Pairs of a batch, where it matters.
    fn batch(&self) -> Option<usize> {
        None
    }

    /// True if it looks at captions; images without one take part where it does not.
    fn captions(&self) -> bool {
        false
    }

    /// Patches of the images that the image encoder does not get to see.
    fn image_mask(&self) -> &ImageMask {
        &ImageMask::Keep
    }

    /// Place of an image's class.
    fn label(&self, _known: Known<'_>) -> Result<LabelFrom, EvaluatorError> {
        Ok(LabelFrom::None)
    }

    /// Measures.
    fn evaluate(
        &self,
        material: Material<'_>,
        embedder: &mut Embedder<'_>,
    ) -> Result<Evaluated, EvaluatorError>;
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
