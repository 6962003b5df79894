//! A model as evaluators see it.

use super::error::{BoxError, EvaluatorError};
use crate::data::{Batch, DataError};

/// The next batch of the data that an evaluation is about; `None` at the end.
pub type Batches<'a> = dyn FnMut() -> Result<Option<Batch>, DataError> + 'a;

/// Embeds the images of a batch.
pub type EmbedImages<'a> = dyn FnMut(&Batch) -> Result<Vec<f32>, BoxError> + 'a;

/// Embeds texts.
pub type EmbedTexts<'a> = dyn FnMut(&[String]) -> Result<Vec<f32>, BoxError> + 'a;

/// Embeds images and texts. Embeddings are of unit length, as the model compares them.
pub struct Embedder<'a> {
    /// The images of a batch -> [batch, dim].
    pub images: &'a mut EmbedImages<'a>,
    /// Texts, however many -> [texts, dim].
    pub texts: &'a mut EmbedTexts<'a>,
    /// Width of the embedding space.
    pub dim: usize,
}

/// Texts embedded at a time: enough to fill a batch, few enough to bound memory.
pub(super) const TEXTS_AT_ONCE: usize = 256;

impl Embedder<'_> {
    /// [batch, dim], checked.
    pub(super) fn embed_images(&mut self, batch: &Batch) -> Result<Vec<f32>, EvaluatorError> {
        let what = "images";
        let rows = (self.images)(batch).map_err(|source| EvaluatorError::Embed { what, source })?;
        check(&rows, what, self.dim, &batch.keys)?;
        Ok(rows)
    }

    /// [texts, dim], checked.
    pub(super) fn embed_texts(&mut self, texts: &[String]) -> Result<Vec<f32>, EvaluatorError> {
        let what = "texts";
        let mut rows = Vec::with_capacity(texts.len() * self.dim);
        for texts in texts.chunks(TEXTS_AT_ONCE) {
            let some = (self.texts)(texts).map_err(|source| EvaluatorError::Embed { what, source })?;
            check(&some, what, self.dim, texts)?;
            rows.extend(some);
        }
        Ok(rows)
    }
}

/// Refuses embeddings that would make metrics silently wrong: comparisons with NaN are all false, which
/// would pass for the best rank.
fn check(rows: &[f32], what: &'static str, dim: usize, names: &[String]) -> Result<(), EvaluatorError> {
    if rows.len() != names.len() * dim {
        return Err(EvaluatorError::Shape { what, rows: names.len(), dim, got: rows.len() });
    }
    match rows.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => Err(EvaluatorError::NotFinite { what, which: names[at / dim].clone() }),
    }
}
