//! Numbers, metrics and evaluations as a person says them.

use super::evaluation::Subject;
use crate::terminal;

pub use crate::terminal::{grouped, rate};

/// Minutes as a duration: `12 s`, `3.4 min`, `5.0 h`.
pub fn duration(minutes: f64) -> String {
    terminal::duration(60.0 * minutes)
}

/// `2026-11-30 15:03 UTC` of an RFC 3339 time in UTC; other text as it is.
pub(super) fn minute(time: &str) -> String {
    match (time.get(..10), time.get(10..11), time.get(11..16), time.ends_with('Z')) {
        (Some(day), Some("T"), Some(minute), true) => format!("{day} {minute} UTC"),
        _ => time.to_owned(),
    }
}

/// A share as per cent.
pub(super) fn percent(share: f64) -> String {
    match share {
        share if share >= 0.0995 => format!("{:.0} %", 100.0 * share),
        share => format!("{:.1} %", 100.0 * share),
    }
}

/// A kind of evaluation: `zero-shot classification` for `zero_shot`.
pub(super) fn kind(name: &str) -> String {
    match name {
        "zero_shot" => "zero-shot classification".into(),
        "few_shot" => "few-shot classification".into(),
        "held_out_loss" => "held-out loss".into(),
        other => other.replace('_', " "),
    }
}

/// A metric: `accuracy` for `top1`.
pub(super) fn metric(name: &str) -> String {
    if let Some((direction, k)) = name.split_once("_recall_at_") {
        return format!("{}, recall at {k}", direction.replace('_', " "));
    }
    if let Some(shots) = name.strip_prefix("top1_of_").and_then(|rest| rest.strip_suffix("_shots")) {
        return format!("accuracy, {shots} shots");
    }
    if let Some(shots) = name.strip_prefix("deviation_of_").and_then(|rest| rest.strip_suffix("_shots")) {
        return format!("its deviation over draws, {shots} shots");
    }
    match name {
        "top1" => "accuracy".into(),
        "top5" => "accuracy among the best 5".into(),
        "map" => "mean average precision".into(),
        "map_11_points" => "mean average precision, 11 points".into(),
        "roc_auc" => "ROC-AUC".into(),
        "mean_per_class" => "accuracy, mean over classes".into(),
        "held_out_top1" => "accuracy while choosing c".into(),
        other => other.replace('_', " "),
    }
}

/// A measurement on a tile: `zero-shot accuracy on held-out scenes`.
pub(super) fn headline(subject: &Subject<'_>, name: &str) -> String {
    let what = match (subject.kind, name) {
        ("zero_shot", "top1") => "zero-shot accuracy".into(),
        ("few_shot", _) => format!("few-shot {}", metric(name)),
        ("linear_probe", "top1") => "linear-probe accuracy".into(),
        ("nearest_neighbours", "top1") => "nearest-neighbour accuracy".into(),
        _ => metric(name),
    };
    format!("{what} on {}", subject.dataset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_and_evaluations_have_words() {
        assert_eq!(metric("image_to_text_recall_at_5"), "image to text, recall at 5");
        assert_eq!(metric("top1_of_16_shots"), "accuracy, 16 shots");
        assert_eq!(metric("something_new"), "something new");
        let subject = Subject { kind: "zero_shot", dataset: "birds", task: "source classes" };
        assert_eq!(headline(&subject, "top1"), "zero-shot accuracy on birds");
        assert_eq!(percent(1.0 / 48.0), "2.1 %");
        assert_eq!(percent(0.25), "25 %");
        assert_eq!(minute("2026-11-30T15:03:59Z"), "2026-11-30 15:03 UTC");
        assert_eq!(minute("yesterday"), "yesterday");
    }
}
