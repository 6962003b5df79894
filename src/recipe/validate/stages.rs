//! Batches, masks, durations and learning rates of the stages.

use std::num::NonZeroUsize;

use super::{evaluators, Findings};
use crate::duration::DurationError;
use crate::optimizer::{AdamWConfig, DecayShape, Frozen, OptimizerConfig, ScheduleConfig};
use crate::recipe::forecast::Epoch;
use crate::recipe::Recipe;
use crate::train::{PeriodicEvaluationConfig, PretrainConfig, Stage, TrainingConfig};

pub(super) fn validate(recipe: &Recipe, findings: &mut Findings) {
    if recipe.stages.is_empty() {
        let finding = findings.add("stages", "expected at least one stage, got none".into());
        finding.help("a stage is Pretrain(...), Unmask(...) or Evaluate([...])");
    }
    for (index, stage) in recipe.stages.iter().enumerate() {
        let path = format!("stages[{index}]");
        if let Stage::Pretrain(config) = stage {
            masks(recipe, config, &path, findings);
        }
        if let Some(config) = stage.training() {
            Training { config: &config, recipe, index, path: &path }.validate(findings);
            let before = recipe.stages[..index].iter().any(|stage| stage.training().is_some());
            if config.optimizer == OptimizerConfig::Continue && !before {
                let message = "Continue needs a stage before it that trains, got none".into();
                let finding = findings.add(&format!("{path}.optimizer"), message);
                finding.help("leave it out, or write AdamW(...)");
            }
        }
        if let Stage::Evaluate(list) = stage {
            evaluators::validate(recipe, list, &path, findings);
        }
    }
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

/// A stage that trains, of either kind, and where in the recipe it is.
#[derive(Clone, Copy)]
struct Training<'a> {
    config: &'a TrainingConfig,
    recipe: &'a Recipe,
    index: usize,
    path: &'a str,
}

