//! Speed of training, as `timing.jsonl` has it.

use std::time::{Duration, Instant};

use crate::pause;
use crate::record::StepTiming;

/// Time of training since the last logged step.
pub struct Clock {
    /// Begin of the stage in this process.
    began: Instant,
    started: Instant,
    /// End of the step before this one, and seconds waited until then.
    step: (Instant, f64),
    steps: u64,
    /// Seconds of them spent waiting for data.
    waited: f64,
    /// Seconds of a step, as last known.
    step_s: f64,
    /// Seconds spent waiting for data that were not told to the other ranks.
    untold: f64,
}

impl Clock {
    /// Starts now.
    pub fn start() -> Clock {
        Clock::start_after(0.0, Instant::now())
    }

    fn start_after(step_s: f64, began: Instant) -> Clock {
        let now = Instant::now();
        // Pauses before this are nobody's.
        pause::went_on();
        Clock { began, started: now, step: (now, 0.0), steps: 0, waited: 0.0, step_s, untold: 0.0 }
    }

    /// Forgets what has not been logged.
    pub fn restart(&mut self) {
        *self = Clock { untold: self.untold, ..Clock::start_after(self.step_s, self.began) };
    }

    /// Counts time that was spent waiting for data.
    pub fn wait(&mut self, time: Duration) {
        self.waited += time.as_secs_f64();
        self.untold += time.as_secs_f64();
    }

    /// Seconds spent waiting for data since the last call.
    pub fn take_waited(&mut self) -> f64 {
        std::mem::take(&mut self.untold)
    }

    /// Takes out time in which nothing was trained.
    pub fn leave_out(&mut self, time: Duration) {
        self.started += time;
        self.step.0 += time;
    }

    /// Ends a step. One during which the process was stopped tells nothing; those beside it speak for it.
    pub fn end_step(&mut self) {
        if pause::went_on() {
            self.started += self.step.0.elapsed();
            self.waited = self.step.1;
        } else {
            self.steps += 1;
        }
        self.step = (Instant::now(), self.waited);
    }

    /// The row of a step of `batch` pairs, over the time since the row before.
    pub fn lap(&mut self, stage: usize, step: u64, batch: usize) -> StepTiming {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        let (step_s, data_wait) = match self.steps {
            0 => (self.step_s, 0.0),
            steps => (seconds / steps as f64, self.waited / seconds),
        };
        let step_s = step_s.max(1e-9);
        let row = StepTiming {
            stage,
            step,
            images_per_s: batch as f64 / step_s,
            data_wait,
            step_ms: step_s * 1e3,
            elapsed_s: self.began.elapsed().as_secs_f64(),
            ranks: Vec::new(),
        };
        *self = Clock { untold: self.untold, ..Clock::start_after(step_s, self.began) };
        row
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
        let first = clock.lap(0, 1, 8);
        assert!((9.0..1e3).contains(&first.step_ms), "{first:?}");
        clock.restart();
        let second = clock.lap(0, 2, 8);
        assert_eq!((second.step_ms, second.data_wait), (first.step_ms, 0.0));
    }
}
