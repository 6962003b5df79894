//! Input of the encoders: only kept patches and kept tokens.

use super::error::ModelError;
use crate::mask::Kept;

/// Values of patches on their way into the image encoder.
#[derive(Debug, Clone, PartialEq)]
pub enum PatchValues {
    /// Stored bytes, 0..=255; the encoder normalises them with its `pixels`.
    Bytes(Vec<u8>),
    /// Already normalised.
    Floats(Vec<f32>),
}

impl PatchValues {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            PatchValues::Bytes(values) => values.len(),
            PatchValues::Floats(values) => values.len(),
        }
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Input of the image encoder: only the kept patches, each flattened as (row, column, channel).
#[derive(Debug, Clone, PartialEq)]
pub struct ImageInput {
    /// [batch, kept, patch * patch * 3].
    pub patches: PatchValues,
    /// Positions of the patches in the image, row-major over the grid.
    pub kept: Kept,
    /// Patches along a side of the image the stage trains at. Positions follow it.
    pub grid: usize,
}

/// Input of the text encoder: only the kept tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextInput {
    /// [batch, kept] token ids.
    pub tokens: Vec<u32>,
    /// Their positions in the caption.
    pub kept: Kept,
}

impl ImageInput {
    /// Checks sizes and patch positions. `patch` is the side of a patch in pixels.
    pub(crate) fn check(&self, patch: usize) -> Result<(), ModelError> {
        let wrong = |problem| Err(ModelError::Input { encoder: "image", problem });
        if self.kept.of != self.grid * self.grid {
            return wrong(format!(
                "expected patches of a grid of {0} x {0}, got patches of {1}",
                self.grid, self.kept.of
            ));
        }
        if let Some(problem) = fault(&self.kept, "patch") {
            return wrong(problem);
        }
        let expected = self.kept.ids.len() * patch * patch * 3;
        if self.patches.len() != expected {
            return wrong(format!(
                "expected {} kept patches of {patch} x {patch} x 3 values, {expected} in all, got {}",
                self.kept.ids.len(),
                self.patches.len()
            ));
        }
        Ok(())
    }
}

impl TextInput {
    /// Checks sizes, positions and ids.
    pub(crate) fn check(&self, context: usize, vocabulary: usize) -> Result<(), ModelError> {
        let wrong = |problem| Err(ModelError::Input { encoder: "text", problem });
        if self.kept.of > context {
            return wrong(format!("expected at most {context} tokens (text.context), got {}", self.kept.of));
        }
        if let Some(problem) = fault(&self.kept, "token") {
            return wrong(problem);
        }
        if self.tokens.len() != self.kept.ids.len() {
            return wrong(format!("expected {} tokens, got {}", self.kept.ids.len(), self.tokens.len()));
        }
        if let Some(i) = self.tokens.iter().position(|&id| id as usize >= vocabulary) {
            return wrong(format!(
                "row {}: token id {} is outside the vocabulary of {vocabulary} (text.vocab_size)",
                i / self.kept.kept,
                self.tokens[i]
            ));
        }
        Ok(())
    }
}

fn fault(kept: &Kept, what: &str) -> Option<String> {
    if kept.batch == 0 || kept.kept == 0 {
        return Some(format!(
            "expected at least one row and one kept {what}, got {} x {}",
            kept.batch, kept.kept
        ));
    }
    if kept.ids.len() != kept.batch * kept.kept {
        return Some(format!(
            "expected {} x {} positions of kept {what}s, got {}",
            kept.batch,
            kept.kept,
            kept.ids.len()
        ));
    }
    let i = kept.ids.iter().position(|&id| id as usize >= kept.of)?;
    Some(format!("row {}: {what} position {} is outside 0..{}", i / kept.kept, kept.ids[i], kept.of))
}
