//! Everything that a run needs before its first stage: data, tokenizer, identity, model, weights, open files.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::{self, Snapshot};
use crate::data::load::first_captions_within;
use crate::data::source::FileList;
use crate::data::source::Source;
use crate::data::storage::with_stall_timeout;
use crate::data::text::{Tokenizer, TokenizerConfig};
use crate::model::{Flip, GraphDevice};
use crate::recipe::forecast::{forecast, StageForecast};
use crate::recipe::{Compute, Recipe};
use crate::record::RunFolder;
use crate::train::identity::{Identity, TrainingData};
use crate::train::lanes::LaneCursors;
use crate::train::resumed::Resumed;
use crate::train::{Processes, Recorder, Run, RunConfig, State, TrainError};
use crate::trained::{tokenizer_of, Weights};

use super::environment::Environment;
use super::error::InterpreterError;
use super::place::place;
use super::{index, process, share};

/// Makes a run of a recipe: as it begins, or as it was at the checkpoint of rank 0.
pub(super) fn start<'a, D: GraphDevice>(
    device: &D,
    recipe: &'a Recipe,
    from: Option<Snapshot>,
    environment: &Environment<'a>,
) -> Result<(Run<'a, D>, Option<Resumed>), InterpreterError> {
    let &Environment { ranks, folder, progress, interrupt, .. } = environment;
    let source = recipe.data.open(&recipe.data.train, recipe.seed).map_err(InterpreterError::Train)?;
    progress.expect(forecast(recipe).iter().map(StageForecast::flops).collect());
    if let Some(folder) = folder {
        process::record(folder, recipe, &*source, place(recipe)?.gpu, environment.members.len())?;
    }
    let files = files_of(recipe, &source, ranks.count() > 1)?;
    share::same_data(ranks, &files)?;
    let resumed = Resumed::share(ranks, from)?;
    let several = has_lanes(recipe, environment, resumed.as_ref());
    let index = index::settle((&recipe.data, recipe.seed), &source, several, environment)?;
    let data = TrainingData { files: &files, index: index.as_ref() };
    let settled = folder.map(|folder| settle(recipe, folder, &source, data, resumed.as_ref())).transpose()?;
    let (tokenizer, identity) = settled.unzip();
    let tokenizer = Arc::new(share::tokenizer(ranks, tokenizer)?);
    let mut model = model(device, recipe, environment)?;
    let state = State { identity, ..begin(recipe, resumed.as_ref(), &mut model)? };
    model.broadcast_from_first(ranks)?;
    let ema = resumed.as_ref().map(|resumed| resumed.average(ranks, &model)).transpose()?.flatten();
    ranks.expect_marks(Duration::from_secs(recipe.ranks.stall_limit_s.get()));
    let recorder = folder.map(|folder| Recorder::open(folder, &state.position)).transpose()?;
    let cores = environment.here().cores;
    let run = Run {
        config: RunConfig {
            seed: recipe.seed,
            model: &recipe.model,
            data: &recipe.data,
            checkpoints: &recipe.checkpoints,
            metrics: &recipe.metrics,
            ranks: &recipe.ranks,
        },
        processes: Processes { ranks, members: environment.members, cores, progress, interrupt },
        source,
        tokenizer,
        model,
        moments: None,
        ema,
        state,
        newest_checkpoint: resumed.as_ref().map(|resumed| resumed.path.clone()),
        recorder,
    };
    Ok((run, resumed))
}

/// Tokenizer and identity of the run in a folder. A checkpoint that it goes on from has to be of this run.
fn settle(
    recipe: &Recipe,
    folder: &RunFolder,
    source: &Arc<dyn Source>,
    data: TrainingData<'_>,
    resumed: Option<&Resumed>,
) -> Result<(Tokenizer, Identity), InterpreterError> {
    if let Some(resumed) = resumed {
        resumed.check_place(recipe.stages.len()).map_err(TrainError::from)?;
    }
    let tokenizer = tokenizer(recipe, folder, source, resumed.is_some())?;
    let identity =
        Identity::settle(folder, data, resumed.map(Resumed::identity)).map_err(TrainError::from)?;
    if let Some(name) = resumed.and_then(|resumed| resumed.name) {
        // A process that ended between writing the last one and removing older ones left more than are kept.
        checkpoint::retain(&folder.checkpoints(), name, recipe.checkpoints.keep, &[])?;
    }
    Ok((tokenizer, identity))
}

