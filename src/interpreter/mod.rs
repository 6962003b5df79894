//! Runs a recipe: device, then stage after stage, from the start or from where a checkpoint left off.

mod share;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::{self, CheckpointError, Snapshot};
use crate::data::load::first_captions_within;
use crate::data::source::{FileList, Source};
use crate::data::storage::with_stall_timeout;
use crate::data::text::{Tokenizer, TokenizerConfig};
use crate::data::DataError;
use crate::device::{self, DeviceConfig};
use crate::log::Progress;
use crate::model::{machine_lacks, Flip, GraphDevice, ModelError};
#[cfg(all(feature = "mpi", feature = "cuda"))]
use crate::ranks::Nccl;
use crate::ranks::{self, Alone, Member, Ranks};
use crate::recipe::{Compute, Precision, Recipe};
use crate::record::{EvaluationRow, JsonLines, RecordError, RunFolder, RunFolderError};
use crate::report::EventWriter;
use crate::stage::evaluate::evaluate;
use crate::stage::identity::{is_a_place_of, Identity};
use crate::stage::plan::TrainingPlan;
use crate::stage::resumed::Resumed;
use crate::stage::train::train;
use crate::stage::training::{Position, Records, Run, State};
use crate::stage::{Ended, Stage, StageError};
use crate::trained::{tokenizer_of, TrainedError, Weights};

/// A run that could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum InterpreterError {
    #[error("{0}")]
    Device(String),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("data.train: {0}")]
    Train(DataError),
    #[error("model.text.tokenizer: {0}")]
    Tokenizer(#[from] DataError),
    #[error(
        "model.text.vocab_size is {expected}, but the tokenizer has {found} tokens; set it to {found} or more"
    )]
    Vocabulary { expected: usize, found: usize },
    #[error(
        "{path}: no usable checkpoint is left; all of them were refused. Start again with --restart, or restore one"
    )]
    AllRefused { path: PathBuf },
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("init: {0}")]
    Init(#[from] TrainedError),
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error(transparent)]
    RunFolder(#[from] RunFolderError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Report(#[from] crate::report::ReportError),
    #[error(transparent)]
    Ranks(#[from] crate::ranks::RanksError),
    #[error("rank 0 handed out what cannot be read: {0}")]
    Shared(String),
}

/// Where a recipe is computed, and why there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The ordinal of a GPU; `None` is the CPU.
    pub gpu: Option<usize>,
    pub why: String,
}

/// Where a run is made, by whom, and how it is watched.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// The processes of the run, of which this is one.
    pub ranks: &'a dyn Ranks,
    /// Of all of them, in order.
    pub members: &'a [Member],
    /// The run folder; `None` on other ranks than 0.
    pub folder: Option<&'a RunFolder>,
    pub progress: &'a Progress,
    pub interrupt: &'a AtomicBool,
}

impl Setting<'_> {
    /// This process among the members.
    fn here(&self) -> &Member {
        &self.members[self.ranks.rank()]
    }
}

/// As [`run`], in this process alone.
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
    run(
        recipe,
        from,
        &Setting { ranks: &ranks, members: &members, folder: Some(folder), progress, interrupt },
    )
}

