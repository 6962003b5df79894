//! A checkpoint as its configuration describes it.

use super::layout::Original;
use super::slot::Slot;
use crate::data::text::Preparation;
use crate::model::ModelConfig;

/// The place of a parameter in a model of this architecture.
pub(super) type PlaceOf = Box<dyn Fn(Slot, &ModelConfig) -> Original>;

/// A model as a format describes it.
pub(super) struct Described {
    pub config: ModelConfig,
    pub built_in_tokenizer: bool,
    pub notes: Vec<String>,
    /// Place of each parameter.
    pub original: PlaceOf,
    /// How texts are prepared besides the tokenizer's own files.
    pub text: Preparation,
}
