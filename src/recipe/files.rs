//! The files that a recipe names: where they are, and what of them is here.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::validate::Violation;
use super::{model_of, Recipe};
use crate::checkpoint::InitConfig;
use crate::data::source::{pattern, Files};
use crate::data::storage::Location;
use crate::data::text::{Tokenizer, TokenizerConfig};
use crate::data::SourceConfig;
use crate::evaluator::{Classes, ClassesConfig, EvaluatorConfig, Known, ZeroShotConfig};

/// Time limit for the inventory of one pattern; a network file system can be slow to answer.
const PATIENCE: Duration = Duration::from_millis(300);

/// A file, folder or pattern of a recipe.
enum Named<'a> {
    Path(&'a mut PathBuf),
    Shards(&'a mut String),
}

/// Files on this machine of something that a recipe names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Presence {
    /// Field of the recipe.
    pub field: String,
    /// Path or pattern, as it will be used.
    pub path: String,
    /// True if it names shards.
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

impl Presence {
    /// Override that names other files, as a shell takes it: without brackets that it would expand.
    pub fn override_hint(&self) -> String {
        format!("--set {}=...", self.field.replace('[', ".").replace(']', ""))
    }
}

/// Rewrites relative paths: as written if that exists relative to the working directory, else relative to
/// `folder` if it exists there, else as written.
pub fn locate(recipe: &mut Recipe, folder: &Path) {
    for (_, named) in named(recipe) {
        match named {
            Named::Path(path) => {
                let beside = folder.join(&*path);
                // A resolved recipe is written as text, so its paths have to be text.
                let is_text = beside.to_str().is_some();
                if path.is_relative() && !path.exists() && beside.exists() && is_text {
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

/// Problems that the files on this machine show: the tokenizer is one and fits the token embedding, the
/// classes are there. A file that is absent says nothing: it may be on another machine.
pub fn check(recipe: &Recipe) -> Vec<Violation> {
    let mut violations = Vec::new();
    violations.extend(initial(recipe));
    violations.extend(tokenizer(recipe));
    for (index, stage) in recipe.stages.iter().enumerate() {
        let (list, evaluators) = stage.evaluators();
        for (position, evaluator) in evaluators.iter().enumerate() {
            if let EvaluatorConfig::ZeroShot(ZeroShotConfig { classes, .. }) = evaluator {
                let read = || Classes::read(classes, Known::default()).err();
                let wrong = classes_are_here(classes).then(read).flatten();
                let path = format!("stages[{index}]{list}[{position}].classes");
                violations.extend(wrong.map(|error| violation(&path, error.to_string())));
            }
        }
    }
    violations
}

fn violation(path: &str, message: String) -> Violation {
    Violation { path: path.parse().unwrap_or_default(), message, help: None, also: Vec::new() }
}

/// The options of the model that no tensor shows must be those that the weights to start from were made with.
fn initial(recipe: &Recipe) -> Vec<Violation> {
    let Some(path) = recipe.init.as_ref().map(InitConfig::path).filter(|path| path.exists()) else {
        return Vec::new();
    };
    let made_with = match model_of(path) {
        Ok(config) => config,
        Err(error) => return vec![violation("init", error.to_string())],
    };
    let differing = recipe.model.unlike(&made_with).into_iter().map(|differing| {
        let mut violation = violation(&format!("model.{}", differing.field), differing.problem);
        violation.help = Some("leave out `model` to take that of the checkpoint".into());
        violation.also.push(("init".parse().unwrap_or_default(), "made with the other".into()));
        violation
    });
    differing.collect()
}

fn tokenizer(recipe: &Recipe) -> Option<Violation> {
    let text = &recipe.model.text;
    let path = match &text.tokenizer {
        TokenizerConfig::WordPiece(path) | TokenizerConfig::Json(path) | TokenizerConfig::ClipBpe(path) => {
            path
        }
        TokenizerConfig::Train(_) => return None,
    };
    if !path.exists() {
        return None;
    }
    let entries = match Tokenizer::open(&text.tokenizer) {
        Ok(tokenizer) => tokenizer.vocab_size(),
        Err(error) => return Some(violation("model.text.tokenizer", error.to_string())),
    };
    if entries <= text.vocab_size {
        return None;
    }
    let message = format!("expected at least the {entries} of {}, got {}", path.display(), text.vocab_size);
    let mut violation = violation("model.text.vocab_size", message);
    violation.help = Some(format!("write `vocab_size: {entries}`"));
    violation.also.push(("model.text.tokenizer".parse().unwrap_or_default(), "the tokenizer".into()));
    Some(violation)
}

fn classes_are_here(classes: &ClassesConfig) -> bool {
    match classes {
        ClassesConfig::Source { .. } | ClassesConfig::Names { .. } => false,
        ClassesConfig::Task { file, .. } => file.exists(),
        ClassesConfig::Lines { names, templates } => names.exists() && templates.exists(),
    }
}

/// Files that a run of the recipe needs and this machine lacks, each with what to do; `has` says of which fields
/// nothing is needed.
pub fn missing(recipe: &Recipe, has: impl Fn(&str) -> bool) -> Vec<String> {
    inventory(recipe)
        .iter()
        .filter(|presence| presence.found == 0 && presence.complete && !has(&presence.field))
        .map(|presence| {
            let Presence { field, path, shards, .. } = presence;
            let problem = if *shards { "matches nothing" } else { "is not there" };
            format!("{field}: {path} {problem}; set it with {}", presence.override_hint())
        })
        .collect()
}

/// Files on this machine of everything that the recipe names, in the recipe's order.
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
    let deadline = Instant::now() + PATIENCE;
    let (literal, wild): (Vec<String>, Vec<String>) = match shards {
        true => expanded(&presence.path).partition(|name| !is_wild(name)),
        false => (vec![presence.path.clone()], Vec::new()),
    };
    presence.named = literal.len();
    let mut files: Vec<PathBuf> = literal.into_iter().map(PathBuf::from).collect();
    let (matching, complete) = matches_until(wild, deadline);
    presence.named += matching.len();
    presence.complete = complete;
    files.extend(matching);
    // Of a folder that is absent, nothing has to be looked at.
    let mut absent: Option<&Path> = None;
    for (seen, file) in files.iter().enumerate() {
        if seen % 64 == 63 && Instant::now() > deadline {
            presence.complete = false;
            break;
        }
        let folder = file.parent().filter(|folder| *folder != Path::new(""));
        if absent.is_some() && folder == absent {
            continue;
        }
        match file.metadata() {
            Ok(metadata) => {
                presence.found += 1;
                presence.bytes += if metadata.is_file() { metadata.len() } else { 0 };
            }
            Err(_) => absent = folder.filter(|folder| !folder.exists()),
        }
    }
    presence
}

fn any_exists(pattern: &str) -> bool {
    expanded(pattern).any(|name| match is_wild(&name) {
        true => matching(&name).next().is_some(),
        false => Path::new(&name).exists(),
    })
}

/// Numbers that the braces of a shard pattern stand for.
fn expanded(shards: &str) -> impl Iterator<Item = String> {
    pattern::expand(shards).unwrap_or_default().into_iter()
}

fn is_wild(name: &str) -> bool {
    name.contains(['*', '?', '[']) && !Path::new(name).exists()
}

fn matching(name: &str) -> impl Iterator<Item = PathBuf> {
    glob::glob(name).into_iter().flatten().filter_map(Result::ok)
}

/// Matches of some wildcards, and whether these are all. A search of a whole disk cannot be stopped before its next
/// match, so it has a thread of its own, which is left behind when the time is over.
fn matches_until(names: Vec<String>, deadline: Instant) -> (Vec<PathBuf>, bool) {
    if names.is_empty() {
        return (Vec::new(), true);
    }
    let (send, receive) = mpsc::sync_channel(1024);
    std::thread::spawn(move || {
        let all = names.iter().flat_map(|name| matching(name));
        // Nobody listens any more when the time is over.
        let _ = all.into_iter().try_for_each(|path| send.send(path));
    });
    let mut found = Vec::new();
    loop {
        match receive.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(path) => found.push(path),
            Err(RecvTimeoutError::Disconnected) => return (found, true),
            Err(RecvTimeoutError::Timeout) => return (found, false),
        }
    }
}

fn named(recipe: &mut Recipe) -> Vec<(String, Named<'_>)> {
    let mut all = Vec::new();
    if let Some(InitConfig::Checkpoint(path)) = &mut recipe.init {
        all.push(("init".to_owned(), Named::Path(path)));
    }
    let tokenizer = match &mut recipe.model.text.tokenizer {
        TokenizerConfig::WordPiece(path) => Some(("WordPiece", path)),
        TokenizerConfig::Json(path) => Some(("Json", path)),
        TokenizerConfig::ClipBpe(path) => Some(("ClipBpe", path)),
        TokenizerConfig::Train(_) => None,
    };
    all.extend(
        tokenizer.map(|(variant, path)| (format!("model.text.tokenizer.{variant}"), Named::Path(path))),
    );
    source(&mut recipe.data.train, "data.train", &mut all);
    if let Some(validation) = &mut recipe.data.validation {
        source(validation, "data.validation", &mut all);
    }
    if let Some(list) = &mut recipe.data.filter.exclude {
        all.push(("data.filter.exclude".to_owned(), Named::Path(list)));
    }
    for (index, stage) in recipe.stages.iter_mut().enumerate() {
        let (list, evaluators) = stage.evaluators_mut();
        for (position, evaluator) in evaluators.iter_mut().enumerate() {
            let path = format!("stages[{index}]{list}[{position}]");
            let (classes_of, sources) = evaluator.inputs_mut();
            if let Some(config) = classes_of {
                classes(config, &path, &mut all);
            }
            for (field, data) in sources {
                source(data, &format!("{path}.{field}"), &mut all);
            }
        }
    }
    all
}

fn source<'a>(source: &'a mut SourceConfig, path: &str, all: &mut Vec<(String, Named<'a>)>) {
    match source {
        SourceConfig::Scenes(_) => {}
        SourceConfig::WebDataset(config) => {
            patterns(&mut config.shards, &format!("{path}.shards"), all);
            if let Some(index) = &mut config.index {
                all.push((format!("{path}.index"), Named::Path(index)));
            }
        }
        SourceConfig::Table(config) => patterns(&mut config.files, &format!("{path}.files"), all),
        SourceConfig::Folder(config) => all.push((format!("{path}.path"), Named::Path(&mut config.path))),
        SourceConfig::Cifar(config) => all.push((format!("{path}.path"), Named::Path(&mut config.path))),
        SourceConfig::ImageNet(config) => {
            all.push((format!("{path}.images"), Named::Path(&mut config.images)));
            all.push((format!("{path}.synsets"), Named::Path(&mut config.synsets)));
            if let Some(labels) = &mut config.labels {
                all.push((format!("{path}.labels"), Named::Path(labels)));
            }
        }
        SourceConfig::ClipBenchmark(config) => {
            all.push((format!("{path}.path"), Named::Path(&mut config.path)));
        }
        SourceConfig::Karpathy(config) => {
            all.push((format!("{path}.annotations"), Named::Path(&mut config.annotations)));
            all.push((format!("{path}.images"), Named::Path(&mut config.images)));
        }
        SourceConfig::Mix(sources) => {
            for (index, weighted) in sources.iter_mut().enumerate() {
                self::source(&mut weighted.0, &format!("{path}[{index}][0]"), all);
            }
        }
    }
}

/// Files of a source. What is behind URLs is on no machine, so it is neither located nor counted.
fn patterns<'a>(files: &'a mut Files, path: &str, all: &mut Vec<(String, Named<'a>)>) {
    let several = matches!(files, Files::Several(_));
    for (index, pattern) in files.patterns_mut().iter_mut().enumerate() {
        if !matches!(Location::parse(pattern), Ok(Location::Url(_))) {
            let field = if several { format!("{path}[{index}]") } else { path.to_owned() };
            all.push((field, Named::Shards(pattern)));
        }
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