/// Runs the recipe in its folder to the end, or to an interruption. Rank 0 says which checkpoint it goes on `from`, mostly
/// the [`newest`].
pub fn run(
    recipe: &Recipe,
    from: Option<Snapshot>,
    setting: &Setting<'_>,
) -> Result<Ended, InterpreterError> {
    let Place { gpu, why } = place(recipe)?;
    // Ranks of one machine share its GPUs out.
    let gpu = match (gpu, recipe.device) {
        (Some(_), DeviceConfig::Auto) => Some(device::gpu_of(setting.here().local)),
        (gpu, _) => gpu,
    };
    match gpu {
        None => {
            tracing::info!(target: "flip", "computing on the CPU: {why}");
            run_on(dfdx::tensor::Cpu::default(), recipe, from, setting)
        }
        #[cfg(feature = "cuda")]
        Some(ordinal) => {
            tracing::info!(target: "flip", "computing on GPU {ordinal}: {why}");
            let device = dfdx::tensor::Cuda::try_build(ordinal, recipe.seed).map_err(|error| {
                InterpreterError::Device(format!("GPU {ordinal} could not be set up: {error}"))
            })?;
            #[cfg(feature = "mpi")]
            if setting.ranks.count() > 1 {
                let ranks = Nccl::join(setting.ranks, ordinal)?;
                return run_on(device, recipe, from, &Setting { ranks: &ranks, ..*setting });
            }
            run_on(device, recipe, from, setting)
        }
        #[cfg(not(feature = "cuda"))]
        Some(_) => Err(InterpreterError::Device(device::NoGpu::NotBuilt.to_string())),
    }
}

/// Where the recipe is computed on this machine.
///
/// # Errors
/// This build or this machine cannot do what the recipe asks for; nothing was read or written.
pub fn place(recipe: &Recipe) -> Result<Place, InterpreterError> {
    if recipe.precision == Precision::Bf16 && recipe.compute == Compute::Reference {
        return Err(InterpreterError::Device(
            "precision: Bf16 needs compute: Fused; the composed graph computes in 32 bits (--set precision=F32)"
                .into(),
        ));
    }
    let cpu = |why: String| Ok(Place { gpu: None, why });
    match recipe.device {
        DeviceConfig::Cpu => cpu("the recipe says device: Cpu".into()),
        DeviceConfig::Cuda(ordinal) => {
            let gpu = device::gpu(ordinal).map_err(|why| {
                let advice = "use device: Auto or Cpu to compute on the CPU";
                InterpreterError::Device(format!("device: Cuda({ordinal}) is not available: {why}; {advice}"))
            })?;
            if let Some(problem) = refused(recipe, &gpu) {
                return Err(InterpreterError::Device(format!(
                    "device: Cuda({ordinal}): {problem}, or use device: Cpu"
                )));
            }
            Ok(Place { gpu: Some(ordinal), why: format!("the recipe asks for {gpu}") })
        }
        DeviceConfig::Auto => match device::gpus().as_deref() {
            Err(why) => cpu(why.to_string()),
            Ok([]) => cpu(device::NoGpu::None.to_string()),
            Ok([gpu, ..]) => match refused(recipe, gpu) {
                None => Ok(Place { gpu: Some(gpu.ordinal), why: format!("the driver offers {gpu}") }),
                Some(problem) => cpu(format!("{gpu} is there, but {problem}")),
            },
        },
    }
}

/// Why a GPU cannot compute a recipe, and what would change that; `None` where it can.
fn refused(recipe: &Recipe, gpu: &device::Gpu) -> Option<String> {
    const COMPOSED: &str = "set compute=Reference and precision=F32 for the composed graph";
    if recipe.compute == Compute::Reference {
        return None;
    }
    if recipe.precision == Precision::F32 {
        return Some(format!("{}; set precision=Bf16, or compute=Reference", ModelError::FusedF32OnGpu));
    }
    if gpu.capability < OLDEST {
        let (major, minor) = OLDEST;
        return Some(format!("compute: Fused needs compute capability {major}.{minor} or later; {COMPOSED}"));
    }
    let lack = machine_lacks(&recipe.model)?;
    Some(format!("{}; {COMPOSED}", ModelError::NoGpuKernels(lack)))
}

/// The oldest compute capability that has bfloat16 in its tensor cores.
const OLDEST: (i32, i32) = (8, 0);

