//! Stages as a recipe describes them.

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::{Duration, Length};
use crate::evaluator::EvaluatorConfig;
use crate::mask::{ImageMask, TextMask};
use crate::model::ModelConfig;
use crate::optimizer::{EmaConfig, Frozen, OptimizerConfig, ScheduleConfig};
use crate::parameter::Tower;
use crate::record::StageKind;

/// One step of a recipe, run in sequence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum Stage {
    /// Masked contrastive training.
    Pretrain(PretrainConfig),
    /// Short training without masks, closing the gap between masked training and unmasked use (section 3).
    Unmask(UnmaskConfig),
    /// Measurements.
    Evaluate(Vec<EvaluatorConfig>),
}

/// Evaluations in the course of training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename = "MeanwhileConfig")]
pub struct PeriodicEvaluationConfig {
    /// Between two rounds of evaluations, counted from the beginning of the stage.
    pub every: Duration,
    /// Evaluations of a round. Choose what is quick: training waits for it.
    pub evaluators: Vec<EvaluatorConfig>,
}

/// Declares the stages that train from one list of the fields that all of them have, given in two parts: before and after the
/// masks, in the order in which recipes are written. A field that is added here is in recipes, in their schema, and in
/// [`TrainingConfig`], from where code reads it.
macro_rules! training_stages {
    (
        { $($(#[$before_meta:meta])* $before:ident: $before_type:ty,)* }
        { $($(#[$after_meta:meta])* $after:ident: $after_type:ty,)* }
    ) => {
        /// Masked contrastive training.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct PretrainConfig {
            $($(#[$before_meta])* pub $before: $before_type,)*
            /// Patches that are dropped: `Random(0.5)` as the paper, or `Keep` to train without a mask, as CLIP. It has no
            /// default, because a recipe without it would train at twice the cost, or a model of another kind, without a word.
            pub image_mask: ImageMask,
            /// Tokens that are dropped.
            #[serde(default)]
            pub text_mask: TextMask,
            /// Side of the training images, pixels, where smaller than the model's (CLIPA). Positions follow.
            #[serde(default)]
            pub image_size: Option<NonZeroUsize>,
            $($(#[$after_meta])* pub $after: $after_type,)*
        }

        /// Training without masks. It has no mask field, so it cannot be masked.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct UnmaskConfig {
            $($(#[$before_meta])* pub $before: $before_type,)*
            $($(#[$after_meta])* pub $after: $after_type,)*
        }

        /// A stage that trains, of either kind: one without masks keeps everything.
        #[derive(Debug, Clone, PartialEq)]
        pub struct TrainingConfig {
            /// `Pretrain` or `Unmask`.
            pub kind: StageKind,
            /// As [`PretrainConfig::image_mask`].
            pub image_mask: ImageMask,
            /// As [`PretrainConfig::text_mask`].
            pub text_mask: TextMask,
            /// As [`PretrainConfig::image_size`].
            pub image_size: Option<NonZeroUsize>,
            $(#[doc = concat!("As [`PretrainConfig::", stringify!($before), "`].")] pub $before: $before_type,)*
            $(#[doc = concat!("As [`PretrainConfig::", stringify!($after), "`].")] pub $after: $after_type,)*
        }

        impl From<&PretrainConfig> for TrainingConfig {
            fn from(config: &PretrainConfig) -> TrainingConfig {
                TrainingConfig {
                    kind: StageKind::Pretrain,
                    image_mask: config.image_mask.clone(),
                    text_mask: config.text_mask.clone(),
                    image_size: config.image_size,
                    $($before: config.$before.clone(),)*
                    $($after: config.$after.clone(),)*
                }
            }
        }

        impl From<&UnmaskConfig> for TrainingConfig {
            fn from(config: &UnmaskConfig) -> TrainingConfig {
                TrainingConfig {
                    kind: StageKind::Unmask,
                    image_mask: ImageMask::Keep,
                    text_mask: TextMask::Keep,
                    image_size: None,
                    $($before: config.$before.clone(),)*
                    $($after: config.$after.clone(),)*
                }
            }
        }
    };
}

training_stages! {
    {
        /// Length of the stage.
        length: Length,
        /// Pairs of one update, all of which compete with each other.
        #[schemars(range(min = 1, max = 16_777_216))]
        batch: NonZeroUsize,
        /// Pairs encoded at a time; bounds memory, never changes the gradient. Default: the whole batch.
        #[serde(default)]
        #[schemars(range(min = 1, max = 16_777_216))]
        micro_batch: Option<NonZeroUsize>,
    }
    {
        /// Update rule of the parameters.
        #[serde(default)]
        optimizer: OptimizerConfig,
        /// Learning rate of each step.
        schedule: ScheduleConfig,
        /// Largest global norm of the gradient; larger ones are scaled down. Default: none, as the paper.
        #[serde(default)]
        #[schemars(range(min = 0.0))]
        clip_grad_norm: Option<f64>,
        /// Parts of the model that do not learn: they have no gradients, no moments and no backward pass. For weights that are good
        /// already, such as an image encoder that `init` brings (LiT). Default: none, all of the model learns.
        #[serde(default)]
        freeze: Vec<Frozen>,
        /// Average of the weights, over this stage and those before it that have one. Default: none, as the paper.
        #[serde(default)]
        ema: Option<EmaConfig>,
        /// Evaluations in the course of the stage. They change nothing that training computes.
        #[serde(default)]
        evaluate: Option<PeriodicEvaluationConfig>,
    }
}

impl TrainingConfig {
    /// Patches and tokens that a model's encoders get of a pair.
    pub fn kept(&self, model: &ModelConfig) -> (usize, usize) {
        let size = self.image_size.map_or(model.image.size, NonZeroUsize::get);
        (self.image_mask.kept(size / model.image.patch), self.text_mask.kept(model.text.context))
    }

    /// Towers that do not learn.
    pub fn frozen_towers(&self) -> Vec<Tower> {
        self.freeze.iter().map(|frozen| frozen.tower()).collect()
    }

    /// Floating-point operations of training on a pair, as [`ModelConfig::flops_per_pair`] counts them; of an encoder that does
    /// not learn, those of the forward pass.
    pub fn flops_per_pair(&self, model: &ModelConfig) -> f64 {
        let (patches, tokens) = self.kept(model);
        model.flops_per_pair_without(&self.frozen_towers(), patches, tokens, self.batch.get())
    }

    /// The same of an update.
    pub fn flops_per_step(&self, model: &ModelConfig) -> f64 {
        self.flops_per_pair(model) * self.batch.get() as f64
    }
}

impl Stage {
    /// The stage as one that trains; none for evaluations.
    pub fn training(&self) -> Option<TrainingConfig> {
        match self {
            Stage::Pretrain(config) => Some(config.into()),
            Stage::Unmask(config) => Some(config.into()),
            Stage::Evaluate(_) => None,
        }
    }

    /// Every evaluation of the stage, and where in it the list is.
    pub fn evaluators(&self) -> (&'static str, &[EvaluatorConfig]) {
        match self {
            Stage::Pretrain(PretrainConfig { evaluate: Some(periodic), .. })
            | Stage::Unmask(UnmaskConfig { evaluate: Some(periodic), .. }) => {
                (PERIODIC, &periodic.evaluators)
            }
            Stage::Pretrain(_) | Stage::Unmask(_) => (PERIODIC, &[]),
            Stage::Evaluate(evaluators) => ("", evaluators),
        }
    }

    /// As [`evaluators`](Self::evaluators), to be changed.
    pub fn evaluators_mut(&mut self) -> (&'static str, &mut [EvaluatorConfig]) {
        match self {
            Stage::Pretrain(PretrainConfig { evaluate: Some(periodic), .. })
            | Stage::Unmask(UnmaskConfig { evaluate: Some(periodic), .. }) => {
                (PERIODIC, &mut periodic.evaluators)
            }
            Stage::Pretrain(_) | Stage::Unmask(_) => (PERIODIC, &mut []),
            Stage::Evaluate(evaluators) => ("", evaluators),
        }
    }
}

/// Path of the evaluators in a stage that trains.
const PERIODIC: &str = ".evaluate.evaluators";
