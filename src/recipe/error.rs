//! Everything wrong with a recipe, each error with its place and what would be right.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use annotate_snippets::{normalize_untrusted_str, AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

use super::document::{line_column, Document, Place, Source};
use super::problem::Problem;

/// All errors of a recipe, in the order of the text.
#[derive(Debug, Clone)]
pub struct RecipeErrors {
    document: Box<Document>,
    problems: Vec<Problem>,
}

/// One error, as facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecipeError {
    /// The recipe's file.
    pub file: String,
    /// From 1; none for an error of the file as a whole or inside a `--set`.
    pub line: Option<usize>,
    /// In characters, from 1.
    pub column: Option<usize>,
    /// The `--set` argument at fault.
    pub set: Option<String>,
    /// Path of the field, for example `stages[0].image_mask`; empty for the recipe as a whole.
    pub field: String,
    /// Expected and found.
    pub message: String,
    /// Advice.
    pub help: Option<String>,
}

impl RecipeErrors {
    pub(super) fn new(document: Document, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| {
            let place = place(&document, problem);
            (place.as_ref().map(|place| place.source), place.map_or(0, |place| place.span.start))
        });
        RecipeErrors { document: Box::new(document), problems }
    }

    /// The errors as facts, for machines.
    pub fn errors(&self) -> Vec<RecipeError> {
        self.problems.iter().map(|problem| self.facts(problem)).collect()
    }

    /// The errors with their bytes in the file, behind a byte-order mark; none of an error of the file as a whole.
    pub fn located(&self) -> Vec<(Option<Range<usize>>, RecipeError)> {
        let span = |problem: &Problem| {
            let place = place(&self.document, problem).filter(|place| place.source == Source::File)?;
            Some(first_line(self.document.source(Source::File), &place.span))
        };
        self.problems.iter().map(|problem| (span(problem), self.facts(problem))).collect()
    }

    /// The errors with the lines they concern, as rustc shows its own; `styled` adds terminal colours.
    pub fn render(&self, styled: bool) -> String {
        let renderer = if styled { Renderer::styled() } else { Renderer::plain() };
        let rendered: Vec<_> =
            self.problems.iter().map(|problem| self.render_one(problem, &renderer)).collect();
        rendered.join("\n\n")
    }

    fn facts(&self, problem: &Problem) -> RecipeError {
        let place = place(&self.document, problem);
        let (mut file, mut position, mut set) = (self.document.name(), None, None);
        if let Some(place) = place {
            let text = self.document.source(place.source);
            match (place.source, self.document.origin(place.source)) {
                (Source::File, _) => position = Some(line_column(text, place.span.start)),
                (Source::Argument(_), Some(origin)) => {
                    file = &*origin.file;
                    let span = origin.of(&place.span, text.len());
                    position = Some(line_column(&origin.text, span.start));
                }
                (Source::Argument(_), None) => set = Some(text.to_owned()),
            }
        }
        RecipeError {
            file: file.to_owned(),
            line: position.map(|(line, _)| line),
            column: position.map(|(_, column)| column),
            set,
            field: problem.path.to_string(),
            message: problem.message.clone(),
            help: problem.help.clone(),
        }
    }

    fn render_one(&self, problem: &Problem, renderer: &Renderer) -> String {
        let headline = normalize_untrusted_str(&self.facts(problem).to_string());
        let mut group = Group::with_title(Level::ERROR.no_name().primary_title(headline.as_str()));
        if let Some(place) = place(&self.document, problem).filter(|place| self.shown(place)) {
            let shown = self.written(&place);
            let mut snippet = Snippet::source(shown.text)
                .fold(true)
                .line_numbering(shown.numbered)
                .annotation(AnnotationKind::Primary.span(shown.underlined));
            for (span, label) in &problem.related {
                let other = self.document.place(span);
                if other.source == place.source {
                    let label = normalize_untrusted_str(label);
                    let underlined = self.written(&other).underlined;
                    snippet = snippet.annotation(AnnotationKind::Context.span(underlined).label(label));
                }
            }
            group = group.element(snippet);
        }
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(normalize_untrusted_str(help)));
        }
        renderer.render(&[group])
    }

    /// A place as a person sees it.
    fn written(&self, place: &Place) -> Written<'_> {
        let text = self.document.source(place.source);
        match (place.source, self.document.origin(place.source)) {
            (Source::File, _) => {
                Written { text: text.into(), underlined: first_line(text, &place.span), numbered: true }
            }
            (Source::Argument(_), Some(origin)) => Written {
                text: (&*origin.text).into(),
                underlined: first_line(&origin.text, &origin.of(&place.span, text.len())),
                numbered: true,
            },
            (Source::Argument(_), None) => {
                let span = first_line(text, &place.span);
                Written {
                    text: format!("{SET}{text}").into(),
                    underlined: span.start + SET.len()..span.end + SET.len(),
                    numbered: false,
                }
            }
        }
    }

    fn shown(&self, place: &Place) -> bool {
        !self.document.source(place.source).is_empty()
    }
}

const SET: &str = "--set ";

/// Excerpt that a message shows of a place.
struct Written<'a> {
    text: Cow<'a, str>,
    /// Bytes of `text`.
    underlined: Range<usize>,
    /// True if lines have numbers.
    numbered: bool,
}

/// The first line of a span, so that a whole stage is not drawn out.
fn first_line(text: &str, span: &Range<usize>) -> Range<usize> {
    let line = text[span.start..].find('\n').map_or(text.len(), |newline| span.start + newline);
    span.start..span.end.min(line).max(span.start)
}

fn place(document: &Document, problem: &Problem) -> Option<Place> {
    match (&problem.argument, &problem.span) {
        (Some((index, span)), _) => Some(Place { source: Source::Argument(*index), span: span.clone() }),
        (None, Some(span)) => Some(document.place(span)),
        (None, None) => None,
    }
}

/// `recipes/x.ron:7:33: stages[0].image_mask: expected 0 <= ratio < 1, got 1.5`
impl fmt::Display for RecipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.set, self.line, self.column) {
            (Some(set), _, _) => write!(f, "--set {set}: ")?,
            (None, Some(line), Some(column)) => write!(f, "{}:{line}:{column}: ", self.file)?,
            _ => write!(f, "{}: ", self.file)?,
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for RecipeErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for RecipeErrors {}
