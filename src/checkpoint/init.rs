//! Weights that a run starts from.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Weights that a run starts from instead of random ones. A run that is resumed goes on from its own
/// checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum InitConfig {
    /// The model of another run or of `flip import`: its folder, of which the newest checkpoint is taken, or one
    /// of the folders in its `checkpoints`. Only the weights: steps, samples and optimizer begin anew. Learned
    /// positions are resampled where `model.image.size` is another.
    Checkpoint(PathBuf),
}

impl InitConfig {
    /// The folder that it names.
    pub fn path(&self) -> &Path {
        let InitConfig::Checkpoint(path) = self;
        path
    }
}

/// The folder of the run that `path` is, or that the checkpoint `path` is one of.
pub fn run_of(path: &Path) -> &Path {
    let checkpoint = path.join(super::manifest::MANIFEST).is_file();
    let run = path.parent().and_then(Path::parent).filter(|_| checkpoint);
    match run {
        Some(run) if run == Path::new("") => Path::new("."),
        Some(run) => run,
        None => path,
    }
}
