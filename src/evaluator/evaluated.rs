//! Results of evaluators.

use super::examples::Thumbnail;
use crate::record::{Evaluation, Example};

/// A measured result, and images for a person to look at.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// The result, as a row of `eval.json` has it.
    pub evaluation: Evaluation,
    /// Some images with what was found for them; none where there is nothing to show.
    pub examples: Vec<Example<Thumbnail>>,
}

impl From<Evaluation> for Evaluated {
    fn from(evaluation: Evaluation) -> Self {
        Evaluated { evaluation, examples: Vec::new() }
    }
}
