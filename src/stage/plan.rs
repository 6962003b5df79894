//! What a training stage does, with every duration in steps and every default filled in.

use crate::duration::{Duration, DurationError};
use crate::mask::{ImageMask, TextMask};
use crate::model::ModelConfig;
use crate::optimizer::{OptimizerConfig, Schedule, ScheduleConfig, ScheduleError};

use super::{MeanwhileConfig, PretrainConfig, UnmaskConfig};

/// A training stage, ready to run.
#[derive(Debug, Clone)]
pub struct TrainingPlan {
    /// `pretrain` or `unmask`.
    pub kind: &'static str,
    /// Updates of the stage.
    pub steps: u64,
    /// Pairs of one update.
    pub batch: usize,
    /// Pairs encoded at a time.
    pub micro_batch: usize,
    pub image_mask: ImageMask,
    pub text_mask: TextMask,
    /// Side of the training images, pixels.
    pub image_size: usize,
    pub optimizer: OptimizerConfig,
    pub schedule: Schedule,
    pub clip_grad_norm: Option<f64>,
    pub evaluate: Option<MeanwhileConfig>,
}

/// A stage that cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("length: {0}")]
    Length(#[from] DurationError),
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    #[error("length: the stage is shorter than one step of {batch} pairs")]
    NoStep { batch: usize },
}

impl TrainingPlan {
    pub fn pretrain(
        config: &PretrainConfig,
        model: &ModelConfig,
        epoch_samples: Option<u64>,
    ) -> Result<TrainingPlan, PlanError> {
        let batch = config.batch.get();
        let (steps, schedule) = length(config.length, &config.schedule, batch, epoch_samples)?;
        Ok(TrainingPlan {
            kind: "pretrain",
            steps,
            batch,
            micro_batch: config.micro_batch.map_or(batch, |micro| micro.get()),
            image_mask: config.image_mask.clone(),
            text_mask: config.text_mask.clone(),
            image_size: config.image_size.map_or(model.image.size, |size| size.get()),
            optimizer: config.optimizer.clone(),
            schedule,
            clip_grad_norm: config.clip_grad_norm,
            evaluate: config.evaluate.clone(),
        })
    }

    pub fn unmask(
        config: &UnmaskConfig,
        model: &ModelConfig,
        epoch_samples: Option<u64>,
    ) -> Result<TrainingPlan, PlanError> {
        let batch = config.batch.get();
        let (steps, schedule) = length(config.length, &config.schedule, batch, epoch_samples)?;
        Ok(TrainingPlan {
            kind: "unmask",
            steps,
            batch,
            micro_batch: config.micro_batch.map_or(batch, |micro| micro.get()),
            image_mask: ImageMask::Keep,
            text_mask: TextMask::Keep,
            image_size: model.image.size,
            optimizer: config.optimizer.clone(),
            schedule,
            clip_grad_norm: config.clip_grad_norm,
            evaluate: config.evaluate.clone(),
        })
    }
}

fn length(
    length: Duration,
    schedule: &ScheduleConfig,
    batch: usize,
    epoch_samples: Option<u64>,
) -> Result<(u64, Schedule), PlanError> {
    let steps = length.steps(batch as u64, epoch_samples)? as u64;
    if steps == 0 {
        return Err(PlanError::NoStep { batch });
    }
    let schedule = Schedule::new(schedule, batch as u64, steps, epoch_samples)?;
    Ok((steps, schedule))
}
