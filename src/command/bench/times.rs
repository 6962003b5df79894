//! The times of steps and their parts, in ms; medians are reported.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::kernel::cuda::phase::Phase;

/// Times so far, an entry a step.
#[derive(Debug, Default)]
pub struct Times {
    pub steps: Vec<f64>,
    pub forward: Vec<f64>,
    pub backward: Vec<f64>,
    pub update: Vec<f64>,
    phases: BTreeMap<Phase, Vec<f64>>,
}

impl Times {
    /// A step by the host's clock, which waited between the parts.
    pub fn by_clock(&mut self, forward: Duration, backward: Duration, update: Duration) {
        self.steps.push(ms(forward + backward + update));
        self.forward.push(ms(forward));
        self.backward.push(ms(backward));
        self.update.push(ms(update));
    }

    /// A step whose phases, in seconds, were taken by events.
    pub fn by_events(&mut self, whole: Duration, taken: &[(Phase, f64)]) {
        let mut phases: BTreeMap<Phase, f64> = BTreeMap::new();
        for (phase, seconds) in taken {
            *phases.entry(*phase).or_default() += seconds * 1e3;
        }
        let of = |wanted: fn(Phase) -> bool| -> f64 {
            phases.iter().filter(|(phase, _)| wanted(**phase)).map(|(_, ms)| ms).sum()
        };
        self.steps.push(ms(whole));
        self.forward.push(of(|phase| phase <= Phase::Loss));
        self.backward.push(of(|phase| matches!(phase, Phase::TextsBack | Phase::ImagesBack)));
        self.update.push(of(|phase| phase >= Phase::Norm));
        for (phase, ms) in phases {
            self.phases.entry(phase).or_default().push(ms);
        }
    }

    /// Medians of the phases, by name.
    pub fn phases(&self) -> BTreeMap<&'static str, f64> {
        self.phases.iter().map(|(phase, times)| (phase.name(), median(times))).collect()
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_sums_of_phases() {
        let mut times = Times::default();
        // Copies of both towers; each phase is twice as long as the one before.
        let seconds = |phase: Phase| 1e-3 * f64::from(1 << phase as u32);
        let mut taken = vec![(Phase::Copies, 0.5e-3)];
        taken.extend(Phase::ALL.map(|phase| (phase, seconds(phase))));
        times.by_events(Duration::from_millis(300), &taken);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert_eq!(times.steps, [300.0]);
        assert!(near(times.forward[0], 0.5 + 15.0), "{times:?}");
        assert!(near(times.backward[0], 48.0) && near(times.update[0], 192.0), "{times:?}");
        let phases = times.phases();
        assert!(phases.len() == Phase::ALL.len() && near(phases["copies"], 1.5), "{phases:?}");
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
    }
}
