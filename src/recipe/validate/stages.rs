//! Batches, masks, durations and learning rates of the stages.

use std::num::NonZeroUsize;

use super::{evaluators, Findings};
use crate::duration::{Duration, DurationError};
use crate::optimizer::{AdamWConfig, OptimizerConfig, ScheduleConfig};
use crate::recipe::forecast::Epoch;
use crate::recipe::Recipe;
use crate::stage::{MeanwhileConfig, PretrainConfig, Stage, UnmaskConfig};

pub(super) fn validate(recipe: &Recipe, findings: &mut Findings) {
    if recipe.stages.is_empty() {
        let finding = findings.add("stages", "expected at least one stage, got none".into());
        finding.help("a stage is Pretrain(...), Unmask(...) or Evaluate([...])");
    }
    let epoch = Epoch::of(&recipe.data);
    for (index, stage) in recipe.stages.iter().enumerate() {
        let path = format!("stages[{index}]");
        match stage {
            Stage::Pretrain(config) => {
                masks(recipe, config, &path, findings);
                Updates::from(config).validate(recipe, epoch, &path, findings);
            }
            Stage::Unmask(config) => Updates::from(config).validate(recipe, epoch, &path, findings),
            Stage::Evaluate(list) => evaluators::validate(recipe, list, &path, findings),
        }
    }
}

/// Evaluations in the course of training: a list that is no list of a stage, and a time for it.
fn meanwhile(
    recipe: &Recipe,
    meanwhile: &MeanwhileConfig,
    (epoch, batch): (Epoch, usize),
    path: &str,
    findings: &mut Findings,
) {
    let field = format!("{path}.evaluate.every");
    match epoch.steps(meanwhile.every, batch as u64) {
        Ok(Some(steps)) if steps < 1.0 => {
            let message = format!("expected at least one step of {batch} pairs, got {steps} steps");
            findings.add(&field, message).also(&format!("{path}.batch"), "pairs of a step");
        }
        Ok(_) => {}
        Err(error) => {
            findings.add(&field, error.to_string());
        }
    }
    evaluators::validate(recipe, &meanwhile.evaluators, &format!("{path}.evaluate.evaluators"), findings);
}

fn masks(recipe: &Recipe, config: &PretrainConfig, path: &str, findings: &mut Findings) {
    let image = &recipe.model.image;
    let size = config.image_size.map_or(image.size, NonZeroUsize::get);
    if let Some(size) = config.image_size.map(NonZeroUsize::get) {
        let field = format!("{path}.image_size");
        if size % image.patch != 0 {
            let message = format!("expected a multiple of the patch ({}), got {size}", image.patch);
            findings.add(&field, message).also("model.image.patch", "the patch");
        }
        if size > image.size {
            let message = format!("expected at most the size of the model ({}), got {size}", image.size);
            findings.add(&field, message).also("model.image.size", "the size of the model");
        }
    }
    let grid = size / image.patch;
    if grid > 0 && config.image_mask.kept(grid) == 0 {
        let message = format!("keeps none of the {} patches; at least one must stay", grid * grid);
        findings.add(&format!("{path}.image_mask"), message).help("lower the ratio");
    }
    let context = recipe.model.text.context;
    if config.text_mask.kept(context) == 0 {
        let message = format!("keeps none of the {context} tokens; at least one must stay");
        findings.add(&format!("{path}.text_mask"), message).help("lower the ratio");
    }
}

/// Fields that the two training stages share.
struct Updates<'a> {
    length: Duration,
    batch: usize,
    micro_batch: Option<usize>,
    optimizer: &'a OptimizerConfig,
    schedule: &'a ScheduleConfig,
    clip_grad_norm: Option<f64>,
    evaluate: Option<&'a MeanwhileConfig>,
}

impl<'a> From<&'a PretrainConfig> for Updates<'a> {
    fn from(config: &'a PretrainConfig) -> Self {
        Updates {
            length: config.length,
            batch: config.batch.get(),
            micro_batch: config.micro_batch.map(NonZeroUsize::get),
            optimizer: &config.optimizer,
            schedule: &config.schedule,
            clip_grad_norm: config.clip_grad_norm,
            evaluate: config.evaluate.as_ref(),
        }
    }
}

impl<'a> From<&'a UnmaskConfig> for Updates<'a> {
    fn from(config: &'a UnmaskConfig) -> Self {
        Updates {
            length: config.length,
            batch: config.batch.get(),
            micro_batch: config.micro_batch.map(NonZeroUsize::get),
            optimizer: &config.optimizer,
            schedule: &config.schedule,
            clip_grad_norm: config.clip_grad_norm,
            evaluate: config.evaluate.as_ref(),
        }
    }
}

