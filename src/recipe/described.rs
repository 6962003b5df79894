//! Other documents than recipes, read with the same care: RON that a JSON Schema describes, everything that is
//! wrong with it told at once, where it was written.

use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value as Schema;

use super::check;
use super::document::Document;
use super::error::RecipeErrors;
use super::override_text::Origin;
use super::read::{deserialise, spanned, text};
use super::shape::Shape;
use super::syntax::{self, Body, Node, Value};
use super::validate::Violation;

/// A document and the value that it describes.
#[derive(Debug)]
pub struct Described<T> {
    /// The value that was read.
    pub value: T,
    document: Document,
    root: Node,
}

/// Reads the document at `path`. The schema must hold no `$ref`: those of a recipe are another's.
///
/// # Errors
/// All errors at once, as those of a recipe.
pub fn read_described<T: DeserializeOwned>(
    path: &Path,
    schema: &'static Schema,
) -> Result<Described<T>, RecipeErrors> {
    check_described(&path.display().to_string(), &text(path)?, schema)
}

/// The same of a text; `name` stands for the file in messages.
///
/// # Errors
/// As [`read_described`].
pub fn check_described<T: DeserializeOwned>(
    name: &str,
    text: &str,
    schema: &'static Schema,
) -> Result<Described<T>, RecipeErrors> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let document = Document::new(name, text, &[]);
    let (root, mut problems) = syntax::parse(document.text());
    if let Some(root) = &root {
        problems.extend(check::check(document.text(), root, &Shape::of(schema)));
    }
    let read = match root {
        Some(root) if problems.is_empty() => deserialise(document.text()).map(|value| (value, root)),
        _ => Err(problems),
    };
    match read {
        Ok((value, root)) => Ok(Described { value, document, root }),
        Err(problems) => Err(RecipeErrors::new(document, problems)),
    }
}

impl<T> Described<T> {
    /// The document with what is wrong with it besides its form.
    pub fn refuse(self, violations: Vec<Violation>) -> RecipeErrors {
        let problems = spanned(&self.root, violations);
        RecipeErrors::new(self.document, problems)
    }

    /// Place of the string at `path` (as `axes[0].values[1]`), without its quotes.
    pub fn origin(&self, path: &str) -> Option<Origin> {
        let node = self.root.exactly(&path.parse().ok()?)?;
        let text = self.document.text();
        let quoted = matches!(node.value, Value::String) && text[node.span.clone()].starts_with('"');
        let span = if quoted { node.span.start + 1..node.span.end - 1 } else { node.span.clone() };
        Some(Origin { file: self.document.name().into(), text: Arc::from(text), span })
    }
}

/// True if a text is a struct of this name, or without one and with a field of this name.
pub fn looks_like(text: &str, name: &str, field: &str) -> bool {
    let (Some(root), _) = syntax::parse(text.strip_prefix('\u{feff}').unwrap_or(text)) else { return false };
    let Value::Compound { name: written, body } = root.value else { return false };
    match (written, body) {
        (Some(written), _) => written.text == name,
        (None, Body::Fields { fields, .. }) => fields.iter().any(|other| other.name.text == field),
        (None, _) => false,
    }
}
