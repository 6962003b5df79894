//! The training loop, for masked and unmasked stages alike.

use std::time::Instant;

use crate::data::Batch;
use crate::log::Bar;
use crate::model::{GraphDevice, ModelError};
use crate::optimizer::Average;
use crate::ranks::Kind;
use crate::record::StepMetrics;

use super::batches::{Batches, ReadyBatch};
use super::clock::Clock;
use super::error::{NotFinite, TrainError};
use super::evaluate::evaluate;
use super::learner::{Gradients, Learner};
use super::left_out::LeftOut;
use super::masks_image;
use super::plan::TrainingPlan;
use super::rank_reports::{RankReport, RankReports};
use super::resumed::Resumed;
use super::run::Run;
use super::state::Ended;

/// Runs a training stage from the run's position to its end, or to an interruption. `resumed` is the checkpoint that the run
/// continues from, when that was taken within this stage.
///
/// # Errors
/// A step, an evaluation, a checkpoint, or another rank fails. What was trained until then is saved where the model is good.
pub fn train<D: GraphDevice>(
    run: &mut Run<'_, D>,
    plan: &TrainingPlan,
    resumed: Option<&Resumed>,
) -> Result<Ended, TrainError> {
    let learner = Learner::new(run, plan, resumed)?;
    begin_average(run, plan)?;
    // An evaluation that was interrupted is made up for; one that was not has its rows.
    if run.state.position.step > 0 && evaluate_if_due(run, plan)? == Ended::Interrupted {
        return Ok(Ended::Interrupted);
    }
    if run.state.position.step >= plan.steps {
        run.moments = plan.rule.handed_on.then_some(learner.optimizer);
        return Ok(Ended::Complete);
    }
    Trainer::start(run, plan, learner)?.run()
}

/// A training stage while it runs.
struct Trainer<'t, 'r, D: GraphDevice> {
    run: &'t mut Run<'r, D>,
    plan: &'t TrainingPlan,
    batches: Batches<'t>,
    learner: Learner<D>,
    bar: Bar,
    clock: Clock,
    /// Of this rank on its last step.
    report: RankReport,
    /// Of all ranks since the last row.
    reports: RankReports,
}

/// Results of an update.
struct Update {
    /// Of the batch, before its update; nats.
    loss: f64,
    /// Logarithm of the factor on similarities, before the update.
    logit_scale: f64,
    /// Global L2 norm of the gradient, before clipping.
    norm: f64,
    /// Learning rate.
    lr: f64,
}

impl<'t, 'r, D: GraphDevice> Trainer<'t, 'r, D> {
    /// Starts to load data where the run stands.
    fn start(
        run: &'t mut Run<'r, D>,
        plan: &'t TrainingPlan,
        learner: Learner<D>,
    ) -> Result<Self, TrainError> {
        let left = plan.steps.saturating_sub(run.state.position.step);
        let batches = Batches::start(run, plan, Some(left))?;
        let position = &run.state.position;
        let total = plan.steps * plan.batch as u64;
        let bar = run.processes.progress.stage_bar(position.stage, plan.config.kind.name(), total, "images");
        bar.start_at(position.step * plan.batch as u64);
        let reports = RankReports::of(run.processes.members);
        let report = RankReport::default();
        Ok(Trainer { run, plan, batches, learner, bar, clock: Clock::start(), report, reports })
    }

    /// The loop.
    fn run(mut self) -> Result<Ended, TrainError> {
        while self.done() < self.plan.steps {
            let Some(batch) = self.next_batch()? else {
                self.save()?;
                return Ok(Ended::Interrupted);
            };
            let update = self.step(batch)?;
            if self.is_due(self.run.config.metrics.every_steps.get()) || self.done() == self.plan.steps {
                self.log(&update)?;
            }
            if self.plan.evaluate_every.is_some_and(|every| self.is_due(every))
                && self.evaluate()? == Ended::Interrupted
            {
                return Ok(Ended::Interrupted);
            }
            if self.is_due(self.plan.checkpoint_every) && self.done() < self.plan.steps {
                self.save()?;
                self.clock.restart();
            }
        }
        self.save()?;
        self.finish()?;
        Ok(Ended::Complete)
    }

