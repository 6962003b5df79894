//! The training loop, for masked and unmasked stages alike.

use std::sync::Arc;
use std::time::Instant;

use crate::data::decode::Transform;
use crate::data::load::{first_captions_within, LabelFrom, Loader, LoaderOptions, Passes, Share, Skipped};
use crate::data::source::filter::Filter;
use crate::data::source::Order;
use crate::data::{Batch, Cursor};
use crate::mask::TokenFrequencies;
use crate::model::{GraphDevice, LossAndGradients, OwnParts, StepImages, TextInput};
use crate::optimizer::{clip_factor, global_norm, sharded_norm, AdamW, OptimizerConfig, OptimizerError};
use crate::ranks::{Kind, Owners, Parts, Shard};
use crate::record::StepMetrics;

use super::clock::Clock;
use super::evaluate::evaluate;
use super::inputs::{masked, patches, Part, StepInputs};
use super::plan::TrainingPlan;
use super::resumed::Resumed;
use super::training::Run;
use super::{Ended, StageError};

/// Captions that token frequencies are counted over.
const COUNTED_CAPTIONS: usize = 10_000;

/// Runs a training stage from the run's position to its end, or to an interruption. `resumed` is the checkpoint that the run
/// continues from, when that was taken within this stage.
pub fn train<D: GraphDevice>(
    run: &mut Run<'_, D>,
    plan: &TrainingPlan,
    resumed: Option<&Resumed>,
) -> Result<Ended, StageError> {
    let OptimizerConfig::AdamW(config) = &plan.optimizer;
    let owners = owners(run);
    if let (Some(owners), Shard::Masters, false) =
        (&owners, run.ranks_config.shard, run.model.is_shared_out())
    {
        run.model.share_out(run.ranks, owners)?;
    }
    let mut optimizer = match resumed {
        None => AdamW::new(config),
        Some(resumed) => resumed.optimizer(run.ranks, owners.as_ref(), config, &run.model)?,
    };
    let evaluate_every = meanwhile_steps(run, plan)?;
    // An evaluation that was interrupted is made up for; one that was not has its rows.
    if run.position.step > 0 && meanwhile(run, plan, evaluate_every)? == Ended::Interrupted {
        return Ok(Ended::Interrupted);
    }
    if run.position.step >= plan.steps {
        return Ok(Ended::Complete);
    }
    let frequencies = plan.text_mask.needs_frequencies().then(|| count_tokens(run)).transpose()?;
    let filter = Arc::new(Filter::open(&run.data.filter, run.train.as_ref())?);
    let stage = run.position.stage;
    let in_stage = |source| StageError::Parts { stage, source };
    let parts =
        Parts::of(run.ranks_config, plan.batch, run.parts.len().max(1), run.ranks).map_err(in_stage)?;
    let loading = LoaderOptions {
        source: run.train.clone(),
        order: Order::Shuffled { seed: run.seed },
        passes: Passes::Endless,
        share: Share { rank: 0, ranks: parts.count() as u64 },
        start: run.position.cursor,
        batch: parts.rows(),
        keep_partial: false,
        transform: Transform::Train { size: plan.image_size, augment: run.data.augment.clone() },
        patches: Some(patches(plan, run.model_config, run.seed)),
        tokenizer: run.tokenizer.clone(),
        context: run.model_config.text.context,
        label: LabelFrom::None,
        filter: Some(filter),
        limits: run.data.limits.clone(),
        workers: (run.workers() / parts.own().len()).max(1),
        stall_timeout: run.data.storage.stall_timeout(),
        seed: run.seed,
    };
    if run.parts.len() != parts.count() {
        // Parts that there were until now stood at different places only where samples were broken.
        run.position.cursor = run.parts.iter().fold(run.position.cursor, |at, &part| at.further(part));
        run.parts.clear();
    }
    let mut own = OwnLoaders::start(&loading, &parts, run.position.cursor, &run.parts)?;

    let every = run.metrics_config.every_steps.get();
    let checkpoint_every = checkpoint_steps(run, plan)?;
    let title = format!("{} {}", run.position.stage, plan.kind);
    let bar = run.progress.bar(&title, plan.steps * plan.batch as u64, "images");
    bar.start_at(run.position.step * plan.batch as u64);
    let began = Instant::now();
    let mut clock = Clock::start();
    // The next step's, where the model wants to know of it beforehand, or why there is none.
    let mut ahead: Option<Result<Ready, StageError>> = None;

    while run.position.step < plan.steps {
        let waiting = Instant::now();
        // Alone, nothing is loaded that an interruption would throw away.
        let stopped = run.ranks.count() == 1 && run.interrupted();
        let loaded = match ahead.take() {
            Some(loaded) => loaded,
            None => {
                let batches = if stopped { Ok(Vec::new()) } else { own.next() };
                clock.waited += waiting.elapsed().as_secs_f64();
                batches.map(|batches| ready(run, plan, frequencies.as_ref(), &parts, batches, 0))
            }
        };
        let reason = loaded.as_ref().err().map(ToString::to_string);
        let interrupted = match (run.agree(reason.as_deref()), loaded) {
            (Ok(true), Ok(_)) => None,
            (Ok(false), Ok(ready)) => Some(ready),
            (Err(error), _) | (_, Err(error)) => {
                // What has been trained stands, whatever has become of the data.
                if run.position.step > 0 {
                    save(run, &mut optimizer, owners.as_ref(), &own)?;
                }
                return Err(error);
            }
        };
        let Some(current) = interrupted else {
            save(run, &mut optimizer, owners.as_ref(), &own)?;
            return Ok(Ended::Interrupted);
        };

        let step = run.position.step;
        if run.position.global_step == 0 {
            let drawing = Instant::now();
            super::images::write(
                run,
                LoaderOptions { start: run.position.cursor, ..loading.clone() },
                &current.batches[0],
            )?;
            clock.leave_out(drawing.elapsed());
        }
        if run.model.listens() {
            if step + 1 < plan.steps {
                let waiting = Instant::now();
                let batches = own.next();
                clock.waited += waiting.elapsed().as_secs_f64();
                ahead =
                    Some(batches.map(|batches| ready(run, plan, frequencies.as_ref(), &parts, batches, 1)));
            }
            let next = ahead.as_ref().and_then(|next| next.as_ref().ok());
            run.model.announce(&current.images, next.map(|next| &next.images));
        }
        let update = loss_and_gradients(run, plan, &parts, owners.as_ref(), &current)?;
        let batches = current.into_batches();
        let norm = match &owners {
            None => global_norm(&run.model, &update.gradients).map_err(device)?,
            Some(owners) => sharded_norm(run.ranks, owners, &run.model, &update.gradients)?,
        };
        if !update.loss.is_finite() || !norm.is_finite() {
            return Err(StageError::NotFinite {
                stage: run.position.stage,
                kind: plan.kind,
                step,
                loss: update.loss,
                norm,
                first: batches.first().and_then(|batch| batch.keys.first()).cloned().unwrap_or_default(),
                last: batches.last().and_then(|batch| batch.keys.last()).cloned().unwrap_or_default(),
                saved: run.saved.clone(),
            });
        }
        let lr = plan.schedule.lr(step);
        let factor = plan.clip_grad_norm.map_or(1.0, |most| clip_factor(norm, most));
        match &owners {
            None => optimizer.update(&mut run.model, update.gradients, lr, factor)?,
            Some(owners) => {
                let model = &mut run.model;
                optimizer.update_sharded(run.ranks, owners, model, update.gradients, lr, factor)?;
            }
        }
        run.model.clip_logit_scale()?;

        run.position.step += 1;
        run.position.global_step += 1;
        run.position.samples += plan.batch as u64;
        own.used(&batches);
        let sent = run.ranks.traffic();
        tracing::trace!(
            target: "flip::ranks", step = step + 1,
            ring = sent.sent(Kind::Ring), exchange = sent.sent(Kind::Exchange),
            broadcast = sent.sent(Kind::Broadcast), gather = sent.sent(Kind::Gather),
            "bytes sent so far"
        );
        clock.end_step();

        let done = run.position.step;
        if done % every == 0 || done == plan.steps {
            let line = StepMetrics {
                stage: run.position.stage,
                step: done,
                samples: run.position.samples,
                loss: update.loss as f32,
                lr,
                logit_scale: update.logit_scale.exp() as f32,
                grad_norm: norm as f32,
            };
            let timing = clock.lap(run.position.stage, done, plan.batch, began.elapsed());
            if let Some(records) = &mut run.records {
                records.folder.still_there()?;
                records.metrics.append(&line)?;
                records.timing.append(&timing)?;
                records.events.scalars(
                    run.position.global_step,
                    &[
                        ("train/loss", line.loss),
                        ("train/lr", line.lr as f32),
                        ("train/logit_scale", line.logit_scale),
                        ("train/grad_norm", line.grad_norm),
                        ("speed/images_per_s", timing.images_per_s as f32),
                        ("speed/data_wait", timing.data_wait as f32),
                    ],
                )?;
            }
            bar.update(
                done * plan.batch as u64,
                format!("loss {:.4}  {} images/s", line.loss, crate::report::rate(timing.images_per_s)),
            );
            tracing::debug!(
                target: "flip::train", stage = line.stage, step = done, loss = line.loss, lr, norm,
                images_per_s = timing.images_per_s, data_wait = timing.data_wait, "step"
            );
        }
        if evaluate_every.is_some_and(|every| done % every == 0) {
            let ended = meanwhile(run, plan, evaluate_every);
            // What has been trained stands, whatever has become of an evaluation's data.
            if ended.as_ref().map_or_else(StageError::is_of_data, |ended| *ended == Ended::Interrupted) {
                save(run, &mut optimizer, owners.as_ref(), &own)?;
            }
            if ended? == Ended::Interrupted {
                return Ok(Ended::Interrupted);
            }
            clock.restart();
        }
        if done % checkpoint_every == 0 && done < plan.steps {
            save(run, &mut optimizer, owners.as_ref(), &own)?;
            clock.restart();
        }
    }
    save(run, &mut optimizer, owners.as_ref(), &own)?;
    let skipped = own.skipped();
    if skipped.total() > 0 {
        tracing::warn!(target: "flip::data", %skipped, "samples were left out in this stage");
    }
    bar.finish();
    Ok(Ended::Complete)
}

