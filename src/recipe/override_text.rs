//! An override as somebody wrote it: on the command line, or in a file that varies a recipe.

use std::ops::Range;
use std::sync::Arc;

/// `PATH=VALUE`, and where it stands if that is in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// `PATH=VALUE`.
    pub text: String,
    /// File that the override was read from, if any.
    pub origin: Option<Origin>,
}

/// Bytes of a file other than the recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file as messages name it.
    pub file: Arc<str>,
    /// All of it.
    pub text: Arc<str>,
    /// The bytes that the override was made of. Where they are as many as those of the override, they
    /// correspond one to one; else all of them stand for each.
    pub span: Range<usize>,
}

impl Origin {
    /// The bytes of the file that some bytes of an override of `len` bytes come from.
    pub(super) fn of(&self, part: &Range<usize>, len: usize) -> Range<usize> {
        match self.span.len() == len {
            true => self.span.start + part.start..self.span.start + part.end,
            false => self.span.clone(),
        }
    }
}

impl From<String> for Override {
    /// An argument of the command line.
    fn from(text: String) -> Self {
        Override { text, origin: None }
    }
}
