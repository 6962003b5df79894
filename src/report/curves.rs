//! The curves of a run: what it logged, and what was measured on the way.

use std::path::Path;

use super::chart::{draw, Chart, LINES};
use super::evaluation::trajectories;
use super::history::{Axis, History, Points};
use super::outline::title;
use super::ReportError;
use crate::record::EvaluationRow;

/// A chart, ready to be written or to be put into a page.
#[derive(Debug, Clone)]
pub struct Curve {
    /// A file name without its ending, for example `loss`.
    pub name: &'static str,
    pub svg: String,
}

/// The charts of a run folder, of what it has so far: loss, learning rate, logit scale, gradient norm,
/// images a second, accuracy. `titles` are those of [`super::stage_titles`].
pub fn of_run(run_dir: &Path, rows: &[EvaluationRow], titles: &[String]) -> Result<Vec<Curve>, ReportError> {
    let history = History::read(run_dir)?;
    let stages: Vec<(f64, String)> =
        history.stages().map(|stage| (history.begin(stage), title(titles, stage))).collect();
    let mut curves = Vec::new();
    let mut add = |name: &'static str, chart: Chart<'_>| -> Result<(), ReportError> {
        if chart.lines.iter().any(|(_, points)| points.len() > 1) {
            let svg = draw(&chart)
                .map_err(|reason| ReportError::Drawing { what: format!("the curve {name}"), reason })?;
            curves.push(Curve { name, svg });
        }
        Ok(())
    };
    let chart = |title, unit, points| Chart {
        title,
        unit,
        across: "steps",
        lines: vec![(String::new(), points)],
        dots: false,
        smooth: false,
        from_zero: false,
        stages: stages.clone(),
    };
    let noisy = |chart| Chart { smooth: true, ..chart };
    let from_zero = |chart| Chart { from_zero: true, ..chart };
    add(
        "loss",
        noisy(chart("Contrastive loss", "nats", history.metric(|row| row.loss.into(), Axis::Steps))),
    )?;
    add("accuracy", accuracy(&history, rows, chart("Evaluations", "%", Points::new())))?;
    add("lr", from_zero(chart("Learning rate", "per update", history.metric(|row| row.lr, Axis::Steps))))?;
    add(
        "logit_scale",
        chart(
            "Logit scale",
            "factor on the similarity",
            history.metric(|row| row.logit_scale.into(), Axis::Steps),
        ),
    )?;
    add(
        "grad_norm",
        noisy(from_zero(chart(
            "Gradient norm",
            "L2",
            history.metric(|row| row.grad_norm.into(), Axis::Steps),
        ))),
    )?;
    add(
        "images_per_s",
        noisy(from_zero(chart("Speed", "images/s", history.timing(|row| row.images_per_s, Axis::Steps)))),
    )?;
    Ok(curves)
}

/// The main metric of every evaluation that is a share, where in the run it was measured.
fn accuracy<'a>(history: &History, rows: &[EvaluationRow], chart: Chart<'a>) -> Chart<'a> {
    let mut lines = Vec::new();
    for trajectory in trajectories(rows).into_iter().filter(|trajectory| trajectory.is_share()) {
        let points = trajectory.points.iter().filter(|(_, value)| value.is_finite());
        let points = points.map(|(row, value)| (history.place(row, Axis::Steps), 100.0 * value)).collect();
        lines.push((trajectory.name(), points));
    }
    // A legend of more would hide what it explains; the table has them all.
    lines.truncate(LINES.len());
    Chart { lines, dots: true, from_zero: true, ..chart }
}
