//! Steps, pairs and work of each stage, known before anything is built.

use std::num::NonZeroUsize;

use serde::Serialize;

use super::memory::{fused_on_gpu, Memory, Update};
use super::Recipe;
use crate::data::{DataConfig, ScenesConfig, SourceConfig};
use crate::duration::{Duration, DurationError, Length, Phase};
use crate::evaluator::EvaluatorConfig;
use crate::optimizer::{Frozen, OptimizerConfig};
use crate::train::{Stage, TrainingConfig};

/// Number of pairs in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epoch {
    /// A number that the recipe or the index of its data says.
    Samples(u64),
    /// The source is counted when it is opened.
    Counted,
    /// The source never ends.
    Endless,
}

impl Epoch {
    /// The epoch of the data, as far as the recipe tells.
    pub fn of(data: &DataConfig) -> Self {
        match (&data.epoch_samples, &data.train) {
            (Some(samples), _) => Epoch::Samples(samples.get()),
            (None, SourceConfig::Scenes(ScenesConfig { samples: Some(samples), .. })) => {
                Epoch::Samples(samples.get())
            }
            (None, SourceConfig::Scenes(_)) => Epoch::Endless,
            (None, source) => source.index().map_or(Epoch::Counted, |index| Epoch::Samples(index.samples())),
        }
    }

    /// A duration in steps of `batch` pairs; `None` where only the source can tell.
    pub fn steps(self, duration: Duration, batch: u64) -> Result<Option<f64>, DurationError> {
        match (self, duration) {
            (Epoch::Samples(samples), _) => duration.steps(batch, Some(samples)).map(Some),
            (Epoch::Counted, Duration::Epochs(_)) => Ok(None),
            (Epoch::Counted | Epoch::Endless, _) => duration.steps(batch, None).map(Some),
        }
    }

    /// A length in steps of `batch` pairs and `flop` operations; `None` where only the source can tell, or the clock.
    pub fn length(self, length: Length, batch: u64, flop: f64) -> Result<Option<f64>, DurationError> {
        match length.duration() {
            Some(duration) => self.steps(duration, batch),
            None => length.steps(batch, None, flop),
        }
    }

    /// A phase of a stage of `total` steps of `batch` pairs in steps; `None` where only the source or the clock can tell.
    pub fn phase(self, phase: Phase, batch: u64, total: Option<f64>) -> Result<Option<f64>, DurationError> {
        match (phase.duration(), total) {
            (Some(duration), _) => self.steps(duration, batch),
            (None, total) => {
                let steps = phase.steps(batch, None, total.unwrap_or_default() as u64)?;
                Ok(total.map(|_| steps))
            }
        }
    }
}

/// A stage in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StageForecast {
    /// A stage with masks.
    Pretrain(TrainingForecast),
    /// A stage of unmasked tuning.
    Unmask(TrainingForecast),
    /// A stage that evaluates.
    Evaluate {
        /// Name of each evaluation.
        evaluations: Vec<String>,
    },
}

impl StageForecast {
    /// Operations of the stage: none of an evaluation; `None` where only the source can tell.
    pub fn flops(&self) -> Option<f64> {
        match self {
            StageForecast::Pretrain(plan) | StageForecast::Unmask(plan) => plan.flops,
            StageForecast::Evaluate { .. } => Some(0.0),
        }
    }

    /// The forecast of its training; none of an evaluation.
    pub fn training(&self) -> Option<&TrainingForecast> {
        match self {
            StageForecast::Pretrain(plan) | StageForecast::Unmask(plan) => Some(plan),
            StageForecast::Evaluate { .. } => None,
        }
    }

    /// Operations of one of its steps, encoding twice included; 0 for an evaluation.
    pub fn flops_per_step(&self) -> f64 {
        match self {
            StageForecast::Pretrain(plan) | StageForecast::Unmask(plan) => {
                plan.flops_per_step + plan.flops_per_step_encoding_twice
            }
            StageForecast::Evaluate { .. } => 0.0,
        }
    }
}

