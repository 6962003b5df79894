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
}