fn run_on<D: GraphDevice>(
    device: D,
    recipe: &Recipe,
    from: Option<Snapshot>,
    setting: &Setting<'_>,
) -> Result<Ended, InterpreterError> {
    let &Setting { ranks, folder, progress, interrupt, .. } = setting;
    let train_source = recipe.data.open(&recipe.data.train, recipe.seed).map_err(InterpreterError::Train)?;
    let files = files_of(recipe, &train_source)?;
    share::same_data(ranks, &files)?;
    let resumed = Resumed::share(ranks, from)?;
    let mut identity = None;
    let tokenizer = match folder {
        Some(folder) => {
            if let Some(resumed) = &resumed {
                is_a_place_of(resumed, recipe.stages.len()).map_err(StageError::from)?;
            }
            let tokenizer = tokenizer(recipe, folder, &train_source, resumed.is_some())?;
            identity = Some(Identity::settle(folder, &files, resumed.as_ref())?);
            if let Some(name) = resumed.as_ref().and_then(|resumed| resumed.name) {
                // A process that ended between writing the last one and removing older ones left more than are kept.
                checkpoint::retain(&folder.checkpoints(), name, recipe.checkpoints.keep, &[])?;
            }
            Some(tokenizer)
        }
        None => None,
    };
    let tokenizer = share::tokenizer(ranks, tokenizer)?;
    let model = Flip::new(&device, &recipe.model, recipe.seed)?;
    let mut model = match recipe.compute {
        Compute::Reference => model,
        Compute::Fused => {
            let mut fusion = recipe.fusion();
            if setting.here().neighbours > 1 && fusion.threads.is_none() {
                fusion.threads =
                    NonZeroUsize::new(cores() / setting.here().neighbours).or(NonZeroUsize::new(1));
            }
            D::fuse(model, fusion)?
        }
    };
    let State { position, parts, .. } = begin(recipe, resumed.as_ref(), &mut model)?;
    model.share(ranks)?;
    ranks.expect_marks(Duration::from_secs(recipe.ranks.stall_limit_s.get()));
    let records = folder.map(|folder| records(folder, &position)).transpose()?;
    let mut run = Run {
        seed: recipe.seed,
        model_config: &recipe.model,
        data: &recipe.data,
        checkpoints: &recipe.checkpoints,
        metrics_config: &recipe.metrics,
        ranks,
        ranks_config: &recipe.ranks,
        neighbours: setting.here().neighbours,
        progress,
        interrupt,
        device,
        model,
        tokenizer: Arc::new(tokenizer),
        train: train_source,
        records,
        position,
        parts,
        identity,
        saved: resumed.as_ref().map(|resumed| resumed.path.clone()),
    };

    if run_stages(&mut run, recipe, resumed.as_ref())? == Ended::Interrupted {
        return Ok(Ended::Interrupted);
    }
    let version = concat!("flip ", env!("CARGO_PKG_VERSION"), "\n");
    if let Some(folder) = folder {
        folder.replace(&folder.complete(), version.as_bytes())?;
    }
    Ok(Ended::Complete)
}

/// Opens the files of the folder that grow, as long as they were at the position.
fn records<'a>(folder: &'a RunFolder, position: &Position) -> Result<Records<'a>, InterpreterError> {
    let mut rows = EvaluationRow::read_all(&folder.evaluations())?;
    rows.retain(|row| position.includes(row.stage, row.step));
    EvaluationRow::write_all(folder, &rows)?;
    Ok(Records {
        folder,
        metrics: JsonLines::open(&folder.metrics(), Some(position.metrics_bytes))?,
        timing: JsonLines::open(&folder.timing(), Some(position.timing_bytes))?,
        events: EventWriter::create(&folder.tensorboard(), position.global_step)?,
    })
}

/// Gives a model the weights that the run begins or goes on with; returns where it stands.
fn begin<D: GraphDevice>(
    recipe: &Recipe,
    resumed: Option<&Resumed>,
    model: &mut Flip<f32, D>,
) -> Result<State, InterpreterError> {
    if let Some(resumed) = resumed {
        resumed.weights(model)?;
        return Ok(resumed.state.clone());
    }
    if let Some(init) = &recipe.init {
        let weights = Weights::open(init.path())?;
        tracing::info!(target: "flip", checkpoint = %weights.checkpoint.display(), "starting from its weights");
        if let Some(note) = weights.start(model)? {
            tracing::info!(target: "flip", "{note}");
        }
    }
    Ok(State::default())
}