/// A training stage in numbers; `None` where only the source can tell.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainingForecast {
    /// Updates.
    pub steps: Option<u64>,
    /// Pairs seen.
    pub samples: Option<f64>,
    /// Pairs of an update.
    pub batch: usize,
    /// Pairs encoded at a time.
    pub micro_batch: usize,
    /// Largest learning rate.
    pub peak_lr: f64,
    /// Steps; a fraction is possible.
    pub warmup_steps: Option<f64>,
    /// Steps at the end in which the learning rate falls, where the schedule says them.
    pub decay_steps: Option<f64>,
    /// Hours of training, where the stage has so many; its steps are known when it has begun.
    pub hours: Option<f64>,
    /// Parts of the model that do not learn.
    pub frozen: Vec<Frozen>,
    /// The stage goes on with the moments of the one before it.
    pub continues: bool,
    /// Side of the training images, pixels.
    pub image_size: usize,
    /// Patches of an image.
    pub patches: usize,
    /// Patches of an image that are encoded.
    pub kept_patches: usize,
    /// Tokens of a caption, padding included.
    pub tokens: usize,
    /// Tokens of a caption that are encoded.
    pub kept_tokens: usize,
    /// Forward and backward pass of one pair, encoded once.
    pub flops_per_pair: f64,
    /// The same for the batch.
    pub flops_per_step: f64,
    /// Additional work of a step whose batch is encoded in several micro-batches: each one first for the
    /// loss, and again for its gradient.
    pub flops_per_step_encoding_twice: f64,
    /// All steps, encoding twice included.
    pub flops: Option<f64>,
    /// Memory of a step, bytes.
    pub memory: Memory,
    /// Evaluations in the course of the stage.
    pub evaluations: Vec<String>,
    /// Steps between them; `None` where there are none, or only the source can tell.
    pub evaluate_every: Option<u64>,
}

/// Every stage of the recipe in numbers.
pub fn forecast(recipe: &Recipe) -> Vec<StageForecast> {
    let stage = |stage: &Stage| match stage {
        Stage::Pretrain(config) => StageForecast::Pretrain(training(recipe, &config.into())),
        Stage::Unmask(config) => StageForecast::Unmask(training(recipe, &config.into())),
        Stage::Evaluate(evaluators) => {
            StageForecast::Evaluate { evaluations: evaluators.iter().map(evaluation).collect() }
        }
    };
    recipe.stages.iter().map(stage).collect()
}

fn training(recipe: &Recipe, config: &TrainingConfig) -> TrainingForecast {
    let model = &recipe.model;
    let (batch, micro_batch) = (config.batch.get(), config.micro_batch.unwrap_or(config.batch).get());
    let image_size = config.image_size.map_or(model.image.size, NonZeroUsize::get);
    let grid = image_size / model.image.patch;
    let (kept_patches, kept_tokens) = config.kept(model);

    let epoch = Epoch::of(&recipe.data);
    let in_steps = |duration| epoch.steps(duration, batch as u64).ok().flatten();
    let flop = config.flops_per_step(model);
    let steps = epoch.length(config.length, batch as u64, flop).ok().flatten().map(f64::floor);
    let phase = |phase| epoch.phase(phase, batch as u64, steps).ok().flatten();
    let flops_per_pair = config.flops_per_pair(model);
    let flops_per_step = flops_per_pair * batch as f64;
    let encoding_twice = if micro_batch < batch {
        // The forward pass of both encoders, without the loss.
        model.flops_per_pair(kept_patches, kept_tokens, 0) / 3.0 * batch as f64
    } else {
        0.0
    };
    let periodic = config.evaluate.as_ref();
    let ema = config.ema.is_some();
    let update =
        Update { kept_patches, kept_tokens, batch, micro_batch, ema, frozen: config.frozen_towers() };
    TrainingForecast {
        steps: steps.map(|steps| steps as u64),
        samples: steps.map(|steps| steps * batch as f64),
        batch,
        micro_batch,
        peak_lr: config.schedule.lr().at(batch as u64),
        warmup_steps: phase(config.schedule.warmup()),
        decay_steps: config.schedule.decay().and_then(phase),
        hours: match config.length {
            Length::Hours(hours) => Some(hours),
            _ => None,
        },
        frozen: config.freeze.clone(),
        continues: config.optimizer == OptimizerConfig::Continue,
        image_size,
        patches: grid * grid,
        kept_patches,
        tokens: model.text.context,
        kept_tokens,
        flops_per_pair,
        flops_per_step,
        flops_per_step_encoding_twice: encoding_twice,
        flops: steps.map(|steps| steps * (flops_per_step + encoding_twice)),
        memory: match fused_on_gpu(recipe) {
            true => Memory::on_gpu(model, recipe.fusion(), &update),
            false => Memory::of(model, recipe.compute, recipe.fusion(), &update),
        },
        evaluations: periodic
            .iter()
            .flat_map(|periodic| periodic.evaluators.iter().map(evaluation))
            .collect(),
        evaluate_every: periodic.and_then(|periodic| in_steps(periodic.every)).map(|steps| steps as u64),
    }
}

fn evaluation(evaluator: &EvaluatorConfig) -> String {
    let evaluator = evaluator.evaluator();
    format!("{} {}", evaluator.kind().replace('_', "-"), evaluator.name())
}
