//! Runs a recipe: device, then stage after stage, from the start or from where a checkpoint left off.
//!
//! ```
//! use std::sync::atomic::AtomicBool;
//! use std::time::Duration;
//!
//! use flip::interpreter::run_alone;
//! use flip::log::Progress;
//! use flip::record::{read_lines, Entry, RunFolder, StepMetrics};
//! use flip::train::Ended;
//!
//! let recipe = r#"(
//!     name: "example",
//!     device: Cpu,
//!     model: (
//!         image: (size: 16, patch: 8, width: 8, depth: 1, heads: 1),
//!         text: (tokenizer: Train(captions: 40), vocab_size: 200, context: 8, width: 8, depth: 1, heads: 1),
//!         embed_dim: 8,
//!     ),
//!     data: (train: Scenes(size: 16, split: Train)),
//!     stages: [
//!         Pretrain(
//!             length: Steps(3), batch: 4, image_mask: Random(0.5),
//!             schedule: Constant(lr: Absolute(1e-3), warmup: Steps(1)),
//!         ),
//!     ],
//!     metrics: (every_steps: 1),
//! )"#;
//! let recipe = flip::recipe::read_text("example.ron", recipe, &[])?;
//! # let there = tempfile::tempdir()?;
//! # let path = there.path().join("example");
//! let folder = RunFolder::enter(&path, Entry::Start)?;
//! let progress = Progress::lines(Duration::from_secs(10));
//! let ended = run_alone(&recipe, false, &folder, &progress, &AtomicBool::new(false))?;
//! assert_eq!(ended, Ended::Complete);
//! let steps: Vec<StepMetrics> = read_lines(&folder.metrics())?;
//! assert_eq!(steps.len(), 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(missing_docs)]

mod environment;
mod error;
mod index;
mod place;
mod process;
mod share;
mod start;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::checkpoint::{self, Snapshot};
use crate::device::{self, DeviceConfig};
use crate::log::Progress;
use crate::model::GraphDevice;
#[cfg(all(feature = "mpi", feature = "cuda"))]
use crate::ranks::Nccl;
use crate::ranks::{self, Alone};
use crate::recipe::{self, Recipe};
use crate::record::RunFolder;
use crate::train::length;
use crate::train::plan::{TrainingPlan, UpdateRule};
use crate::train::resumed::Resumed;
use crate::train::{evaluate, train, Ended, Position, Run, Stage, TrainError, TrainingConfig};

pub use environment::Environment;
pub use error::InterpreterError;
pub use place::{place, Place};

/// Runs a recipe in a folder to the end, or to an interruption, in this process alone. With `resume` it goes on from the newest
/// checkpoint in the folder, if there is one. A folder without a recipe gets this one, as `flip run` writes it.
///
/// # Errors
/// As [`run`].
pub fn run_alone(
    recipe: &Recipe,
    resume: bool,
    folder: &RunFolder,
    progress: &Progress,
    interrupt: &AtomicBool,
) -> Result<Ended, InterpreterError> {
    let ranks = Alone::default();
    let device = if place(recipe)?.gpu.is_some() { "GPU" } else { "CPU" };
    let members = ranks::agree(&ranks, device, &[])?;
    let from = if resume { newest(folder)? } else { None };
    if !folder.holds_run() {
        // Without it nobody could open what the run leaves.
        let write = |path: &Path| folder.replace(path, recipe::write(recipe).as_bytes());
        write(&folder.recipe()).map_err(TrainError::from)?;
    }
    let environment =
        Environment { ranks: &ranks, members: &members, folder: Some(folder), progress, interrupt };
    run(recipe, from, &environment)
}

/// Runs the recipe in its folder to the end, or to an interruption. Rank 0 says which checkpoint it goes on `from`, mostly
/// the [`newest`].
///
/// # Errors
/// The device, the data or the folder is not as it has to be, a stage fails, or another rank.
pub fn run(
    recipe: &Recipe,
    from: Option<Snapshot>,
    environment: &Environment<'_>,
) -> Result<Ended, InterpreterError> {
    let Place { gpu, why } = place(recipe)?;
    // Ranks of one machine share its GPUs out.
    let gpu = match (gpu, recipe.device) {
        (Some(_), DeviceConfig::Auto) => Some(device::gpu_of(environment.here().local)),
        (gpu, _) => gpu,
    };
    match gpu {
        None => {
            tracing::info!(target: "flip", "computing on the CPU: {why}");
            run_on(dfdx::tensor::Cpu::default(), recipe, from, environment)
        }
        #[cfg(feature = "cuda")]
        Some(ordinal) => {
            tracing::info!(target: "flip", "computing on GPU {ordinal}: {why}");
            let device = dfdx::tensor::Cuda::try_build(ordinal, recipe.seed).map_err(|error| {
                InterpreterError::Device(format!("GPU {ordinal} could not be set up: {error}"))
            })?;
            #[cfg(feature = "mpi")]
            if environment.ranks.count() > 1 {
                let ranks = Nccl::join(environment.ranks, ordinal)?;
                return run_on(device, recipe, from, &Environment { ranks: &ranks, ..*environment });
            }
            run_on(device, recipe, from, environment)
        }
        #[cfg(not(feature = "cuda"))]
        Some(_) => Err(InterpreterError::Device(device::NoGpu::NotBuilt.to_string())),
    }
}

