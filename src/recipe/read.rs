//! From the text of a recipe to a [`Recipe`], or to everything that is wrong with it.
//!
//! The text is RON with two conveniences switched on: an optional value is written without `Some`, and the
//! fields of a variant's struct stand directly in its parentheses: `Pretrain(length: Steps(100), ...)`.

use std::io::Read;
use std::path::Path;

use ron::extensions::Extensions;
use ron::Options;
use serde::de::DeserializeOwned;

use super::document::{byte_at, Document};
use super::error::RecipeErrors;
use super::override_text::Override;
use super::problem::Problem;
use super::syntax::{self, Node};
use super::validate::Violation;
use super::{check, files, initial, overrides, shape, validate, Recipe};

/// Bytes of the largest file that is taken for a recipe.
const LARGEST: u64 = 1 << 20;

/// Reads and checks the recipe at `path` with `--set` arguments (`PATH=VALUE`) applied.
///
/// A relative path inside the recipe (tokenizer, classes, shards, folders) is used as written if it exists
/// relative to the working directory, else relative to the recipe's folder if it exists there. A recipe with `init`
/// and without `model` gets the model of the checkpoint.
///
/// # Errors
/// All errors at once, each with line, column, field, expectation and, where there is one, a suggestion.
pub fn read(path: &Path, sets: &[String]) -> Result<Recipe, RecipeErrors> {
    read_overridden(path, &arguments(sets))
}

/// As [`read`], with overrides that may have been written in a file.
///
/// # Errors
/// As [`read`].
pub fn read_overridden(path: &Path, sets: &[Override]) -> Result<Recipe, RecipeErrors> {
    read_of(path, &text(path)?, sets)
}

/// As [`read`], with the text that an editor has of the file at `path`, which need not be saved.
///
/// # Errors
/// As [`read`].
pub fn read_open(path: &Path, text: &str) -> Result<Recipe, RecipeErrors> {
    read_of(path, text, &[])
}

fn read_of(path: &Path, text: &str, sets: &[Override]) -> Result<Recipe, RecipeErrors> {
    let name = path.display().to_string();
    let folder = path.parent().unwrap_or(Path::new(""));
    let (mut recipe, document, root) = read_document(&name, text, sets, Some(folder))?;
    files::locate(&mut recipe, folder);
    let problems = spanned(&root, files::check(&recipe));
    if problems.is_empty() {
        Ok(recipe)
    } else {
        Err(RecipeErrors::new(document, problems))
    }
}

/// An error of a `--set` argument that is no override.
pub fn argument_error(recipe: &Path, set: &str, message: String) -> RecipeErrors {
    let document = Document::new(&recipe.display().to_string(), "", &[Override::from(set.to_owned())]);
    RecipeErrors::new(document, vec![Problem::in_argument(0, 0..set.len(), message)])
}

/// The text of a file of at most 1 MiB.
///
/// # Errors
/// It cannot be read, is longer, or is no text.
pub fn text(path: &Path) -> Result<String, RecipeErrors> {
    let name = path.display().to_string();
    let wrong = |text: &str, problem| RecipeErrors::new(Document::new(&name, text, &[]), vec![problem]);
    let general = |message: String| wrong("", Problem::general(message));
    let unreadable = |error: std::io::Error| general(format!("cannot be read: {error}"));
    let mut bytes = Vec::new();
    // A device or a pipe has no size that says how much there is to read.
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        return Err(general(format!("has more than {LARGEST} bytes; a recipe is a text of a few thousand")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let byte = error.as_bytes()[valid];
        let text = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
        wrong(&text, Problem::new(valid..valid, format!("expected UTF-8 text, got the byte 0x{byte:02x}")))
    })
}

/// Reads and checks the text of a recipe; `name` stands for the file in messages. Paths stay as written and
/// no file is looked at.
///
/// # Errors
/// As [`read`].
pub fn read_text(name: &str, text: &str, sets: &[String]) -> Result<Recipe, RecipeErrors> {
    read_document(name, text, &arguments(sets), None).map(|(recipe, _, _)| recipe)
}

fn arguments(sets: &[String]) -> Vec<Override> {
    sets.iter().cloned().map(Override::from).collect()
}

