//! The charts of a sweep.

use super::series::{of_setting, Point};
use super::summary::{lasts, Summary};
use super::{Along, Metric, Sweep};
use crate::report::band_chart::{self, BandChart, Line};
use crate::report::range_chart::{self, RangeChart, Row};
use crate::report::ReportError;

/// A chart, ready to be written or to be put into a page.
pub(super) struct Drawn {
    /// A file name without its ending.
    pub name: &'static str,
    pub svg: String,
}

/// A chart an axis; none where no run is finished.
pub(super) fn of(sweep: &Sweep, metric: &Metric, summaries: &[Summary]) -> Result<Vec<Drawn>, ReportError> {
    if summaries.iter().all(|summary| summary.finished == 0) {
        return Ok(Vec::new());
    }
    let drawn = |(index, along): (usize, Along)| {
        let name = match along {
            Along::Time => "time",
            Along::Flops => "flops",
            Along::Samples => "samples",
        };
        let chart = chart(sweep, metric, summaries, index, along);
        let svg = band_chart::draw(&chart)
            .map_err(|reason| ReportError::Drawing { what: format!("the chart {name}"), reason })?;
        Ok(Drawn { name, svg })
    };
    let mut all = Along::ALL.into_iter().enumerate().map(drawn).collect::<Result<Vec<_>, ReportError>>()?;
    let svg = range_chart::draw(&results(sweep, metric, summaries))
        .map_err(|reason| ReportError::Drawing { what: "the chart results".into(), reason })?;
    all.push(Drawn { name: "results", svg });
    Ok(all)
}

/// Results that the settings end with.
fn results(sweep: &Sweep, metric: &Metric, summaries: &[Summary]) -> RangeChart {
    let percent = if metric.is_share { 100.0 } else { 1.0 };
    let rows = sweep.settings.iter().map(|setting| Row {
        name: setting.name.clone(),
        values: lasts(setting, metric).into_iter().map(|value| percent * value).collect(),
    });
    let level = summaries.get(sweep.baseline).filter(|_| sweep.settings.len() > 1);
    RangeChart {
        title: format!("{} at the end", metric.title()),
        across: axis(metric),
        rows: rows.collect(),
        level: level.and_then(|summary| Some(percent * summary.last?.mean)),
    }
}

/// The metric as the name of an axis.
fn axis(metric: &Metric) -> String {
    let name = metric.name.replace('_', " ");
    if metric.is_share {
        format!("{name}, %")
    } else {
        name
    }
}

fn chart(sweep: &Sweep, metric: &Metric, summaries: &[Summary], index: usize, along: Along) -> BandChart {
    let curves: Vec<Vec<Point>> =
        sweep.settings.iter().map(|setting| of_setting(setting, metric, along)).collect();
    let most = curves.iter().flatten().map(|point| point.at).fold(0.0, f64::max);
    let unit = Unit::of(along, most);
    let percent = if metric.is_share { 100.0 } else { 1.0 };
    let mut lines = Vec::new();
    for (at, (setting, points)) in sweep.settings.iter().zip(&curves).enumerate() {
        let reached = &summaries[at].reached[index];
        let name = match (&summaries[at].last, reached.ratio) {
            (Some(last), Some(ratio)) if at != sweep.baseline => {
                format!(
                    "{}: ends at {}, as good {}",
                    setting.name,
                    metric.format(last.mean),
                    sooner(ratio, along)
                )
            }
            (Some(last), _) => format!("{}: ends at {}", setting.name, metric.format(last.mean)),
            (None, _) => format!("{}: no run is finished", setting.name),
        };
        let points = points.iter().map(|point| band_chart::Point {
            at: point.at / unit.size,
            mean: percent * point.mean,
            least: percent * point.least,
            most: percent * point.most,
        });
        let crosses = reached.at.map(|at| at / unit.size);
        lines.push(Line { name, points: points.collect(), crosses });
    }
    let baseline = sweep.settings.get(sweep.baseline).zip(summaries.get(sweep.baseline));
    let level = baseline.filter(|_| sweep.settings.len() > 1).and_then(|(setting, summary)| {
        let last = summary.last?.mean;
        Some((percent * last, format!("{} ends at {}", setting.name, metric.format(last))))
    });
    BandChart {
        title: format!("{} over {}", metric.title(), unit.what),
        across: match along {
            Along::Samples => unit.what.to_owned(),
            Along::Time | Along::Flops => format!("{}, {}", unit.what, unit.name),
        },
        up: axis(metric),
        lines,
        level,
    }
}

/// `2.10x sooner` or `1.20x later`: the ratio at which a setting is as good as the baseline.
pub(super) fn sooner(ratio: f64, along: Along) -> String {
    let (less, more) = match along {
        Along::Time => ("sooner", "later"),
        Along::Flops => ("less compute", "more compute"),
        Along::Samples => ("fewer pairs", "more pairs"),
    };
    match ratio >= 1.0 {
        true => format!("{ratio:.2}x {less}"),
        false => format!("{:.2}x {more}", 1.0 / ratio),
    }
}

/// A unit in which an axis has numbers of a few digits.
pub(super) struct Unit {
    /// Quantity of the axis.
    pub what: &'static str,
    pub name: &'static str,
    /// Seconds, operations or pairs in it.
    pub size: f64,
}

impl Unit {
    /// For an axis that ends at `most`.
    pub fn of(along: Along, most: f64) -> Unit {
        match along {
            Along::Time => {
                let (name, size) = match most {
                    most if most < 120.0 => ("seconds", 1.0),
                    most if most < 7_200.0 => ("minutes", 60.0),
                    _ => ("hours", 3_600.0),
                };
                Unit { what: "training time", name, size }
            }
            Along::Flops => {
                let units =
                    [("EFLOP", 1e18), ("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6)];
                let (name, size) = units.into_iter().find(|(_, size)| most >= *size).unwrap_or(("FLOP", 1.0));
                Unit { what: "training compute", name, size }
            }
            Along::Samples => Unit { what: "pairs seen", name: "pairs", size: 1.0 },
        }
    }
}
