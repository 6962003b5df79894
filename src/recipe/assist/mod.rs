//! What an editor shows of a recipe while it is written: what may stand at a place, and what a word means. The text may be
//! broken anywhere: only what stands before the place is read, bracket by bracket.

mod complete;
mod context;
mod describe;
mod hover;

use std::ops::Range;

pub use complete::complete;
pub use hover::hover;

/// What a proposal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A field of a struct.
    Field,
    /// A variant of an enum.
    Variant,
    /// Another value.
    Value,
}

/// Something that may stand at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// What is shown, and what a beginning is held against.
    pub label: String,
    /// What it is.
    pub kind: Kind,
    /// What is inserted, with the tab stops of the language server protocol: `Random(${1:0.5})`.
    pub snippet: String,
    /// Expected value and default, in a few words.
    pub detail: String,
    /// Documentation, Markdown.
    pub documentation: String,
    /// True of a field that has to be written.
    pub required: bool,
}

/// Proposals and the bytes that they replace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposals {
    /// The word that was begun, empty where there is none.
    pub replaces: Range<usize>,
    /// In the order of the schema, required fields first.
    pub proposals: Vec<Proposal>,
}

/// The meaning of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hover {
    /// Its bytes.
    pub span: Range<usize>,
    /// Markdown.
    pub text: String,
}