/// Runs the stages, from that of the run's position on. `resumed` is the checkpoint that it goes on from.
fn run_stages<D: GraphDevice>(
    run: &mut Run<'_, D>,
    recipe: &Recipe,
    resumed: Option<&Resumed>,
) -> Result<Ended, InterpreterError> {
    let Position { stage: first, step, .. } = run.position;
    for (index, stage) in recipe.stages.iter().enumerate().skip(first) {
        if index != run.position.stage {
            run.position = Position { stage: index, step: 0, ..run.position };
        }
        let resumed = resumed.filter(|_| index == first && step > 0);
        let at_stage = |source| StageError::Plan { stage: index, source };
        let ended = match stage {
            Stage::Pretrain(config) => {
                let durations = [config.length, config.schedule.warmup()];
                let epoch_samples = run.epoch_samples(&durations).map_err(InterpreterError::Train)?;
                let plan = TrainingPlan::pretrain(config, &recipe.model, epoch_samples).map_err(at_stage)?;
                train(run, &plan, resumed)?
            }
            Stage::Unmask(config) => {
                let durations = [config.length, config.schedule.warmup()];
                let epoch_samples = run.epoch_samples(&durations).map_err(InterpreterError::Train)?;
                let plan = TrainingPlan::unmask(config, &recipe.model, epoch_samples).map_err(at_stage)?;
                train(run, &plan, resumed)?
            }
            Stage::Evaluate(configs) => evaluate(run, configs)?,
        };
        if ended == Ended::Interrupted {
            return Ok(ended);
        }
    }
    Ok(Ended::Complete)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get())
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

/// The files of the training data.
fn files_of(recipe: &Recipe, train: &Arc<dyn Source>) -> Result<FileList, InterpreterError> {
    let (source, progress) = (train.clone(), train.progress());
    let list = move || FileList::of(&*source);
    let listed = with_stall_timeout(
        recipe.data.storage.stall_timeout(),
        &train.name(),
        "the sizes of its files",
        progress,
        list,
    );
    listed.and_then(|listed| listed).map_err(InterpreterError::Train)
}

/// The tokenizer of the run: the one saved in its folder, else that of the weights it starts from, else the
/// recipe's, which is saved there. Before anything is `trained` with it, one that is damaged is made anew.
fn tokenizer(
    recipe: &Recipe,
    folder: &RunFolder,
    train: &Arc<dyn Source>,
    trained: bool,
) -> Result<Tokenizer, InterpreterError> {
    let saved = folder.tokenizer();
    let text = &recipe.model.text;
    let kept = match saved.exists().then(|| Tokenizer::load(&saved)) {
        Some(Err(error)) if !trained => {
            tracing::warn!(target: "flip", "no checkpoint was written yet, so it is made anew: {error}");
            None
        }
        kept => kept.transpose()?,
    };
    let tokenizer = if let Some(kept) = kept {
        kept
    } else {
        let given = recipe.init.as_ref().map(|init| tokenizer_of(init.path(), &text.tokenizer));
        let tokenizer = match (given.transpose()?.flatten(), &text.tokenizer) {
            (Some(tokenizer), _) => tokenizer,
            (None, TokenizerConfig::Train(config)) => {
                let stall_timeout = recipe.data.storage.stall_timeout();
                let captions = first_captions_within(stall_timeout, train, config.captions)
                    .map_err(InterpreterError::Train)?;
                Tokenizer::train(captions.into_iter(), text.vocab_size)?
            }
            (None, config) => Tokenizer::open(config)?,
        };
        tokenizer.save(&saved)?;
        tokenizer
    };
    if tokenizer.vocab_size() > text.vocab_size {
        return Err(InterpreterError::Vocabulary {
            expected: text.vocab_size,
            found: tokenizer.vocab_size(),
        });
    }
    Ok(tokenizer)
}

#[cfg(test)]
mod tests;
