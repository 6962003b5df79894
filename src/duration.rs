//! Lengths of time in the unit that a person thinks in; code only ever sees steps.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A length of training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum Duration {
    /// Optimizer updates.
    Steps(u64),
    /// Image-text pairs seen; whole steps, rounded down.
    Samples(u64),
    /// Passes over `data.epoch_samples` pairs (or over the source, where its size is known). An epoch is
    /// floor(epoch_samples / batch) steps, as in the official schedule.
    Epochs(#[schemars(range(min = 0.0))] f64),
}

/// The length of a stage: a length of training, or what may be spent on it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum Length {
    /// Optimizer updates.
    Steps(u64),
    /// Image-text pairs seen; whole steps, rounded down.
    Samples(u64),
    /// Passes over `data.epoch_samples` pairs (or over the source, where its size is known). An epoch is
    /// floor(epoch_samples / batch) steps, as in the official schedule.
    Epochs(#[schemars(range(min = 0.0))] f64),
    /// Hours of training on this machine, for a budget of time. The first time that the stage begins, some steps are tried and
    /// timed; the number of steps that fit is written to `lengths.json`, and holds from then on, wherever the run is resumed.
    /// Evaluations and checkpoints come on top.
    Hours(#[schemars(range(min = 0.0))] f64),
    /// Floating-point operations, to compare models or masks at the same work: those of the matrix products of forward and
    /// backward passes over what is kept. What micro-batches and gradient checkpointing compute twice is not counted, so that
    /// neither changes the number of steps.
    Flop(#[schemars(range(min = 0.0))] f64),
}

/// The length of a part of a learning-rate schedule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum Phase {
    /// Optimizer updates.
    Steps(u64),
    /// Image-text pairs seen; whole steps, rounded down.
    Samples(u64),
    /// Passes over `data.epoch_samples` pairs (or over the source, where its size is known). An epoch is
    /// floor(epoch_samples / batch) steps, as in the official schedule.
    Epochs(#[schemars(range(min = 0.0))] f64),
    /// Of the length of the stage, from 0 to 1; whole steps, rounded down. For a stage whose length in steps is not known
    /// beforehand.
    Share(#[schemars(range(min = 0.0, max = 1.0))] f64),
}

/// A duration in epochs where the size of an epoch is unknown.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant is its documentation")]
pub enum DurationError {
    #[error(
        "a duration in epochs needs the size of an epoch: set data.epoch_samples, or use Steps or Samples"
    )]
    UnknownEpoch,
    #[error("a duration of {0} epochs is not a number of steps")]
    NotFinite(f64),
    #[error("expected a number above 0, got {0}")]
    NoBudget(f64),
    #[error("expected a share of the stage from 0 to 1, got {0}")]
    Share(f64),
    #[error("{0:e} FLOP are {1:e} steps, more than can be counted")]
    TooLong(f64, f64),
}

impl Duration {
    /// No time at all.
    pub fn none() -> Self {
        Duration::Steps(0)
    }

    /// In steps of `batch` pairs; a fraction is possible for epochs (the official warm-up may have one).
    pub fn steps(self, batch: u64, epoch_samples: Option<u64>) -> Result<f64, DurationError> {
        match self {
            Duration::Steps(steps) => Ok(steps as f64),
            Duration::Samples(samples) => Ok((samples / batch) as f64),
            Duration::Epochs(epochs) => {
                let epoch = epoch_samples.ok_or(DurationError::UnknownEpoch)?;
                let steps = epochs * (epoch / batch) as f64;
                if steps.is_finite() && steps >= 0.0 {
                    Ok(steps)
                } else {
                    Err(DurationError::NotFinite(epochs))
                }
            }
        }
    }
}

impl Length {
    /// The same as a length of training; none of a budget.
    pub fn duration(self) -> Option<Duration> {
        match self {
            Length::Steps(steps) => Some(Duration::Steps(steps)),
            Length::Samples(samples) => Some(Duration::Samples(samples)),
            Length::Epochs(epochs) => Some(Duration::Epochs(epochs)),
            Length::Hours(_) | Length::Flop(_) => None,
        }
    }

    /// In steps of `batch` pairs and `flop` operations; none where the clock has to say it.
    ///
    /// # Errors
    /// A number of epochs of unknown size, or a budget that is none.
    pub fn steps(
        self,
        batch: u64,
        epoch_samples: Option<u64>,
        flop: f64,
    ) -> Result<Option<f64>, DurationError> {
        match (self, self.duration()) {
            (_, Some(duration)) => duration.steps(batch, epoch_samples).map(Some),
            (Length::Hours(budget) | Length::Flop(budget), _) if !(budget.is_finite() && budget > 0.0) => {
                Err(DurationError::NoBudget(budget))
            }
            (Length::Flop(budget), _) => {
                let steps = (budget / flop).floor();
                if steps < 2f64.powi(53) {
                    Ok(Some(steps))
                } else {
                    Err(DurationError::TooLong(budget, steps))
                }
            }
            _ => Ok(None),
        }
    }
}

impl Phase {
    /// No time at all.
    pub fn none() -> Self {
        Phase::Steps(0)
    }

    /// The same as a length of training; none of a share.
    pub fn duration(self) -> Option<Duration> {
        match self {
            Phase::Steps(steps) => Some(Duration::Steps(steps)),
            Phase::Samples(samples) => Some(Duration::Samples(samples)),
            Phase::Epochs(epochs) => Some(Duration::Epochs(epochs)),
            Phase::Share(_) => None,
        }
    }

    /// In steps of a stage of `total` steps of `batch` pairs; a fraction is possible for epochs.
    ///
    /// # Errors
    /// A number of epochs of unknown size, or a share that is none.
    pub fn steps(self, batch: u64, epoch_samples: Option<u64>, total: u64) -> Result<f64, DurationError> {
        match (self, self.duration()) {
            (_, Some(duration)) => duration.steps(batch, epoch_samples),
            (Phase::Share(share), _) if (0.0..=1.0).contains(&share) => Ok((share * total as f64).floor()),
            (Phase::Share(share), _) => Err(DurationError::Share(share)),
            _ => Ok(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn official_epochs_round_down_to_whole_steps() {
        assert_eq!(Duration::Epochs(40.0).steps(65_536, Some(1_281_167)), Ok(760.0));
        assert_eq!(Duration::Epochs(0.25).steps(512, Some(5_200)), Ok(2.5));
        assert_eq!(Duration::Samples(1_000).steps(300, None), Ok(3.0));
        assert_eq!(Duration::Epochs(1.0).steps(8, None), Err(DurationError::UnknownEpoch));
    }

    #[test]
    fn a_budget_of_work_is_the_whole_steps_that_it_pays_for() {
        assert_eq!(Length::Flop(1e3).steps(8, None, 300.0), Ok(Some(3.0)));
        assert_eq!(Length::Hours(2.0).steps(8, None, 300.0), Ok(None));
        assert_eq!(Length::Epochs(2.0).steps(8, Some(24), 300.0), Ok(Some(6.0)));
        assert_eq!(Length::Flop(0.0).steps(8, None, 300.0), Err(DurationError::NoBudget(0.0)));
        assert!(Length::Flop(1e300).steps(8, None, 300.0).is_err());
    }

    #[test]
    fn a_share_is_of_the_stage() {
        assert_eq!(Phase::Share(0.2).steps(8, None, 101), Ok(20.0));
        assert_eq!(Phase::Samples(80).steps(8, None, 101), Ok(10.0));
        assert_eq!(Phase::Share(1.5).steps(8, None, 101), Err(DurationError::Share(1.5)));
    }
}
