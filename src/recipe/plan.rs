//! What each stage will do, in numbers, known before anything is built.

use std::num::NonZeroUsize;

use serde::Serialize;

use super::cost::{self, flops_per_pair, kept_patches, kept_tokens, Memory, Update};
use super::Recipe;
use crate::data::{DataConfig, ScenesConfig, SourceConfig};
use crate::duration::{Duration, DurationError};
use crate::evaluator::EvaluatorConfig;
use crate::mask::{ImageMask, TextMask};
use crate::optimizer::{PeakLr, ScheduleConfig};
use crate::stage::Stage;

/// How many pairs an epoch has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epoch {
    Samples(u64),
    /// The source is counted when it is opened.
    Counted,
    /// The source never ends.
    Endless,
}

impl Epoch {
    pub fn of(data: &DataConfig) -> Self {
        match (&data.epoch_samples, &data.train) {
            (Some(samples), _) => Epoch::Samples(samples.get()),
            (None, SourceConfig::Scenes(ScenesConfig { samples: Some(samples), .. })) => {
                Epoch::Samples(samples.get())
            }
            (None, SourceConfig::Scenes(_)) => Epoch::Endless,
            (None, SourceConfig::WebDataset(_) | SourceConfig::Folder(_)) => Epoch::Counted,
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
}

/// The learning rate at the end of the warm-up.
pub fn peak_lr(lr: PeakLr, batch: usize) -> f64 {
    match lr {
        PeakLr::Per256(base) => base * batch as f64 / 256.0,
        PeakLr::Absolute(lr) => lr,
    }
}

/// A stage in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StagePlan {
    Pretrain(TrainingPlan),
    Unmask(TrainingPlan),
    Evaluate { evaluations: Vec<String> },
}

/// A training stage in numbers; `None` where only the source can tell.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainingPlan {
    pub steps: Option<u64>,
    pub samples: Option<f64>,
    pub batch: usize,
    pub micro_batch: usize,
    pub peak_lr: f64,
    /// Steps; a fraction is possible.
    pub warmup_steps: Option<f64>,
    /// Side of the training pictures, pixels.
    pub image_size: usize,
    pub patches: usize,
    pub kept_patches: usize,
    pub tokens: usize,
    pub kept_tokens: usize,
    /// Forward and backward pass of one pair.
    pub flops_per_pair: f64,
    pub flops_per_step: f64,
    /// Besides: the first of two forward passes, where a batch is encoded in several micro-batches.
    pub flops_per_step_encoding_twice: f64,
    /// All steps, encoding twice included.
    pub flops: Option<f64>,
    pub memory: Memory,
}

/// Every stage of the recipe in numbers.
pub fn plan(recipe: &Recipe) -> Vec<StagePlan> {
    let keep = (&ImageMask::Keep, &TextMask::Keep);
    let stage = |stage: &Stage| match stage {
        Stage::Pretrain(config) => StagePlan::Pretrain(training(
            recipe,
            (config.length, config.batch, config.micro_batch),
            (&config.image_mask, &config.text_mask),
            config.image_size,
            &config.schedule,
        )),
        Stage::Unmask(config) => StagePlan::Unmask(training(
            recipe,
            (config.length, config.batch, config.micro_batch),
            keep,
            None,
            &config.schedule,
        )),
        Stage::Evaluate(evaluators) => {
            StagePlan::Evaluate { evaluations: evaluators.iter().map(evaluation).collect() }
        }
    };
    recipe.stages.iter().map(stage).collect()
}

fn training(
    recipe: &Recipe,
    (length, batch, micro_batch): (Duration, NonZeroUsize, Option<NonZeroUsize>),
    (image_mask, text_mask): (&ImageMask, &TextMask),
    image_size: Option<NonZeroUsize>,
    schedule: &ScheduleConfig,
) -> TrainingPlan {
    let model = &recipe.model;
    let (batch, micro_batch) = (batch.get(), micro_batch.unwrap_or(batch).get());
    let image_size = image_size.map_or(model.image.size, NonZeroUsize::get);
    let patches = (image_size / model.image.patch).pow(2);
    let (kept_patches, kept_tokens) =
        (kept_patches(image_mask, patches), kept_tokens(text_mask, model.text.context));

    let epoch = Epoch::of(&recipe.data);
    let in_steps = |duration| epoch.steps(duration, batch as u64).ok().flatten();
    let (lr, warmup) = match schedule {
        ScheduleConfig::Cosine(cosine) => (cosine.lr, cosine.warmup),
        ScheduleConfig::Constant(constant) => (constant.lr, constant.warmup),
    };
    let steps = in_steps(length).map(f64::floor);
    let flops_per_pair = flops_per_pair(model, kept_patches, kept_tokens, batch);
    let flops_per_step = flops_per_pair * batch as f64;
    let twice = if micro_batch < batch {
        cost::towers_forward_flops(model, kept_patches, kept_tokens) * batch as f64
    } else {
        0.0
    };
    let update = Update { kept_patches, kept_tokens, image_size, batch, micro_batch };
    TrainingPlan {
        steps: steps.map(|steps| steps as u64),
        samples: steps.map(|steps| steps * batch as f64),
        batch,
        micro_batch,
        peak_lr: peak_lr(lr, batch),
        warmup_steps: in_steps(warmup),
        image_size,
        patches,
        kept_patches,
        tokens: model.text.context,
        kept_tokens,
        flops_per_pair,
        flops_per_step,
        flops_per_step_encoding_twice: twice,
        flops: steps.map(|steps| steps * (flops_per_step + twice)),
        memory: cost::memory(model, recipe.precision, recipe.compute, &update),
    }
}

fn evaluation(evaluator: &EvaluatorConfig) -> String {
    match evaluator {
        EvaluatorConfig::ZeroShot(config) => format!("zero-shot {}", config.name),
        EvaluatorConfig::Retrieval(config) => format!("retrieval {}", config.name),
        EvaluatorConfig::HeldOutLoss(config) => format!("held-out loss {}", config.name),
    }
}