/// `folder` is that of the recipe, where files may be looked at.
fn read_document(
    name: &str,
    text: &str,
    sets: &[Override],
    folder: Option<&Path>,
) -> Result<(Recipe, Document, Node), RecipeErrors> {
    // A byte-order mark is how some editors begin a file; RON knows none.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut document = Document::new(name, text, sets);
    let checked = parsed(&document)
        .and_then(|_| overridden(&mut document, sets, folder))
        .and_then(|root| well_formed(&document, root));
    match checked {
        Ok((recipe, root)) => Ok((recipe, document, root)),
        Err(problems) => Err(RecipeErrors::new(document, problems)),
    }
}

/// The tree of the text; where its syntax is broken but readable, what else is wrong is told as well.
fn parsed(document: &Document) -> Result<Node, Vec<Problem>> {
    let (root, mut problems) = syntax::parse(document.text());
    match root {
        Some(root) if problems.is_empty() => Ok(root),
        Some(root) => {
            problems.extend(check::check(document.text(), &root, &shape::recipe()));
            Err(problems)
        }
        None => Err(problems),
    }
}

/// The tree with the overrides applied: those of `init` first, as they decide which model the others change.
fn overridden(
    document: &mut Document,
    sets: &[Override],
    folder: Option<&Path>,
) -> Result<Node, Vec<Problem>> {
    let mut problems = overrides::apply(document, sets, |field| field == "init");
    if let Some(folder) = folder {
        let root = parsed(document)?;
        initial::fill_in(document, &root, folder).map_err(|problem| vec![*problem])?;
    }
    problems.extend(overrides::apply(document, sets, |field| field != "init"));
    let root = parsed(document)?;
    if problems.is_empty() {
        return Ok(root);
    }
    problems.extend(check::check(document.text(), &root, &shape::recipe()));
    Err(problems)
}

fn well_formed(document: &Document, root: Node) -> Result<(Recipe, Node), Vec<Problem>> {
    let (mut problems, repairs) = check::check_and_repair(document.text(), &root, &shape::recipe());
    if !problems.is_empty() {
        // What is wrong with the values is told in the same breath, as far as they can be read.
        let repaired = repairs.applied(document.text());
        if let Some(recipe) = repaired.and_then(|text| deserialise::<Recipe>(&text).ok()) {
            let violations = validate::validate(&recipe).into_iter();
            let of_text = violations.filter(|violation| repairs.concerns_the_text(violation, &root));
            problems.extend(spanned(&root, of_text.collect()));
        }
        return Err(problems);
    }
    let recipe: Recipe = deserialise(document.text())?;
    let problems = spanned(&root, validate::validate(&recipe));
    if problems.is_empty() {
        Ok((recipe, root))
    } else {
        Err(problems)
    }
}

/// ron has the last word on what a text means.
pub(super) fn deserialise<T: DeserializeOwned>(text: &str) -> Result<T, Vec<Problem>> {
    options().from_str(text).map_err(|error| {
        let start = byte_at(text, error.span.start.line, error.span.start.col);
        let end = byte_at(text, error.span.end.line, error.span.end.col).max(start);
        let mut message = error.code.to_string();
        if let Some(first) = message.get_mut(..1) {
            first.make_ascii_lowercase();
        }
        vec![Problem::new(start..end, message)]
    })
}

/// RON options of recipes, for reading and writing.
pub(crate) fn options() -> Options {
    Options::default()
        .with_default_extension(Extensions::IMPLICIT_SOME)
        .with_default_extension(Extensions::UNWRAP_VARIANT_NEWTYPES)
}

/// Finds the bytes of the fields that broken invariants concern.
pub(super) fn spanned(root: &Node, violations: Vec<Violation>) -> Vec<Problem> {
    let problem = |violation: Violation| {
        let span = root.nearest(&violation.path).head();
        let mut problem = Problem::new(span, violation.message).at(&violation.path);
        problem.help = violation.help;
        for (path, label) in violation.also {
            problem.related.extend(root.exactly(&path).map(|node| (node.head(), label)));
        }
        problem
    };
    violations.into_iter().map(problem).collect()
}