/// The loaders of the parts of this rank, and where they stand.
struct OwnLoaders {
    loaders: Vec<Loader>,
    /// Just past the last sample that was used, for each.
    cursors: Vec<Cursor>,
}

impl OwnLoaders {
    /// Starts each where its part left off, or where all parts begin.
    fn start(
        plan: &LoaderOptions,
        parts: &Parts,
        begin: Cursor,
        left_off: &[Cursor],
    ) -> Result<Self, StageError> {
        let mut own = OwnLoaders { loaders: Vec::new(), cursors: Vec::new() };
        for part in parts.own() {
            let share = Share { rank: part as u64, ..plan.share };
            let (share, start) = match left_off.get(part) {
                Some(&cursor) => (share.resumed(), cursor),
                None => (share, begin),
            };
            own.loaders.push(Loader::start(LoaderOptions { share, start, ..plan.clone() })?);
            own.cursors.push(start);
        }
        Ok(own)
    }

    /// The next batch of each part.
    fn next(&mut self) -> Result<Vec<Batch>, StageError> {
        self.loaders.iter_mut().map(|loader| loader.next()?.ok_or(StageError::NoMoreData)).collect()
    }

    /// These batches have been trained on.
    fn used(&mut self, batches: &[Batch]) {
        self.cursors = batches.iter().map(|batch| batch.cursor).collect();
    }