fn run_on<D: GraphDevice>(
    device: D,
    recipe: &Recipe,
    from: Option<Snapshot>,
    environment: &Environment<'_>,
) -> Result<Ended, InterpreterError> {
    let (mut run, resumed) = start::start(&device, recipe, from, environment)?;
    let ended = run_stages(&mut run, recipe, resumed.as_ref())?;
    if let (Ended::Complete, Some(folder)) = (ended, environment.folder) {
        let version = concat!("flip ", env!("CARGO_PKG_VERSION"), "\n");
        folder.replace(&folder.complete(), version.as_bytes())?;
    }
    Ok(ended)
}

/// Runs the stages, from that of the run's position on. `resumed` is the checkpoint that it goes on from.
fn run_stages<D: GraphDevice>(
    run: &mut Run<'_, D>,
    recipe: &Recipe,
    resumed: Option<&Resumed>,
) -> Result<Ended, InterpreterError> {
    let Position { stage: first, step, .. } = run.state.position;
    for (index, stage) in recipe.stages.iter().enumerate().skip(first) {
        let position = &mut run.state.position;
        if index != position.stage {
            (position.stage, position.step) = (index, 0);
        }
        let rule = UpdateRule::of(&recipe.stages, index);
        // A stage without moments of its own has some before its first step.
        let resumed = resumed.filter(|_| index == first && (step > 0 || rule.continues));
        let ended = match (stage, stage.training()) {
            (Stage::Evaluate(configs), _) => evaluate(run, configs)?,
            (_, None) => Ended::Complete,
            (_, Some(config)) => match plan(run, index, config, rule)? {
                Some(plan) => train(run, &plan, resumed)?,
                None => Ended::Interrupted,
            },
        };
        if ended == Ended::Interrupted {
            return Ok(ended);
        }
    }
    Ok(Ended::Complete)
}

/// Plans a stage that trains, with the size of an epoch where one of its durations needs it, and with the steps that its
/// length stands for; none where the run was interrupted before these were known.
fn plan<D: GraphDevice>(
    run: &mut Run<'_, D>,
    stage: usize,
    config: TrainingConfig,
    rule: UpdateRule,
) -> Result<Option<TrainingPlan>, InterpreterError> {
    let durations = TrainingPlan::durations(&config, run.config.checkpoints);
    let epoch_samples = run.epoch_samples(&durations).map_err(InterpreterError::Train)?;
    let (model, checkpoints) = (run.config.model, run.config.checkpoints);
    let planned =
        |steps| TrainingPlan::new(config.clone(), rule.clone(), model, checkpoints, epoch_samples, steps);
    let plan = planned(None).map_err(|source| TrainError::Plan { stage, source })?;
    Ok(length::settled(run, plan, |steps| planned(Some(steps)))?)
}

/// The newest usable checkpoint; refused ones are named.
///
/// # Errors
/// There are some, and none can be used.
pub fn newest(folder: &RunFolder) -> Result<Option<Snapshot>, InterpreterError> {
    checkpoint::prepare(&folder.checkpoints())?;
    let found = checkpoint::newest(&folder.checkpoints())?;
    for (path, reason) in &found.refused {
        tracing::warn!(target: "flip::checkpoint", path = %path.display(), %reason, "checkpoint refused");
    }
    match found.snapshot {
        Some(snapshot) => {
            tracing::info!(target: "flip::checkpoint", path = %snapshot.path.display(), "resuming");
            Ok(Some(snapshot))
        }
        None if found.refused.is_empty() => {
            tracing::info!(target: "flip::checkpoint", "no checkpoint was written yet: starting from the beginning");
            Ok(None)
        }
        None => Err(InterpreterError::AllRefused { path: folder.checkpoints() }),
    }
}

#[cfg(test)]
mod tests;
