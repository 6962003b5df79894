//! The files that a recipe names: where they are, and what of them is here.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::validate::Violation;
use super::Recipe;
use crate::data::tokenizer::TokenizerConfig;
use crate::data::SourceConfig;
use crate::evaluator::{ClassesConfig, EvaluatorConfig};
use crate::stage::Stage;

/// How long the inventory of one pattern may take; a network file system can be slow to answer.
const PATIENCE: Duration = Duration::from_millis(300);

/// A file, folder or pattern of a recipe.
enum Named<'a> {
    Path(&'a mut PathBuf),
    Shards(&'a mut String),
}

/// What is on this machine of something a recipe names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Presence {
    /// Field of the recipe.
    pub field: String,
    /// Path or pattern, as it will be used.
    pub path: String,
    /// Whether it names shards.
    pub shards: bool,
    /// Files that the pattern stands for, whether they exist or not.
    pub named: usize,
    /// Files (or the one folder) that exist.
    pub found: usize,
    /// Their size in bytes; 0 for a folder.
    pub bytes: u64,
    /// False where looking took too long and the numbers are lower bounds.
    pub complete: bool,
}

/// Rewrites relative paths: as written if that exists relative to the working directory, else relative to
/// `folder` if it exists there, else as written.
pub fn locate(recipe: &mut Recipe, folder: &Path) {
    for (_, named) in named(recipe) {
        match named {
            Named::Path(path) => {
                let beside = folder.join(&*path);
                if path.is_relative() && !path.exists() && beside.exists() {
                    *path = beside;
                }
            }
            Named::Shards(pattern) => {
                let beside = folder.join(&*pattern).to_string_lossy().into_owned();
                if Path::new(pattern).is_relative() && !any_exists(pattern) && any_exists(&beside) {
                    *pattern = beside;
                }
            }
        }
    }
}

/// What files that are here say about the recipe: a vocabulary has to fit the token embedding.
pub fn check(recipe: &Recipe) -> Vec<Violation> {
    let text = &recipe.model.text;
    let TokenizerConfig::WordPiece(path) = &text.tokenizer else { return Vec::new() };
    let Ok(vocabulary) = std::fs::read_to_string(path) else { return Vec::new() };
    let entries = vocabulary.lines().count();
    if entries <= text.vocab_size {
        return Vec::new();
    }
    let message =
        format!("expected at least the {entries} entries of {}, got {}", path.display(), text.vocab_size);
    let parsed = |path: &str| path.parse().unwrap_or_default();
    vec![Violation {
        path: parsed("model.text.vocab_size"),
        message,
        help: Some(format!("write `vocab_size: {entries}`")),
        also: vec![(parsed("model.text.tokenizer"), "the tokenizer".into())],
    }]
}

/// What is on this machine of everything the recipe names, in the recipe's order.
pub fn inventory(recipe: &Recipe) -> Vec<Presence> {
    let mut recipe = recipe.clone();
    named(&mut recipe).into_iter().map(|(field, named)| present(field, named)).collect()
}

fn present(field: String, named: Named<'_>) -> Presence {
    let (path, shards) = match named {
        Named::Path(path) => (path.display().to_string(), false),
        Named::Shards(pattern) => (pattern.clone(), true),
    };
    let mut presence = Presence { field, path, shards, named: 1, found: 0, bytes: 0, complete: true };
    let files = if shards { candidates(&presence.path) } else { vec![PathBuf::from(&presence.path)] };
    presence.named = files.len();
    let started = Instant::now();
    for (seen, file) in files.iter().enumerate() {
        if seen % 64 == 63 && started.elapsed() > PATIENCE {
            presence.complete = false;
            break;
        }
        if let Ok(metadata) = file.metadata() {
            presence.found += 1;
            presence.bytes += if metadata.is_file() { metadata.len() } else { 0 };
        }
    }
    presence
}

fn any_exists(pattern: &str) -> bool {
    candidates(pattern).iter().any(|file| file.exists())
}

