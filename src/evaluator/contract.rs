//! The contract of an evaluator: what it is given, and what it says of itself.

use super::embedder::{Batches, Embedder};
use super::error::EvaluatorError;
use super::evaluated::Evaluated;
use crate::data::load::LabelFrom;
use crate::data::SourceConfig;
use crate::mask::ImageMask;

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