    fn skipped(&self) -> Skipped {
        let mut all = Skipped::default();
        self.loaders.iter().for_each(|loader| all.merge(loader.skipped().clone()));
        all
    }
}

/// The parameters whose state each rank keeps, where it is shared out.
fn owners<D: GraphDevice>(run: &Run<'_, D>) -> Option<Owners> {
    let lengths: Vec<usize> = run.model.parameters().iter().map(|parameter| parameter.len()).collect();
    let sharded = run.ranks_config.shard != Shard::Nothing && run.ranks.count() > 1;
    sharded.then(|| Owners::of(&lengths, run.ranks.count()))
}

/// Writes a checkpoint with the places of all parts.
fn save<D: GraphDevice>(
    run: &mut Run<'_, D>,
    optimizer: &mut AdamW<f32, D>,
    owners: Option<&Owners>,
    own: &OwnLoaders,
) -> Result<(), StageError> {
    let here = serde_json::to_vec(&own.cursors).map_err(StageError::json)?;
    let mut parts = Vec::new();
    for of_rank in run.ranks.gather(&here)? {
        let cursors: Vec<Cursor> = serde_json::from_slice(&of_rank).map_err(StageError::json)?;
        parts.extend(cursors);
    }
    if let [whole] = parts[..] {
        (run.position.cursor, run.parts) = (whole, Vec::new());
    } else {
        run.position.cursor = parts.iter().fold(run.position.cursor, |at, &part| at.further(part));
        run.parts = parts;
    }
    run.save(Some(optimizer), owners)
}