    /// Updates of the stage that are done.
    fn done(&self) -> u64 {
        self.run.state.position.step
    }

    fn is_due(&self, every: u64) -> bool {
        self.done().is_multiple_of(every)
    }

    /// The batch of the next step, on which all ranks have agreed; none where one of them was interrupted.
    fn next_batch(&mut self) -> Result<Option<ReadyBatch>, TrainError> {
        // Alone, nothing is loaded that an interruption would throw away.
        if self.run.processes.alone() && self.run.processes.interrupted() {
            return Ok(None);
        }
        let loaded = self.batches.next(self.run, &mut self.clock);
        let reason = loaded.as_ref().err().map(ToString::to_string);
        let report = RankReport { data_s: self.clock.take_waited(), ..std::mem::take(&mut self.report) };
        let report = report.with_warnings();
        match (self.run.processes.agree(reason.as_deref(), &report), loaded) {
            (Ok(agreement), Ok(batch)) => {
                self.reports.add(agreement.reports);
                Ok(Some(batch).filter(|_| !agreement.interrupted))
            }
            (Err(error), _) | (_, Err(error)) => {
                // What has been trained stands, whatever has become of the data.
                if self.done() > 0 {
                    self.save()?;
                }
                Err(error)
            }
        }
    }

    /// Updates the model with a batch.
    fn step(&mut self, batch: ReadyBatch) -> Result<Update, TrainError> {
        if self.run.state.position.global_step == 0 {
            self.show_masks(&batch)?;
        }
        let more = self.done() + 1 < self.plan.steps;
        self.batches.announce(self.run, &mut self.clock, &batch, more);
        let Gradients { step, norm } = self.learner.gradients(self.run, self.plan, &self.batches, &batch)?;
        let (loss, logit_scale) = (step.loss, step.logit_scale);
        self.report.encode_s = step.seconds.encode;
        // The inputs are no longer needed, and take memory.
        let ReadyBatch { batches, .. } = batch;
        if !loss.is_finite() || !norm.is_finite() {
            return Err(self.not_finite(loss, norm, &batches));
        }
        let lr = self.plan.schedule.lr(self.done());
        self.learner.update(self.run, self.plan, step.gradients, norm, lr)?;
        self.run.model.clip_logit_scale()?;
        if let (Some(average), Some(config)) = (&mut self.run.ema, &self.plan.config.ema) {
            average.update(config, self.run.model.masters()).map_err(ModelError::device)?;
        }
        self.advance(&batches);
        Ok(Update { loss, logit_scale, norm, lr })
    }

    /// Draws the first training images beside what their masks leave.
    fn show_masks(&mut self, batch: &ReadyBatch) -> Result<(), TrainError> {
        let drawing = Instant::now();
        let loading = self.batches.loading_first(masks_image::SHOWN);
        masks_image::write(self.run, loading, &batch.batches[0])?;
        self.clock.leave_out(drawing.elapsed());
        Ok(())
    }

    fn not_finite(&self, loss: f64, norm: f64, batches: &[Batch]) -> TrainError {
        let first = batches.first().and_then(|batch| batch.keys.first());
        let last = batches.last().and_then(|batch| batch.keys.last());
        TrainError::NotFinite(Box::new(NotFinite {
            stage: self.run.state.position.stage,
            kind: self.plan.config.kind,
            step: self.done(),
            loss,
            norm,
            first: first.cloned().unwrap_or_default(),
            last: last.cloned().unwrap_or_default(),
            saved: self.run.newest_checkpoint.clone(),
        }))
    }