impl Updates<'_> {
    fn validate(&self, recipe: &Recipe, epoch: Epoch, path: &str, findings: &mut Findings) {
        self.batches(recipe, path, findings);
        self.durations(recipe, epoch, path, findings);
        self.learning_rate(path, findings);
        self.optimizer(path, findings);
        if let Some(config) = self.evaluate {
            meanwhile(recipe, config, (epoch, self.batch), path, findings);
        }
    }

    fn optimizer(&self, path: &str, findings: &mut Findings) {
        if self.clip_grad_norm == Some(0.0) {
            let finding =
                findings.add(&format!("{path}.clip_grad_norm"), "expected clip_grad_norm > 0, got 0".into());
            finding.help("leave it out for no clipping");
        }
        let OptimizerConfig::AdamW(AdamWConfig { beta1, beta2, eps, weight_decay }) = self.optimizer;
        for (name, value) in [("beta1", *beta1), ("beta2", *beta2)] {
            if !(0.0..1.0).contains(&value) {
                let message = format!("expected 0 <= {name} < 1, got {value}");
                findings.add(&format!("{path}.optimizer.{name}"), message);
            }
        }
        if *eps <= 0.0 {
            findings.add(&format!("{path}.optimizer.eps"), format!("expected eps > 0, got {eps}"));
        }
        if *weight_decay < 0.0 {
            let message = format!("expected weight_decay >= 0, got {weight_decay}");
            findings.add(&format!("{path}.optimizer.weight_decay"), message);
        }
    }

    fn batches(&self, recipe: &Recipe, path: &str, findings: &mut Findings) {
        let batch = self.batch;
        let field = format!("{path}.batch");
        if batch < 2 {
            let message = format!("expected batch >= 2, got {batch}");
            findings.add(&field, message).help("a pair is told from the others of its batch");
        }
        if let Some(parts) =
            recipe.ranks.parts.map(NonZeroUsize::get).filter(|parts| !batch.is_multiple_of(*parts))
        {
            let message = format!("expected a divisor of the batch ({batch}), got {parts}");
            let fitting = (parts..=batch).find(|parts| batch.is_multiple_of(*parts)).unwrap_or(1);
            let finding = findings.add("ranks.parts", message);
            finding.help(format!("{fitting} divides it")).also(&field, "the batch");
        }
        let Some(micro) = self.micro_batch else { return };
        if !batch.is_multiple_of(micro) {
            let message = format!("expected a divisor of the batch ({batch}), got {micro}");
            let fitting =
                (1..=micro.min(batch)).rev().find(|micro| batch.is_multiple_of(*micro)).unwrap_or(1);
            findings
                .add(&format!("{path}.micro_batch"), message)
                .help(format!("{fitting} divides it"))
                .also(&field, "the batch");
        }
    }

    fn durations(&self, recipe: &Recipe, epoch: Epoch, path: &str, findings: &mut Findings) {
        let mut steps = |duration: Duration, field: &str| {
            let found = epoch.steps(duration, self.batch as u64);
            if let Err(error) = &found {
                let finding = findings.add(field, error.to_string());
                if *error == DurationError::UnknownEpoch {
                    finding.also("data.train", "this source has no end");
                }
            }
            found.ok().flatten()
        };
        let length = steps(self.length, &format!("{path}.length"));
        let warmup_field = format!("{path}.schedule.warmup");
        let warmup = match self.schedule {
            ScheduleConfig::Cosine(cosine) => steps(cosine.warmup, &warmup_field),
            ScheduleConfig::Constant(constant) => steps(constant.warmup, &warmup_field),
        };
        let every = steps(recipe.checkpoints.every, "checkpoints.every");
        if let Some(length) = length.filter(|length| *length < 1.0) {
            let message = format!("expected at least one step of {} pairs, got {length} steps", self.batch);
            findings
                .add(&format!("{path}.length"), message)
                .also(&format!("{path}.batch"), "pairs of a step");
        }
        if let Some((warmup, length)) = warmup.zip(length).filter(|(warmup, length)| warmup > length) {
            let message =
                format!("expected at most the length of the stage ({length} steps), got {warmup} steps");
            findings.add(&warmup_field, message).also(&format!("{path}.length"), "the length of the stage");
        }
        let already = findings.0.iter().any(|violation| violation.path == super::parsed("checkpoints.every"));
        if every.is_some_and(|every| every < 1.0) && !already {
            findings.add("checkpoints.every", "expected at least one step, got none".into());
        }
    }

    fn learning_rate(&self, path: &str, findings: &mut Findings) {
        let (lr, floors): (_, &[(&str, f64)]) = match self.schedule {
            ScheduleConfig::Cosine(cosine) => {
                (cosine.lr, &[("warmup_lr", cosine.warmup_lr), ("min_lr", cosine.min_lr)])
            }
            ScheduleConfig::Constant(constant) => (constant.lr, &[]),
        };
        let peak = lr.at(self.batch as u64);
        let field = format!("{path}.schedule.lr");
        if peak == 0.0 {
            findings.add(&field, "expected a learning rate above 0, got 0: nothing would be learned".into());
        }
        for (name, value) in floors {
            if *value < 0.0 {
                let message = format!("expected {name} >= 0, got {value}");
                findings.add(&format!("{path}.schedule.{name}"), message);
            }
            if *value > peak {
                let message =
                    format!("expected at most the peak of the learning rate ({peak:e}), got {value:e}");
                findings.add(&format!("{path}.schedule.{name}"), message).also(&field, "the peak");
            }
        }
    }
}