/// What this rank has of a batch, ready for the encoders: of each of its parts.
struct Ready {
    batches: Vec<Batch>,
    images: StepImages,
    texts: Vec<Vec<TextInput>>,
}

impl Ready {
    /// What it was made of; the rest is given up.
    fn into_batches(self) -> Vec<Batch> {
        self.batches
    }
}

/// Draws what the step sees that comes `after` this one.
fn ready<D: GraphDevice>(
    run: &Run<'_, D>,
    plan: &TrainingPlan,
    frequencies: Option<&TokenFrequencies>,
    parts: &Parts,
    batches: Vec<Batch>,
    after: u64,
) -> Ready {
    let (seed, step) = (run.seed, run.position.global_step + after);
    let inputs = parts.own().zip(&batches).map(|(index, batch)| {
        let part = Part { index, of: parts.count() };
        let StepInputs { images, texts } =
            masked(batch, part, plan, run.model_config, frequencies, seed, step);
        (images, texts)
    });
    let (images, texts): (Vec<_>, Vec<_>) = inputs.unzip();
    Ready { images: Arc::new(images), texts, batches }
}

/// Loss and gradients of a batch.
fn loss_and_gradients<D: GraphDevice>(
    run: &Run<'_, D>,
    plan: &TrainingPlan,
    parts: &Parts,
    owners: Option<&Owners>,
    Ready { images, texts, .. }: &Ready,
) -> Result<LossAndGradients<f32, D>, StageError> {
    if let ([images], [texts], 1) = (images.as_slice(), texts.as_slice(), parts.count()) {
        return Ok(run.model.loss_and_gradients(images, texts)?);
    }
    // A micro-batch is there to bound memory. Where it bounds nothing, encoding twice would be in vain.
    let keep = plan.micro_batch >= plan.batch || images.iter().map(Vec::len).sum::<usize>() == 1;
    let own = OwnParts { images, texts, owners, keep };
    Ok(run.model.loss_and_gradients_in_parts(run.ranks, parts, own)?)
}

/// Steps between two checkpoints, at least one.
fn checkpoint_steps<D: GraphDevice>(run: &Run<'_, D>, plan: &TrainingPlan) -> Result<u64, StageError> {
    let every = run.checkpoints.every;
    let epoch_samples = run.epoch_samples(&[every])?;
    let steps = every.steps(plan.batch as u64, epoch_samples).map_err(StageError::CheckpointEvery)?;
    Ok((steps as u64).max(1))
}

/// Steps between two rounds of evaluations, at least one; none where the stage has none.
fn meanwhile_steps<D: GraphDevice>(run: &Run<'_, D>, plan: &TrainingPlan) -> Result<Option<u64>, StageError> {
    let Some(config) = &plan.evaluate else { return Ok(None) };
    let steps = config.every.steps(plan.batch as u64, run.epoch_samples(&[config.every])?);
    let stage = run.position.stage;
    let steps = steps.map_err(|source| StageError::EvaluateEvery { stage, source })?;
    Ok(Some((steps as u64).max(1)))
}

/// The evaluations that are due at the position of the run and have not been made.
fn meanwhile<D: GraphDevice>(
    run: &mut Run<'_, D>,
    plan: &TrainingPlan,
    every: Option<u64>,
) -> Result<Ended, StageError> {
    match (&plan.evaluate, every) {
        (Some(config), Some(every)) if run.position.step.is_multiple_of(every) => {
            evaluate(run, &config.evaluators)
        }
        _ => Ok(Ended::Complete),
    }
}

fn device(error: impl std::fmt::Display) -> OptimizerError {
    OptimizerError::Device(error.to_string())
}

fn count_tokens<D: GraphDevice>(run: &Run<'_, D>) -> Result<TokenFrequencies, StageError> {
    let captions = first_captions_within(run.data.storage.stall_timeout(), &run.train, COUNTED_CAPTIONS)?;
    let mut rows = Vec::with_capacity(captions.len());
    for caption in &captions {
        let (mut tokens, length) = run.tokenizer.encode(caption, run.model_config.text.context)?;
        tokens.truncate(length);
        rows.push(tokens);
    }
    Ok(TokenFrequencies::count(rows))
}
