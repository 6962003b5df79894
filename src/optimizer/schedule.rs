//! The learning rate of every update, with the formulas of the official code: a linear warm-up over W
//! steps, then half a cosine over T. W may be a fraction where it is given in epochs.

use std::f64::consts::PI;

use super::config::ScheduleConfig;
use crate::duration::{Duration, DurationError};

/// A schedule that cannot be followed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    #[error("schedule.warmup: {0}")]
    Warmup(#[from] DurationError),
    #[error("schedule.{field}: expected a finite learning rate of at least 0, got {rate}")]
    Rate { field: &'static str, rate: f64 },
}

/// Learning rates by step.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    peak: f64,
    start: f64,
    end: f64,
    /// W, steps.
    warmup: f64,
    /// T, steps; none where the rate stays at its peak.
    cosine: Option<f64>,
}

impl Schedule {
    /// The schedule of a stage of `total_steps` updates of `batch` pairs. `epoch_samples` is the size of an
    /// epoch, where there is one. The cosine takes what the warm-up leaves of the stage, and, as in the
    /// official code, at least one epoch (one step where epochs are unknown).
    pub fn new(
        config: &ScheduleConfig,
        batch: u64,
        total_steps: u64,
        epoch_samples: Option<u64>,
    ) -> Result<Self, ScheduleError> {
        let (lr, warmup, start, end, decays) = match config {
            ScheduleConfig::Cosine(c) => (c.lr, c.warmup, c.warmup_lr, c.min_lr, true),
            ScheduleConfig::Constant(c) => (c.lr, c.warmup, 0.0, 0.0, false),
        };
        let peak = lr.at(batch);
        for (field, rate) in [("lr", peak), ("warmup_lr", start), ("min_lr", end)] {
            if !(rate.is_finite() && rate >= 0.0) {
                return Err(ScheduleError::Rate { field, rate });
            }
        }
        let warmup = warmup.steps(batch, epoch_samples)?;
        let epoch = Duration::Epochs(1.0).steps(batch, epoch_samples).unwrap_or(1.0).max(1.0);
        let cosine = decays.then_some((total_steps as f64 - warmup).max(epoch));
        Ok(Schedule { peak, start, end, warmup, cosine })
    }

    /// The rate of update `step`, counted from 0. The first one of a warm-up from 0 is 0: that update
    /// gathers moments and moves nothing.
    pub fn lr(&self, step: u64) -> f64 {
        let step = step as f64;
        if step < self.warmup {
            return self.start + (self.peak - self.start) * step / self.warmup;
        }
        match self.cosine {
            None => self.peak,
            Some(length) => {
                let done = (step - self.warmup).min(length) / length;
                self.end + (self.peak - self.end) * 0.5 * (1.0 + (PI * done).cos())
            }
        }
    }

    /// The highest rate.
    pub fn peak(&self) -> f64 {
        self.peak
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizer::{ConstantConfig, CosineConfig, PeakLr};

    fn cosine(warmup: Duration) -> ScheduleConfig {
        ScheduleConfig::Cosine(CosineConfig {
            lr: PeakLr::Per256(0.5),
            warmup,
            warmup_lr: 0.25,
            min_lr: 0.125,
        })
    }

    #[test]
    fn rises_from_its_start_to_its_peak_and_falls_to_its_end() {
        let schedule = Schedule::new(&cosine(Duration::Steps(4)), 512, 12, None).unwrap();
        assert_eq!(schedule.peak(), 1.0);
        let rates = [0, 2, 4, 8, 12, 100].map(|step| schedule.lr(step));
        for (rate, expected) in rates.into_iter().zip([0.25, 0.625, 1.0, 0.5625, 0.125, 0.125]) {
            assert!((rate - expected).abs() < 1e-15, "{rates:?}");
        }
    }

    #[test]
    fn the_cosine_lasts_an_epoch_at_least() {
        let schedule = Schedule::new(&cosine(Duration::Epochs(1.0)), 10, 12, Some(100)).unwrap();
        assert_eq!(schedule.cosine, Some(10.0));
    }

    #[test]
    fn constant_stays() {
        let config = ScheduleConfig::Constant(ConstantConfig {
            lr: PeakLr::Absolute(0.5),
            warmup: Duration::Steps(2),
        });
        let schedule = Schedule::new(&config, 8, 4, None).unwrap();
        assert_eq!([0, 1, 2, 9].map(|step| schedule.lr(step)), [0.0, 0.25, 0.5, 0.5]);
    }

    #[test]
    fn says_which_rate_is_no_rate() {
        let config = ScheduleConfig::Constant(ConstantConfig {
            lr: PeakLr::Absolute(-1.0),
            warmup: Duration::Steps(2),
        });
        let error = Schedule::new(&config, 8, 4, None).unwrap_err();
        assert_eq!(error.to_string(), "schedule.lr: expected a finite learning rate of at least 0, got -1");
        let error = Schedule::new(&cosine(Duration::Epochs(1.0)), 8, 4, None).unwrap_err();
        assert!(error.to_string().starts_with("schedule.warmup: a duration in epochs"), "{error}");
    }
}
