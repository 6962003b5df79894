//! The number that counts among those of an evaluation.

use crate::evaluator::data_sets::Measure;
use crate::evaluator::DataSet;
use crate::record::{Evaluation, Measured};

/// An evaluation as rows of the table: one a number that papers report, with chance beside it.
pub(super) fn rows(mut evaluation: Evaluation, row: impl Fn(Evaluation) -> Measured) -> Vec<Measured> {
    let measure = DataSet::named(&evaluation.dataset).map(|set| set.measure);
    if measure == Some(Measure::MeanOfTop1And5) {
        if let (Some(first), Some(five)) = (value(&evaluation, "top1"), value(&evaluation, "top5")) {
            evaluation.metrics.push(("mean_of_top1_and_top5".into(), (first + five) / 2.0));
        }
    }
    let names = names(&evaluation, measure);
    let with = |metric: String| {
        let value = value(&evaluation, &metric).unwrap_or(f64::NAN);
        let chance = chance(&evaluation, &metric);
        Measured { metric, value, chance, ..row(evaluation.clone()) }
    };
    names.into_iter().map(with).collect()
}

fn value(evaluation: &Evaluation, name: &str) -> Option<f64> {
    evaluation.metrics.iter().find(|(metric, _)| metric == name).map(|(_, value)| *value)
}

/// The metrics that are reported of a data set, as far as they were measured.
fn names(evaluation: &Evaluation, measure: Option<Measure>) -> Vec<String> {
    let there = |name: &&str| value(evaluation, name).is_some();
    let first = evaluation.metrics.first().map(|(name, _)| name.clone());
    match evaluation.kind.as_str() {
        "retrieval" => ["image_to_text", "text_to_image"].map(|way| format!("{way}_recall_at_1")).into(),
        "few_shot" => {
            let shots = evaluation.metrics.iter().filter(|(name, _)| name.starts_with("top1_of_"));
            shots.map(|(name, _)| name.clone()).collect()
        }
        _ => {
            let reported = measure.map(|measure| match measure {
                Measure::Accuracy | Measure::Recall => "top1",
                Measure::MeanPerClass => "mean_per_class",
                Measure::ElevenPointMap => "map_11_points",
                Measure::RocAuc => "roc_auc",
                Measure::MeanOfTop1And5 => "mean_of_top1_and_top5",
            });
            reported.filter(there).map(str::to_owned).or(first).into_iter().collect()
        }
    }
}

/// Value that guessing reaches.
fn chance(evaluation: &Evaluation, metric: &str) -> Option<f64> {
    let classes = value(evaluation, "classes").filter(|classes| *classes > 0.0);
    match metric {
        "roc_auc" => Some(0.5),
        "mean_of_top1_and_top5" => classes.map(|classes| (1.0 / classes + (5.0 / classes).min(1.0)) / 2.0),
        // One of all images, or any of an image's captions out of all.
        name if name.ends_with("_recall_at_1") => (evaluation.n > 0).then(|| 1.0 / evaluation.n as f64),
        _ => value(evaluation, "chance"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(dataset: &str, kind: &str, metrics: &[(&str, f64)]) -> Vec<(String, f64, Option<f64>)> {
        let metrics = metrics.iter().map(|(name, value)| (name.to_string(), *value)).collect();
        let evaluation = Evaluation {
            kind: kind.into(),
            dataset: dataset.into(),
            task: String::new(),
            metrics,
            n: 50,
            per_class: Vec::new(),
            confusions: Vec::new(),
        };
        let row = |evaluation| Measured {
            metric: String::new(),
            value: 0.0,
            chance: None,
            seconds: 1.0,
            cached: false,
            left_out: String::new(),
            data: String::new(),
            evaluation,
        };
        rows(evaluation, row).into_iter().map(|row| (row.metric, row.value, row.chance)).collect()
    }

    #[test]
    fn each_set_is_reported_by_the_measure_of_papers() {
        let accuracies =
            [("top1", 0.5), ("top5", 0.9), ("mean_per_class", 0.4), ("chance", 0.01), ("classes", 100.0)];
        let of = |name: &str| reported(name, "zero_shot", &accuracies);
        assert_eq!(of("cifar10"), [("top1".into(), 0.5, Some(0.01))]);
        assert_eq!(of("wds_vtab-pets"), [("mean_per_class".into(), 0.4, Some(0.01))]);
        assert_eq!(of("my_birds"), [("top1".into(), 0.5, Some(0.01))]);
        let kinetics = of("kinetics700");
        assert_eq!(kinetics[0].0, "mean_of_top1_and_top5");
        assert!((kinetics[0].1 - 0.7).abs() < 1e-12 && (kinetics[0].2.unwrap() - 0.03).abs() < 1e-12);
        let binary = [("top1", 0.6), ("chance", 0.5), ("classes", 2.0), ("roc_auc", 0.7)];
        assert_eq!(reported("hateful_memes", "zero_shot", &binary), [("roc_auc".into(), 0.7, Some(0.5))]);
        assert_eq!(reported("pcam", "zero_shot", &binary), [("top1".into(), 0.6, Some(0.5))]);
        let voc = [("map", 0.8), ("map_11_points", 0.78), ("chance", 0.07), ("classes", 20.0)];
        assert_eq!(
            reported("voc2007_multilabel", "zero_shot", &voc),
            [("map_11_points".into(), 0.78, Some(0.07))]
        );
        assert_eq!(reported("other", "zero_shot", &voc)[0].0, "map");
        let recalls = [("image_to_text_recall_at_1", 0.3), ("text_to_image_recall_at_1", 0.2)];
        let ways = reported("flickr30k", "retrieval", &recalls);
        assert_eq!((ways.len(), ways[1].1, ways[1].2), (2, 0.2, Some(0.02)));
    }
}
