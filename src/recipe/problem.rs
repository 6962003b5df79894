//! One thing wrong with a recipe.

use std::ops::Range;

use super::field_path::FieldPath;

/// An error at some bytes of a document.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The field, where one is concerned.
    pub path: FieldPath,
    /// Bytes of the document's text; `None`: the file as a whole.
    pub span: Option<Range<usize>>,
    /// The same for an error in a `--set` argument that was not applied: its index, and bytes of it.
    pub argument: Option<(usize, Range<usize>)>,
    /// Expected and found.
    pub message: String,
    /// Advice.
    pub help: Option<String>,
    /// Other bytes that explain it, each with a label.
    pub related: Vec<(Range<usize>, String)>,
}

impl Problem {
    pub fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Problem { span: Some(span), ..Problem::general(message) }
    }

    /// A problem of the file as a whole.
    pub fn general(message: impl Into<String>) -> Self {
        Problem {
            path: FieldPath::default(),
            span: None,
            argument: None,
            message: message.into(),
            help: None,
            related: Vec::new(),
        }
    }

    /// A problem inside a `--set` argument.
    pub fn in_argument(index: usize, span: Range<usize>, message: impl Into<String>) -> Self {
        Problem { argument: Some((index, span)), ..Problem::general(message) }
    }

    pub fn at(mut self, path: &FieldPath) -> Self {
        self.path = path.clone();
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub fn help_if(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }
}
