//! The outcome of a sweep as rows of text: one table for the terminal and for the page.

use super::charts::Unit;
use super::summary::{Spread, Summary};
use super::{Along, Metric, Sweep};
use crate::report::page::grouped;
use crate::report::table::align;

/// The header and a row a setting. Every cell is text.
pub(super) fn rows(sweep: &Sweep, metric: &Metric, summaries: &[Summary]) -> Vec<Vec<String>> {
    let most = |along: Along| {
        let spent = |summary: &Summary| spread(summary, along).map_or(0.0, |spread| spread.most);
        summaries.iter().map(spent).fold(0.0, f64::max)
    };
    let [time, flops, pairs] = Along::ALL.map(|along| Unit::of(along, most(along)));
    let mut header =
        vec!["setting".to_owned(), "runs".into(), metric.name.replace('_', " "), "min to max".into()];
    header.extend([format!("training, {}", time.name), flops.name.to_owned(), pairs.name.to_owned()]);
    let compared = sweep.settings.len() > 1;
    if compared {
        header.extend(["sooner", "less compute", "fewer pairs"].map(str::to_owned));
    }
    let mut rows = vec![header];
    for (index, (setting, summary)) in sweep.settings.iter().zip(summaries).enumerate() {
        let mut row = vec![
            setting.name.clone(),
            format!("{} of {}", summary.finished, setting.planned.max(setting.cells.len())),
        ];
        match &summary.last {
            Some(last) => {
                row.push(metric.format(last.mean));
                row.push(match last.least == last.most {
                    true => String::new(),
                    false => format!("{} to {}", plain(metric, last.least), plain(metric, last.most)),
                });
            }
            None => row.extend(["-".to_owned(), String::new()]),
        }
        let mean = |along: Along| spread(summary, along).map(|spread| spread.mean);
        row.push(mean(Along::Time).map_or("-".into(), |value| format!("{:.1}", value / time.size)));
        row.push(mean(Along::Flops).map_or("-".into(), |value| format!("{:.2}", value / flops.size)));
        row.push(mean(Along::Samples).map_or("-".into(), |value| grouped(value.round() as u64)));
        if compared {
            row.extend(summary.reached.iter().map(|reached| match reached.ratio {
                _ if index == sweep.baseline => "baseline".to_owned(),
                Some(ratio) => format!("{ratio:.2}x"),
                None if summary.finished == 0 => "-".into(),
                None => "not reached".into(),
            }));
        }
        rows.push(row);
    }
    rows
}

fn spread(summary: &Summary, along: Along) -> Option<Spread> {
    match along {
        Along::Time => summary.train_s,
        Along::Flops => summary.flops,
        Along::Samples => summary.samples,
    }
}

/// Without its unit.
pub(super) fn plain(metric: &Metric, value: f64) -> String {
    metric.format(value).trim_end_matches(" %").to_owned()
}

/// The table, below it what its columns mean.
pub(super) fn text(sweep: &Sweep, metric: &Metric, summaries: &[Summary]) -> String {
    let mut text = format!("{}\n\n{}", metric.title(), align(&rows(sweep, metric, summaries)));
    if let Some(meaning) = meaning(sweep, metric, summaries) {
        text.push('\n');
        text.push_str(&meaning);
        text.push('\n');
    }
    text
}

/// What "sooner" stands for.
pub(super) fn meaning(sweep: &Sweep, metric: &Metric, summaries: &[Summary]) -> Option<String> {
    let baseline = sweep.settings.get(sweep.baseline).filter(|_| sweep.settings.len() > 1)?;
    let level = summaries.get(sweep.baseline)?.last?.mean;
    Some(format!(
        "sooner, less, fewer: what \"{}\" needs to reach its own final {} for the first time, divided by what the setting \
         needs for it; means over seeds, straight lines between evaluations",
        baseline.name,
        metric.format(level)
    ))
}
