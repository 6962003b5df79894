//! The runs of a setting as one curve: the mean over its seeds, and the smallest and largest value.

use std::collections::BTreeMap;

use super::{Along, Cell, Metric, Setting};

/// A point of a curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Place along the axis; of times the mean over seeds.
    pub at: f64,
    pub mean: f64,
    pub least: f64,
    pub most: f64,
}

/// The curve of a single run: (where, value), in the order of the run.
pub fn of_cell(cell: &Cell, metric: &Metric, along: Along) -> Vec<(f64, f64)> {
    by_place(cell, metric, along).into_values().collect()
}

/// By stage and step. An evaluation at the end of a stage and one in the stage after it are both there; where one
/// place was measured twice, the later row counts.
fn by_place(cell: &Cell, metric: &Metric, along: Along) -> BTreeMap<(usize, u64), (f64, f64)> {
    let points = cell.measured.iter().filter_map(|measured| {
        let place = (measured.row.stage, measured.row.step);
        Some((place, (measured.spent.along(along), metric.of(&measured.row)?)))
    });
    points.collect()
}

/// The curve of the finished runs of a setting, at the places that all of them measured.
pub fn of_setting(setting: &Setting, metric: &Metric, along: Along) -> Vec<Point> {
    let runs: Vec<_> = setting.finished().map(|cell| by_place(cell, metric, along)).collect();
    let Some(first) = runs.first() else { return Vec::new() };
    let n = runs.len() as f64;
    first
        .keys()
        .filter_map(|place| {
            let there: Vec<(f64, f64)> = runs.iter().filter_map(|run| run.get(place).copied()).collect();
            (there.len() == runs.len()).then(|| Point {
                at: there.iter().map(|point| point.0).sum::<f64>() / n,
                mean: there.iter().map(|point| point.1).sum::<f64>() / n,
                least: there.iter().map(|point| point.1).fold(f64::INFINITY, f64::min),
                most: there.iter().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max),
            })
        })
        .collect()
}

/// Place where a curve first reaches `level`, on straight lines between its points; none where it never does.
pub fn first_reaches(curve: &[(f64, f64)], level: f64, less_is_better: bool) -> Option<f64> {
    let there = |value: f64| if less_is_better { value <= level } else { value >= level };
    let index = curve.iter().position(|(_, value)| there(*value))?;
    let (at, value) = curve[index];
    let Some((before, lower)) = index.checked_sub(1).map(|index| curve[index]) else { return Some(at) };
    let share = (level - lower) / (value - lower);
    Some(before + share * (at - before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_reached_between_two_points() {
        let curve = [(1.0, 0.1), (2.0, 0.3), (4.0, 0.5), (5.0, 0.4), (6.0, 0.9)];
        let reached = |level| first_reaches(&curve, level, false);
        assert_eq!(reached(0.05), Some(1.0));
        assert_eq!(reached(0.4), Some(3.0));
        assert_eq!(reached(0.5), Some(4.0));
        assert_eq!(reached(0.95), None);
        assert_eq!(first_reaches(&[], 0.5, false), None);
        let loss = [(0.0, 4.0), (10.0, 2.0)];
        assert_eq!(first_reaches(&loss, 3.0, true), Some(5.0));
        assert_eq!(first_reaches(&loss, 1.0, true), None);
        // Two evaluations at one place: nothing is divided by zero there.
        assert_eq!(first_reaches(&[(1.0, 0.2), (1.0, 0.2), (2.0, 0.4)], 0.2, false), Some(1.0));
    }
}
