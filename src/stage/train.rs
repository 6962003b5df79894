//! The training loop, for masked and unmasked stages alike.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::checkpoint::Snapshot;
use crate::data::captions::first_captions_within;
use crate::data::filter::Filter;
use crate::data::loader::{LabelFrom, Loader, Passes, Plan};
use crate::data::share::Share;
use crate::data::source::Order;
use crate::data::transform::Transform;
use crate::log::{StepMetrics, StepTiming};
use crate::mask::TokenFrequencies;
use crate::model::GraphDevice;
use crate::optimizer::{clip_factor, global_norm, AdamW, OptimizerConfig, OptimizerError};

use super::evaluate::evaluate;
use super::inputs::{masked, patches};
use super::plan::TrainingPlan;
use super::training::{Run, OPTIMIZER};
use super::{Ended, StageError};

/// Captions that token frequencies are counted over.
const COUNTED_CAPTIONS: usize = 10_000;

/// Runs a training stage from the run's position to its end, or to an interruption. `resumed` holds the
/// optimizer's part of the checkpoint the run continues from, when that was taken within this stage.
pub fn train<D: GraphDevice>(
    run: &mut Run<'_, D>,
    plan: &TrainingPlan,
    resumed: Option<&Snapshot>,
) -> Result<Ended, StageError> {
    let OptimizerConfig::AdamW(config) = &plan.optimizer;
    let mut optimizer = match resumed {
        None => AdamW::new(config),
        Some(snapshot) => AdamW::import(config, &run.model.parameters(), snapshot.part(OPTIMIZER)?)?,
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
    let filter = Arc::new(Filter::open(&run.data.filter)?);
    let loading = Plan {
        source: run.train.clone(),
        order: Order::Shuffled { seed: run.seed },
        passes: Passes::Endless,
        share: Share::WHOLE,
        start: run.position.cursor,
        batch: plan.batch,
        keep_partial: false,
        transform: Transform::Train { size: plan.image_size, augment: run.data.augment.clone() },
        patches: Some(patches(plan, run.model_config, run.seed)),
        tokenizer: run.tokenizer.clone(),
        context: run.model_config.text.context,
        label: LabelFrom::None,
        filter: Some(filter),
        limits: run.data.limits.clone(),
        workers: run.workers(),
        patience: run.data.storage.patience(),
        seed: run.seed,
    };
    let mut loader = Loader::start(loading.clone())?;

    let every = run.metrics_config.every_steps.get();
    let checkpoint_every = checkpoint_steps(run, plan)?;
    let title = format!("{} {}", run.position.stage, plan.kind);
    let bar = run.progress.bar(&title, plan.steps * plan.batch as u64, "images");
    bar.start_at(run.position.step * plan.batch as u64);
    let began = Instant::now();
    let mut clock = Clock::start();

    while run.position.step < plan.steps {
        if run.interrupted() {
            run.save(Some(&mut optimizer))?;
            return Ok(Ended::Interrupted);
        }
        let waiting = Instant::now();
        let batch = match loader.next() {
            Ok(batch) => batch.ok_or(StageError::NoMoreData)?,
            Err(error) => {
                // What has been trained stands, whatever has become of the data.
                if run.position.step > 0 {
                    run.save(Some(&mut optimizer))?;
                }
                return Err(error.into());
            }
        };
        clock.waited += waiting.elapsed().as_secs_f64();

        let step = run.position.step;
        let inputs =
            masked(&batch, plan, run.model_config, frequencies.as_ref(), run.seed, run.position.global_step);
        if run.position.global_step == 0 {
            let drawing = Instant::now();
            super::pictures::write(run, loading.clone(), &batch)?;
            clock.started += drawing.elapsed();
        }
        let mut update = run.model.loss_and_gradients(&inputs.images, &inputs.texts)?;
        let norm = global_norm(&run.model, &mut update.gradients).map_err(device)?;
        if !update.loss.is_finite() || !norm.is_finite() {
            return Err(StageError::NotFinite {
                stage: run.position.stage,
                kind: plan.kind,
                step,
                loss: update.loss,
                norm,
                first: batch.keys.first().cloned().unwrap_or_default(),
                last: batch.keys.last().cloned().unwrap_or_default(),
                saved: run.saved.clone(),
            });
        }
        let lr = plan.schedule.lr(step);
        let factor = plan.clip_grad_norm.map_or(1.0, |most| clip_factor(norm, most));
        optimizer.update(&mut run.model, update.gradients, lr, factor)?;
        run.model.clip_logit_scale();

        run.position.step += 1;
        run.position.global_step += 1;
        run.position.samples += plan.batch as u64;
        run.position.cursor = batch.cursor;
        clock.steps += 1;

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
            run.metrics.append(&line)?;
            run.timing.append(&timing)?;
            run.events.scalars(
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
            bar.update(
                done * plan.batch as u64,
                &format!("loss {:.4}  {:.0} images/s", line.loss, timing.images_per_s),
            );
            tracing::debug!(
                target: "flip::train", stage = line.stage, step = done, loss = line.loss, lr, norm,
                images_per_s = timing.images_per_s, data_wait = timing.data_wait, "step"
            );
        }
        if evaluate_every.is_some_and(|every| done % every == 0) {
            if meanwhile(run, plan, evaluate_every)? == Ended::Interrupted {
                run.save(Some(&mut optimizer))?;
                return Ok(Ended::Interrupted);
            }
            clock = Clock::start();
        }
        if done % checkpoint_every == 0 && done < plan.steps {
            run.save(Some(&mut optimizer))?;
            clock = Clock::start();
        }
    }
    run.save(Some(&mut optimizer))?;
    let skipped = loader.skipped();
    if skipped.total() > 0 {
        tracing::warn!(target: "flip::data", %skipped, "samples were left out in this stage");
    }
    bar.finish();
    Ok(Ended::Complete)
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
    let captions = first_captions_within(run.data.storage.patience(), &run.train, COUNTED_CAPTIONS)?;
    let mut rows = Vec::with_capacity(captions.len());
    for caption in &captions {
        let (mut tokens, length) = run.tokenizer.encode(caption, run.model_config.text.context)?;
        tokens.truncate(length);
        rows.push(tokens);
    }
    Ok(TokenFrequencies::count(rows))
}

/// Time of training since the last logged step.
struct Clock {
    started: Instant,
    steps: u64,
    waited: f64,
}

impl Clock {
    fn start() -> Clock {
        Clock { started: Instant::now(), steps: 0, waited: 0.0 }
    }

    fn lap(&mut self, stage: usize, step: u64, batch: usize, elapsed: Duration) -> StepTiming {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        let steps = self.steps.max(1) as f64;
        let line = StepTiming {
            stage,
            step,
            images_per_s: steps * batch as f64 / seconds,
            data_wait: self.waited / seconds,
            step_ms: seconds * 1e3 / steps,
            elapsed_s: elapsed.as_secs_f64(),
        };
        *self = Clock::start();
        line
    }
}
