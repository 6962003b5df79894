//! The architecture of the checkpoint that a recipe starts from: a recipe with `init` need not repeat it.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::document::Document;
use super::problem::Problem;
use super::read::{options, read_text};
use super::syntax::Node;
use crate::checkpoint::{run_of, InitConfig};
use crate::data::text::TokenizerConfig;
use crate::model::ModelConfig;
use crate::record::RunPaths;

/// Either file is a text of a few thousand bytes.
const LARGEST: u64 = 1 << 20;

/// The folder of a run, or of one of its checkpoints, that does not say which model it holds.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct ModelUnknown {
    path: PathBuf,
    reason: String,
}

/// The architecture of the weights in the folder of a run, of an import, or of one of its checkpoints. Its
/// tokenizer is the one that lies in the folder, where one does.
///
/// # Errors
/// The folder is none of these, or what it says cannot be read.
pub fn model_of(path: &Path) -> Result<ModelConfig, ModelUnknown> {
    let run = RunPaths::new(run_of(path));
    let unknown = |path: &Path, reason: String| ModelUnknown { path: path.to_owned(), reason };
    let (model, recipe) = (run.model(), run.recipe());
    let mut config = if model.exists() {
        let text = text(&model).map_err(|reason| unknown(&model, reason))?;
        let config: ModelConfig = ron::from_str(&text)
            .map_err(|error| unknown(&model, format!("not the description of a model: {error}")))?;
        let violations: Vec<String> = config.check().iter().map(ToString::to_string).collect();
        if !violations.is_empty() {
            return Err(unknown(
                &model,
                format!("not a model that can be built:\n{}", violations.join("\n")),
            ));
        }
        config
    } else if recipe.exists() {
        let text = text(&recipe).map_err(|reason| unknown(&recipe, reason))?;
        let read = read_text(&recipe.display().to_string(), &text, &[]);
        read.map_err(|errors| unknown(&recipe, format!("not a recipe that can be read:\n{errors}")))?.model
    } else {
        return Err(unknown(path, nothing_here(path)));
    };
    let tokenizer = run.tokenizer();
    if tokenizer.is_file() {
        config.text.tokenizer = TokenizerConfig::Json(tokenizer);
    }
    Ok(config)
}

fn nothing_here(path: &Path) -> String {
    if !path.exists() {
        return "there is no such folder".into();
    }
    let foreign = ["open_clip_config.json", "config.json", "checkpoint"];
    if path.is_file() || foreign.iter().any(|name| path.join(name).exists()) {
        return format!(
            "a checkpoint of another tool? Make a run folder of it first: flip import {} --out DIR",
            path.display()
        );
    }
    "expected the folder of a run (recipe.ron, checkpoints/), of `flip import` (model.ron), or one of its checkpoints"
        .to_owned()
}

fn text(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    file.take(LARGEST + 1).read_to_string(&mut text).map_err(|error| format!("cannot be read: {error}"))?;
    match text.len() as u64 > LARGEST {
        true => Err(format!("more than {LARGEST} bytes; expected a short text")),
        false => Ok(text),
    }
}

/// Writes the model of the checkpoint into a recipe that leaves it out. Errors in it are shown at `init`.
pub(super) fn fill_in(document: &mut Document, root: &Node, folder: &Path) -> Result<(), Box<Problem>> {
    let (init, model) = ("init".parse().unwrap_or_default(), "model".parse().unwrap_or_default());
    let (Some(node), None) = (root.exactly(&init), root.exactly(&model)) else { return Ok(()) };
    // What is no `init` at all is told by the checker.
    let Ok(Some(config)) = options().from_str::<Option<InitConfig>>(&document.text()[node.span.clone()])
    else {
        return Ok(());
    };
    let problem = |message: String| Box::new(Problem::new(node.head(), message).at(&init));
    let path = located(config.path(), folder);
    let config = model_of(&path).map_err(|error| problem(error.to_string()))?;
    let written = options().to_string(&config).map_err(|error| {
        problem(format!("{}: a path that is not UTF-8 cannot stand in a recipe: {error}", path.display()))
    })?;
    document.insert_beside(&node.span, &format!(", model: {written}"));
    Ok(())
}

/// As written if that exists relative to the working directory, else relative to the recipe's folder if it exists
/// there.
fn located(path: &Path, folder: &Path) -> PathBuf {
    let beside = folder.join(path);
    if path.is_relative() && !path.exists() && beside.exists() {
        beside
    } else {
        path.to_owned()
    }
}