    /// Moves the position of the run behind a step.
    fn advance(&mut self, batches: &[Batch]) {
        let position = &mut self.run.state.position;
        position.step += 1;
        position.global_step += 1;
        position.samples += self.plan.batch as u64;
        self.batches.used(batches);
        let sent = self.run.processes.ranks.traffic();
        tracing::trace!(
            target: "flip::ranks", step = position.step,
            ring = sent.sent(Kind::Ring), exchange = sent.sent(Kind::Exchange),
            broadcast = sent.sent(Kind::Broadcast), gather = sent.sent(Kind::Gather),
            "bytes sent so far"
        );
        self.clock.end_step();
    }

    /// Records an update: a row of metrics and of timing, the progress bar, and a log line.
    fn log(&mut self, update: &Update) -> Result<(), TrainError> {
        let (step, batch) = (self.done(), self.plan.batch);
        let position = &self.run.state.position;
        let metrics = StepMetrics {
            stage: position.stage,
            step,
            samples: position.samples,
            loss: update.loss as f32,
            lr: update.lr,
            logit_scale: update.logit_scale.exp() as f32,
            grad_norm: update.norm as f32,
        };
        let mut timing = self.clock.lap(position.stage, step, batch);
        if !self.run.processes.alone() && self.run.recorder.is_some() {
            timing.ranks = self.reports.lap(timing.step_ms);
        }
        if let Some(recorder) = &mut self.run.recorder {
            recorder.step(position.global_step, &metrics, &timing)?;
        }
        self.bar.update(step * batch as u64, format!("loss {:.4}", metrics.loss));
        tracing::debug!(
            target: "flip::train", stage = metrics.stage, step, loss = metrics.loss, lr = update.lr,
            norm = update.norm, images_per_s = timing.images_per_s, data_wait = timing.data_wait, "step"
        );
        Ok(())
    }

    /// Makes the evaluations that are due.
    fn evaluate(&mut self) -> Result<Ended, TrainError> {
        let ended = evaluate_if_due(self.run, self.plan);
        // What has been trained stands, whatever has become of an evaluation's data.
        if ended.as_ref().map_or_else(TrainError::is_of_data, |ended| *ended == Ended::Interrupted) {
            self.save()?;
        }
        self.clock.restart();
        ended
    }

    /// Writes a checkpoint with the places of all lanes.
    fn save(&mut self) -> Result<(), TrainError> {
        self.batches.note_places(self.run.processes.ranks, &mut self.run.state)?;
        self.run.save(Some(&self.learner.optimizer), self.learner.owners.as_ref())
    }

    /// Tells of samples that were left out, by all ranks together, ends the progress bar, and hands the moments on where they
    /// are wanted.
    fn finish(self) -> Result<(), TrainError> {
        let left_out = LeftOut::of_all(self.run.processes.ranks, &self.batches.skipped())?;
        if !left_out.is_empty() && self.run.recorder.is_some() {
            tracing::warn!(target: "flip::data", skipped = %left_out, "samples were left out in this stage");
        }
        self.bar.finish();
        self.run.moments = self.plan.rule.handed_on.then_some(self.learner.optimizer);
        Ok(())
    }
}

/// Has an average of the weights where the stage has one: the one that there is, or one that begins with the weights.
fn begin_average<D: GraphDevice>(run: &mut Run<'_, D>, plan: &TrainingPlan) -> Result<(), TrainError> {
    let masters = run.model.masters();
    let average = run.ema.take().filter(|_| plan.config.ema.is_some());
    run.ema = average.or_else(|| plan.config.ema.is_some().then(|| Average::new(masters.clone(), 0)));
    if let Some(average) = &mut run.ema {
        average.follow(masters).map_err(ModelError::device)?;
    }
    Ok(())
}

/// Makes the evaluations that are due at the position of the run and have not been made.
fn evaluate_if_due<D: GraphDevice>(run: &mut Run<'_, D>, plan: &TrainingPlan) -> Result<Ended, TrainError> {
    match (&plan.config.evaluate, plan.evaluate_every) {
        (Some(periodic), Some(every)) if run.state.position.step.is_multiple_of(every) => {
            evaluate(run, &periodic.evaluators)
        }
        _ => Ok(Ended::Complete),
    }
}
