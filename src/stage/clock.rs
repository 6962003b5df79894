//! How fast training is, as `timing.jsonl` says it.

use std::time::{Duration, Instant};

use crate::pause;
use crate::record::StepTiming;

/// Time of training since the last logged step.
pub struct Clock {
    started: Instant,
    /// When the step before this one ended, and what was waited until then.
    step: (Instant, f64),
    steps: u64,
    /// Seconds of them spent waiting for data.
    pub waited: f64,
    /// Seconds of a step, as last known.
    step_s: f64,
}

impl Clock {
    pub fn start() -> Clock {
        let now = Instant::now();
        // Pauses before this are nobody's.
        pause::went_on();
        Clock { started: now, step: (now, 0.0), steps: 0, waited: 0.0, step_s: 0.0 }
    }

    /// Forgets what has not been logged.
    pub fn restart(&mut self) {
        *self = Clock { step_s: self.step_s, ..Clock::start() };
    }

    /// Time that is not training's.
    pub fn leave_out(&mut self, time: Duration) {
        self.started += time;
        self.step.0 += time;
    }

    /// A step during which the process was stopped tells nothing; those beside it speak for it.
    pub fn end_step(&mut self) {
        if pause::went_on() {
            self.started += self.step.0.elapsed();
            self.waited = self.step.1;
        } else {
            self.steps += 1;
        }
        self.step = (Instant::now(), self.waited);
    }

    pub fn lap(&mut self, stage: usize, step: u64, batch: usize, elapsed: Duration) -> StepTiming {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        let (step_s, data_wait) = match self.steps {
            0 => (self.step_s, 0.0),
            steps => (seconds / steps as f64, self.waited / seconds),
        };
        let step_s = step_s.max(1e-9);
        let line = StepTiming {
            stage,
            step,
            images_per_s: batch as f64 / step_s,
            data_wait,
            step_ms: step_s * 1e3,
            elapsed_s: elapsed.as_secs_f64(),
        };
        *self = Clock { step_s, ..Clock::start() };
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lap_whose_only_step_was_left_out_is_as_fast_as_the_one_before() {
        let mut clock = Clock::start();
        std::thread::sleep(Duration::from_millis(20));
        clock.leave_out(Duration::from_millis(10));
        clock.end_step();
        let first = clock.lap(0, 1, 8, Duration::ZERO);
        assert!((9.0..1e3).contains(&first.step_ms), "{first:?}");
        clock.restart();
        let second = clock.lap(0, 2, 8, Duration::ZERO);
        assert_eq!((second.step_ms, second.data_wait), (first.step_ms, 0.0));
    }
}
