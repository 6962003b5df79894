//! A training stage with every duration in steps and every default filled in.

use crate::checkpoint::CheckpointConfig;
use crate::duration::{Duration, DurationError};
use crate::model::ModelConfig;
use crate::optimizer::{AdamWConfig, OptimizerConfig, Schedule, ScheduleError};
use crate::ranks::RanksError;

use super::config::{Stage, TrainingConfig};

/// A training stage, ready to run.
#[derive(Debug, Clone)]
pub struct TrainingPlan {
    /// As the recipe has it.
    pub config: TrainingConfig,
    /// Update rule of the parameters.
    pub rule: UpdateRule,
    /// Updates of the stage.
    pub steps: u64,
    /// Pairs of one update.
    pub batch: usize,
    /// Pairs encoded at a time.
    pub micro_batch: usize,
    /// Side of the training images, pixels.
    pub image_size: usize,
    /// Learning rate of each step.
    pub schedule: Schedule,
    /// Steps between two checkpoints, at least one.
    pub checkpoint_every: u64,
    /// Steps between two rounds of evaluations, at least one; none where the stage has none.
    pub evaluate_every: Option<u64>,
}

/// The update rule of a stage, as the stages before and after it make it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UpdateRule {
    /// Constants of the rule.
    pub adamw: AdamWConfig,
    /// The stage goes on with the moments of the training stage before it.
    pub continues: bool,
    /// The next training stage goes on with the moments of this one.
    pub handed_on: bool,
}

impl UpdateRule {
    /// The rule of a stage of a recipe.
    pub fn of(stages: &[Stage], stage: usize) -> UpdateRule {
        let optimizer = |stage: &Stage| Some(stage.training()?.optimizer);
        let so_far = stages.iter().take(stage + 1).rev().filter_map(optimizer);
        let adamw = so_far.into_iter().find_map(|optimizer| match optimizer {
            OptimizerConfig::AdamW(adamw) => Some(adamw),
            OptimizerConfig::Continue => None,
        });
        let continues = |optimizer: Option<OptimizerConfig>| optimizer == Some(OptimizerConfig::Continue);
        UpdateRule {
            adamw: adamw.unwrap_or_default(),
            continues: continues(stages.get(stage).and_then(optimizer)),
            handed_on: continues(stages.iter().skip(stage + 1).find_map(optimizer)),
        }
    }
}

/// A stage that cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A length that is not a number of steps.
    #[error("length: {0}")]
    Length(#[from] DurationError),
    /// A schedule that does not fit the length.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// Less than one step.
    #[error("length: the stage is shorter than one step of {batch} pairs")]
    NoStep {
        /// Pairs of a step.
        batch: usize,
    },
    /// A time between evaluations that is not a number of steps.
    #[error("evaluate.every: {0}")]
    EvaluateEvery(DurationError),
    /// A time between checkpoints that is not a number of steps.
    #[error("checkpoints.every: {0}")]
    CheckpointEvery(DurationError),
    /// The steps that were resolved when the stage began are no longer known.
    #[error(
        "length: lengths.json, which says how many steps this stage has, is no longer in the run folder; put it back, or say \
         the number with --amend and Steps"
    )]
    LengthLost,
    /// No stage before has moments.
    #[error("optimizer: Continue needs a stage before it that trains")]
    NoMoments,
    /// A batch that cannot be divided among ranks.
    #[error(transparent)]
    Parts(RanksError),
    /// Lanes that cannot be dealt to the parts of a batch.
    #[error("{0}")]
    Lanes(String),
}

impl TrainingPlan {
    /// The durations of a stage. Where one of them is in epochs, the size of an epoch has to be known.
    pub fn durations(config: &TrainingConfig, checkpoints: &CheckpointConfig) -> Vec<Duration> {
        let every = config.evaluate.as_ref().map(|periodic| periodic.every);
        let phases = [Some(config.schedule.warmup()), config.schedule.decay()].into_iter().flatten();
        let durations = phases.filter_map(|phase| phase.duration()).chain(config.length.duration());
        durations.chain([checkpoints.every]).chain(every).collect()
    }

    /// Plans a stage. `epoch_samples` is the size of an epoch, pairs; `steps` those that a budget was resolved to, where it
    /// was: before, a stage of some hours is planned with a single one.
    ///
    /// # Errors
    /// A duration in epochs of unknown size, or a stage of no steps.
    pub fn new(
        config: TrainingConfig,
        rule: UpdateRule,
        model: &ModelConfig,
        checkpoints: &CheckpointConfig,
        epoch_samples: Option<u64>,
        steps: Option<u64>,
    ) -> Result<TrainingPlan, PlanError> {
        let batch = config.batch.get();
        let in_steps = |duration: Duration| duration.steps(batch as u64, epoch_samples);
        let steps = match steps {
            Some(steps) => steps,
            None => {
                let flop = config.flops_per_step(model);
                config.length.steps(batch as u64, epoch_samples, flop)?.map_or(1, |steps| steps as u64)
            }
        };
        if steps == 0 {
            return Err(PlanError::NoStep { batch });
        }
        let schedule = Schedule::new(&config.schedule, batch as u64, steps, epoch_samples)?;
        let at_least_one = |steps: f64| (steps as u64).max(1);
        let evaluate_every = config.evaluate.as_ref().map(|periodic| in_steps(periodic.every)).transpose();
        Ok(TrainingPlan {
            rule,
            steps,
            batch,
            micro_batch: config.micro_batch.map_or(batch, |micro| micro.get()),
            image_size: config.image_size.map_or(model.image.size, |size| size.get()),
            schedule,
            checkpoint_every: in_steps(checkpoints.every)
                .map_err(PlanError::CheckpointEvery)
                .map(at_least_one)?,
            evaluate_every: evaluate_every.map_err(PlanError::EvaluateEvery)?.map(at_least_one),
            config,
        })
    }
}