impl Training<'_> {
    fn validate(self, findings: &mut Findings) {
        self.batches(findings);
        self.durations(findings);
        self.learning_rate(findings);
        self.optimizer(findings);
        self.freeze(findings);
        if let Some(decay) =
            self.config.ema.as_ref().map(|ema| ema.decay).filter(|decay| !(0.0..1.0).contains(decay))
        {
            let message = format!("expected 0 <= decay < 1, got {decay}");
            findings.add(&format!("{}.ema.decay", self.path), message);
        }
        if let Some(config) = &self.config.evaluate {
            self.evaluations(config, findings);
        }
    }

    /// Evaluations in the course of training: a list that is no list of a stage, and a time for it.
    fn evaluations(self, periodic: &PeriodicEvaluationConfig, findings: &mut Findings) {
        let Training { config, recipe, path, .. } = self;
        let batch = config.batch.get();
        let field = format!("{path}.evaluate.every");
        match Epoch::of(&recipe.data).steps(periodic.every, batch as u64) {
            Ok(Some(steps)) if steps < 1.0 => {
                let message = format!("expected at least one step of {batch} pairs, got {steps} steps");
                findings.add(&field, message).also(&format!("{path}.batch"), "pairs of a step");
            }
            Ok(_) => {}
            Err(error) => {
                findings.add(&field, error.to_string());
            }
        }
        let field = format!("{path}.evaluate.evaluators");
        evaluators::validate(recipe, &periodic.evaluators, &field, findings);
    }

    fn freeze(self, findings: &mut Findings) {
        let field = format!("{}.freeze", self.path);
        let frozen = &self.config.freeze;
        if frozen.contains(&Frozen::Image) && frozen.contains(&Frozen::Text) {
            let message = "Image and Text: only the logit scale would learn".into();
            findings.add(&field, message).help("freeze one of them");
        }
        let before = self.recipe.stages[..self.index].iter().rev().find_map(|stage| stage.training());
        if let (OptimizerConfig::Continue, Some(before)) = (&self.config.optimizer, before) {
            if frozen != &before.freeze {
                let message = format!(
                    "expected {:?}, as the stage before that Continue goes on with, got {frozen:?}",
                    before.freeze
                );
                let finding = findings.add(&field, message);
                finding
                    .help("what did not learn has no moments")
                    .also(&format!("{}.optimizer", self.path), "goes on");
            }
        }
    }

    fn optimizer(self, findings: &mut Findings) {
        let Training { config, path, .. } = self;
        if config.clip_grad_norm == Some(0.0) {
            let finding =
                findings.add(&format!("{path}.clip_grad_norm"), "expected clip_grad_norm > 0, got 0".into());
            finding.help("leave it out for no clipping");
        }
        let OptimizerConfig::AdamW(AdamWConfig { beta1, beta2, eps, weight_decay }) = &config.optimizer
        else {
            return;
        };
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

    fn batches(self, findings: &mut Findings) {
        let Training { config, recipe, path, .. } = self;
        let batch = config.batch.get();
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
        if let Some(lanes) = recipe.data.lanes.map(NonZeroUsize::get) {
            let parts = recipe.ranks.parts.map_or(1, NonZeroUsize::get);
            if !batch.is_multiple_of(lanes) {
                let message = format!("expected a divisor of the batch ({batch}), got {lanes}");
                let fitting = (lanes..=batch).find(|lanes| batch.is_multiple_of(*lanes)).unwrap_or(1);
                let finding = findings.add("data.lanes", message);
                finding.help(format!("{fitting} divides it")).also(&field, "the batch");
            } else if !lanes.is_multiple_of(parts) {
                let message = format!("expected a multiple of ranks.parts ({parts}), got {lanes}");
                findings.add("data.lanes", message).also("ranks.parts", "the parts");
            }
        }
        let Some(micro) = config.micro_batch.map(NonZeroUsize::get) else { return };
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

    fn durations(self, findings: &mut Findings) {
        let Training { config, recipe, path, .. } = self;
        let (epoch, batch) = (Epoch::of(&recipe.data), config.batch.get());
        let mut steps = |found: Result<Option<f64>, DurationError>, field: &str| {
            if let Err(error) = &found {
                let finding = findings.add(field, error.to_string());
                if *error == DurationError::UnknownEpoch {
                    finding.also("data.train", "this source has no end");
                }
            }
            found.ok().flatten()
        };
        let length_field = format!("{path}.length");
        // A mask that keeps nothing, or a model of impossible sizes, is told of elsewhere.
        let flop = config.flops_per_step(&recipe.model).max(1.0);
        let length = steps(epoch.length(config.length, batch as u64, flop), &length_field);
        let mut phases = vec![("warmup", config.schedule.warmup())];
        phases.extend(config.schedule.decay().map(|decay| ("decay", decay)));
        let phases = phases.into_iter().map(|(name, phase)| {
            let field = format!("{path}.schedule.{name}");
            let found = steps(epoch.phase(phase, batch as u64, length.map(f64::floor)), &field);
            (name, field, found)
        });
        let phases: Vec<_> = phases.collect();
        let every = steps(epoch.steps(recipe.checkpoints.every, batch as u64), "checkpoints.every");
        if let Some(length) = length.filter(|length| *length < 1.0) {
            let message = format!("expected at least one step of {batch} pairs, got {length} steps");
            findings.add(&length_field, message).also(&format!("{path}.batch"), "pairs of a step");
        }
        let mut taken = 0.0;
        for (name, field, steps) in phases {
            let Some((steps, length)) = steps.zip(length) else { continue };
            let message = match taken {
                0.0 => {
                    format!("expected at most the length of the stage ({length} steps), got {steps} steps")
                }
                before => format!(
                    "expected at most what the warm-up ({before} steps) leaves of the stage ({length} steps), got {steps} \
                     steps of {name}"
                ),
            };
            taken += steps;
            if taken > length {
                findings.add(&field, message).also(&length_field, "the length of the stage");
            }
        }
        let already = findings.0.iter().any(|violation| violation.path == super::parsed("checkpoints.every"));
        if every.is_some_and(|every| every < 1.0) && !already {
            findings.add("checkpoints.every", "expected at least one step, got none".into());
        }
    }

    fn learning_rate(self, findings: &mut Findings) {
        let Training { config, path, .. } = self;
        let floors: &[(&str, f64)] = match &config.schedule {
            ScheduleConfig::Cosine(cosine) => &[("warmup_lr", cosine.warmup_lr), ("min_lr", cosine.min_lr)],
            ScheduleConfig::WarmupStableDecay(decaying) => &[("min_lr", decaying.min_lr)],
            ScheduleConfig::Constant(_) => &[],
        };
        if let ScheduleConfig::WarmupStableDecay(decaying) = &config.schedule {
            if decaying.shape == DecayShape::Exponential && decaying.min_lr == 0.0 {
                let message = "an exponential decay never gets to 0: expected min_lr > 0, got 0".into();
                let finding = findings.add(&format!("{path}.schedule.min_lr"), message);
                finding.also(&format!("{path}.schedule.shape"), "the decay");
            }
        }
        let peak = config.schedule.lr().at(config.batch.get() as u64);
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