/// The paths that a shard pattern stands for: every expansion of its braces, and what matches its wildcards.
fn candidates(pattern: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for name in expand(pattern).unwrap_or_default() {
        if name.contains(['*', '?', '[']) && !Path::new(&name).exists() {
            files.extend(glob::glob(&name).into_iter().flatten().filter_map(Result::ok));
        } else {
            files.push(PathBuf::from(name));
        }
    }
    files
}

fn named(recipe: &mut Recipe) -> Vec<(String, Named<'_>)> {
    let mut all = Vec::new();
    match &mut recipe.model.text.tokenizer {
        TokenizerConfig::WordPiece(path) | TokenizerConfig::Json(path) | TokenizerConfig::ClipBpe(path) => {
            all.push(("model.text.tokenizer".to_owned(), Named::Path(path)));
        }
        TokenizerConfig::Train(_) => {}
    }
    source(&mut recipe.data.train, "data.train", &mut all);
    if let Some(validation) = &mut recipe.data.validation {
        source(validation, "data.validation", &mut all);
    }
    for (index, stage) in recipe.stages.iter_mut().enumerate() {
        let Stage::Evaluate(evaluators) = stage else { continue };
        for (position, evaluator) in evaluators.iter_mut().enumerate() {
            let path = format!("stages[{index}][{position}]");
            let data = match evaluator {
                EvaluatorConfig::ZeroShot(config) => {
                    classes(&mut config.classes, &path, &mut all);
                    &mut config.data
                }
                EvaluatorConfig::Retrieval(config) => &mut config.data,
                EvaluatorConfig::HeldOutLoss(config) => &mut config.data,
            };
            if let Some(data) = data {
                source(data, &format!("{path}.data"), &mut all);
            }
        }
    }
    all
}

fn source<'a>(source: &'a mut SourceConfig, path: &str, all: &mut Vec<(String, Named<'a>)>) {
    match source {
        SourceConfig::Scenes(_) => {}
        SourceConfig::WebDataset(config) => {
            all.push((format!("{path}.shards"), Named::Shards(&mut config.shards)));
        }
        SourceConfig::Folder(config) => all.push((format!("{path}.path"), Named::Path(&mut config.path))),
    }
}

fn classes<'a>(classes: &'a mut ClassesConfig, path: &str, all: &mut Vec<(String, Named<'a>)>) {
    match classes {
        ClassesConfig::Source { .. } | ClassesConfig::Names { .. } => {}
        ClassesConfig::Task { file, .. } => all.push((format!("{path}.classes.file"), Named::Path(file))),
        ClassesConfig::Lines { names, templates } => {
            all.push((format!("{path}.classes.names"), Named::Path(names)));
            all.push((format!("{path}.classes.templates"), Named::Path(templates)));
        }
    }
}

/// Expands braces as a shell does: `{a,b}` and `{000..123}`.
///
/// # Errors
/// A brace is never closed, or the ranges stand for too many files.
pub fn expand(pattern: &str) -> Result<Vec<String>, String> {
    const MOST: usize = 10_000_000;
    let Some(open) = pattern.find('{') else { return Ok(vec![pattern.to_owned()]) };
    let close = pattern[open..].find('}').map(|close| open + close);
    let close = close.ok_or_else(|| format!("the brace at character {} is never closed", open + 1))?;
    let inside = &pattern[open + 1..close];
    let alternatives: Vec<String> = match inside.split_once("..") {
        Some((first, last)) => match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(from), Ok(to)) if from <= to && to - from < MOST => {
                (from..=to).map(|number| format!("{number:0width$}", width = first.len())).collect()
            }
            _ => return Err(format!("{{{inside}}} is no range of at most {MOST} numbers")),
        },
        None => inside.split(',').map(str::to_owned).collect(),
    };
    let tails = expand(&pattern[close + 1..])?;
    if alternatives.len().saturating_mul(tails.len()) > MOST {
        return Err(format!("{pattern} stands for more than {MOST} files"));
    }
    let head = &pattern[..open];
    let joined =
        alternatives.iter().flat_map(|middle| tails.iter().map(move |tail| format!("{head}{middle}{tail}")));
    Ok(joined.collect())
}