/// True if the training data may have to be cut into several lanes, for which its samples are counted.
fn has_lanes(recipe: &Recipe, environment: &Environment<'_>, resumed: Option<&Resumed>) -> bool {
    let state = resumed.map(|resumed| &resumed.state);
    let so_far = state.and_then(|state| state.lanes.as_ref()).map_or(1, LaneCursors::count);
    let counted = state.and_then(|state| state.identity.as_ref()).is_some_and(|known| known.index.is_some());
    let given = [recipe.data.lanes, recipe.ranks.parts].into_iter().flatten().map(NonZeroUsize::get);
    let most = given.chain([environment.ranks.count(), so_far]).max();
    let turns = state.is_some_and(State::is_without_lanes);
    !turns && (counted || most > Some(1))
}

/// The files of the training data; where several ranks compare them, `marked`.
fn files_of(recipe: &Recipe, source: &Arc<dyn Source>, marked: bool) -> Result<FileList, InterpreterError> {
    let (listed, progress) = (source.clone(), source.progress());
    let list = move || match FileList::of(&*listed) {
        Ok(list) if marked => list.marked(&*listed),
        list => list,
    };
    let timeout = recipe.data.storage.stall_timeout();
    let listed = with_stall_timeout(timeout, &source.name(), "the sizes of its files", progress, list);
    listed.and_then(|listed| listed).map_err(InterpreterError::Train)
}

/// The tokenizer of the run: the one saved in its folder, else that of the weights it starts from, else the
/// recipe's, which is saved there. Before anything is `trained` with it, one that is damaged is made anew.
fn tokenizer(
    recipe: &Recipe,
    folder: &RunFolder,
    source: &Arc<dyn Source>,
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
    let tokenizer = match kept {
        Some(kept) => kept,
        None => {
            let made = new_tokenizer(recipe, source)?;
            made.save(&saved)?;
            made
        }
    };
    let (expected, found) = (text.vocab_size, tokenizer.vocab_size());
    match found > expected {
        true => Err(InterpreterError::Vocabulary { expected, found }),
        false => Ok(tokenizer),
    }
}

/// The tokenizer of the weights that a recipe starts from, or its own.
fn new_tokenizer(recipe: &Recipe, source: &Arc<dyn Source>) -> Result<Tokenizer, InterpreterError> {
    let text = &recipe.model.text;
    let given = recipe.init.as_ref().map(|init| tokenizer_of(init.path(), &text.tokenizer));
    match (given.transpose()?.flatten(), &text.tokenizer) {
        (Some(tokenizer), _) => Ok(tokenizer),
        (None, TokenizerConfig::Train(config)) => {
            let timeout = recipe.data.storage.stall_timeout();
            let captions = first_captions_within(timeout, source, config.captions);
            let captions = captions.map_err(InterpreterError::Train)?;
            Ok(Tokenizer::train(captions.into_iter(), text.vocab_size)?)
        }
        (None, config) => Ok(Tokenizer::open(config)?),
    }
}

/// A model with random weights, on the encoders that the recipe asks for.
fn model<D: GraphDevice>(
    device: &D,
    recipe: &Recipe,
    environment: &Environment<'_>,
) -> Result<Flip<f32, D>, InterpreterError> {
    let model = Flip::new(device, &recipe.model, recipe.seed)?;
    match recipe.compute {
        Compute::Reference => Ok(model),
        Compute::Fused => {
            let mut fusion = recipe.fusion();
            fusion.threads = fusion.threads.or(NonZeroUsize::new(environment.here().cores));
            Ok(D::fuse(model, fusion)?)
        }
    }
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
