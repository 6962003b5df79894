//! The learning rate of every update. Warm-up and cosine follow the formulas of the official code: a linear warm-up over W
//! steps, then half a cosine over T. W may be a fraction where it is given in epochs.

use std::f64::consts::PI;

use super::config::{DecayShape, ScheduleConfig};
use crate::duration::{Duration, DurationError};

/// A schedule that cannot be followed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    #[error("schedule.warmup: {0}")]
    Warmup(DurationError),
    #[error("schedule.decay: {0}")]
    Decay(DurationError),
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
    fall: Fall,
}

/// The way of the rate from its peak to its end.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fall {
    /// It stays.
    None,
    /// Half a cosine over so many steps, which begin with the end of the warm-up.
    Cosine(f64),
    /// From step `from` on, over `over` steps.
    Decay { from: f64, over: f64, shape: DecayShape },
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
        let (start, end) = match config {
            ScheduleConfig::Cosine(c) => (c.warmup_lr, c.min_lr),
            ScheduleConfig::Constant(_) => (0.0, 0.0),
            ScheduleConfig::WarmupStableDecay(c) => (0.0, c.min_lr),
        };
        let peak = config.lr().at(batch);
        for (field, rate) in [("lr", peak), ("warmup_lr", start), ("min_lr", end)] {
            if !(rate.is_finite() && rate >= 0.0) {
                return Err(ScheduleError::Rate { field, rate });
            }
        }
        let warmup = config.warmup().steps(batch, epoch_samples, total_steps);
        let warmup = warmup.map_err(ScheduleError::Warmup)?;
        let fall = match config {
            ScheduleConfig::Constant(_) => Fall::None,
            ScheduleConfig::Cosine(_) => {
                let epoch = Duration::Epochs(1.0).steps(batch, epoch_samples).unwrap_or(1.0).max(1.0);
                Fall::Cosine((total_steps as f64 - warmup).max(epoch))
            }
            ScheduleConfig::WarmupStableDecay(c) => {
                let over = c.decay.steps(batch, epoch_samples, total_steps).map_err(ScheduleError::Decay)?;
                Fall::Decay { from: total_steps as f64 - over, over, shape: c.shape }
            }
        };
        Ok(Schedule { peak, start, end, warmup, fall })
    }

    /// The rate of update `step`, counted from 0. The first one of a warm-up from 0 is 0: that update
    /// gathers moments and moves nothing.
    pub fn lr(&self, step: u64) -> f64 {
        let step = step as f64;
        if step < self.warmup {
            return self.start + (self.peak - self.start) * step / self.warmup;
        }
        match self.fall {
            Fall::None => self.peak,
            Fall::Cosine(length) => {
                let done = (step - self.warmup).min(length) / length;
                self.end + (self.peak - self.end) * 0.5 * (1.0 + (PI * done).cos())
            }
            Fall::Decay { from, .. } if step < from => self.peak,
            Fall::Decay { from, over, shape } => {
                let done = if over > 0.0 { ((step - from) / over).min(1.0) } else { 1.0 };
                match shape {
                    DecayShape::Linear => self.end + (self.peak - self.end) * (1.0 - done),
                    DecayShape::OneMinusSqrt => self.end + (self.peak - self.end) * (1.0 - done.sqrt()),
                    DecayShape::Exponential => self.peak * (self.end / self.peak).powf(done),
                }
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
    use crate::duration::Phase;
    use crate::optimizer::{ConstantConfig, CosineConfig, PeakLr};

    fn cosine(warmup: Phase) -> ScheduleConfig {
        ScheduleConfig::Cosine(CosineConfig {
            lr: PeakLr::Per256(0.5),
            warmup,
            warmup_lr: 0.25,
            min_lr: 0.125,
        })
    }

    #[test]
    fn rises_from_its_start_to_its_peak_and_falls_to_its_end() {
        let schedule = Schedule::new(&cosine(Phase::Steps(4)), 512, 12, None).unwrap();
        assert_eq!(schedule.peak(), 1.0);
        let rates = [0, 2, 4, 8, 12, 100].map(|step| schedule.lr(step));
        for (rate, expected) in rates.into_iter().zip([0.25, 0.625, 1.0, 0.5625, 0.125, 0.125]) {
            assert!((rate - expected).abs() < 1e-15, "{rates:?}");
        }
    }

    #[test]
    fn the_cosine_lasts_an_epoch_at_least() {
        let schedule = Schedule::new(&cosine(Phase::Epochs(1.0)), 10, 12, Some(100)).unwrap();
        assert_eq!(schedule.fall, Fall::Cosine(10.0));
    }

    #[test]
    fn constant_stays() {
        let config =
            ScheduleConfig::Constant(ConstantConfig { lr: PeakLr::Absolute(0.5), warmup: Phase::Steps(2) });
        let schedule = Schedule::new(&config, 8, 4, None).unwrap();
        assert_eq!([0, 1, 2, 9].map(|step| schedule.lr(step)), [0.0, 0.25, 0.5, 0.5]);
    }

    #[test]
    fn says_which_rate_is_no_rate() {
        let config =
            ScheduleConfig::Constant(ConstantConfig { lr: PeakLr::Absolute(-1.0), warmup: Phase::Steps(2) });
        let error = Schedule::new(&config, 8, 4, None).unwrap_err();
        assert_eq!(error.to_string(), "schedule.lr: expected a finite learning rate of at least 0, got -1");
        let error = Schedule::new(&cosine(Phase::Epochs(1.0)), 8, 4, None).unwrap_err();
        assert!(error.to_string().starts_with("schedule.warmup: a duration in epochs"), "{error}");
    }
}
