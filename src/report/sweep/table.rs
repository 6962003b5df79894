//! The outcome of a sweep as rows of text: one table for the terminal and for the page.

use super::charts::Unit;
use super::summary::{Spread, Summary};
use super::{Along, Metric, Sweep};
use crate::report::table::align;
use crate::report::words::grouped;
use crate::terminal;

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
    let tells = level(sweep, summaries).is_none_or(|level| metric.tells(level));
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
                None if summary.finished == 0 || !tells => "-".into(),
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

/// The value that the baseline ends with, which the others are to reach.
fn level(sweep: &Sweep, summaries: &[Summary]) -> Option<f64> {
    Some(summaries.get(sweep.baseline)?.last?.mean)
}

/// A value without its unit.
pub(super) fn plain(metric: &Metric, value: f64) -> String {
    metric.format(value).trim_end_matches(" %").to_owned()
}

/// The table, below it the meaning of its columns.
pub(super) fn text(sweep: &Sweep, metric: &Metric, summaries: &[Summary], columns: Option<usize>) -> String {
    let mut text = format!("{}\n\n{}", metric.title(), align(&rows(sweep, metric, summaries), columns));
    if let Some(meaning) = meaning(sweep, metric, summaries) {
        text.push('\n');
        text.push_str(&terminal::wrapped(&meaning, columns.unwrap_or(usize::MAX), 0));
        text.push('\n');
    }
    text
}

/// Meaning of "sooner", or the reason why it is not told.
pub(super) fn meaning(sweep: &Sweep, metric: &Metric, summaries: &[Summary]) -> Option<String> {
    let baseline = sweep.settings.get(sweep.baseline).filter(|_| sweep.settings.len() > 1)?;
    let level = level(sweep, summaries)?;
    if let Some(chance) = metric.chance.filter(|_| !metric.tells(level)) {
        return Some(format!(
            "\"{}\" ends at {}, less than twice the {} of guesses: how soon another setting gets there says nothing, so it \
             is not told",
            baseline.name,
            metric.format(level),
            metric.format(chance)
        ));
    }
    Some(format!(
        "sooner, less, fewer: cost at which \"{}\" first reaches its own final {}, divided by the cost at which the setting \
         reaches it; means over seeds, straight lines between evaluations",
        baseline.name,
        metric.format(level)
    ))
}
