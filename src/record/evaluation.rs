//! Rows of `eval.json`.

use std::fmt;
use std::ops::Deref;
use std::path::Path;

use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::number::or_nan;
use super::{read_if_there, RecordError, RunFolder};

/// A row of `eval.json`: an evaluation, and where in the run it was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluationRow {
    /// Index of the stage in the recipe.
    pub stage: usize,
    /// Updates of that stage that were done; 0 for a stage of evaluations.
    #[serde(default)]
    pub step: u64,
    /// Pairs the run had seen.
    #[serde(default)]
    pub samples: u64,
    /// The result.
    #[serde(flatten)]
    pub evaluation: Evaluation,
}

/// One measured result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Kind of evaluator: `zero_shot`, `retrieval`, ...
    pub kind: String,
    /// Name given in the recipe.
    pub dataset: String,
    /// The question, for example the task or the split.
    #[serde(default)]
    pub task: String,
    /// Metric names and values in a fixed order, the main one first; an object in JSON, where null is NaN. A list of pairs is
    /// read too.
    #[serde(serialize_with = "write_metrics", deserialize_with = "read_metrics")]
    pub metrics: Vec<(String, f64)>,
    /// Samples that counted.
    pub n: u64,
    /// Accuracy per class where there are classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_class: Vec<ClassResult>,
    /// Classes that were taken for others, the most frequent first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confusions: Vec<Confusion>,
}

/// Accuracy on one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassResult {
    /// Name of the class.
    pub name: String,
    /// Its samples.
    pub n: u64,
    /// Fraction that was right, 0 to 1; NaN where the file has null.
    #[serde(deserialize_with = "or_nan")]
    pub top1: f64,
}

/// Images of one class that were taken for another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// The class they belong to.
    pub class: String,
    /// The class they were taken for.
    pub taken_for: String,
    /// Number of images.
    pub n: u64,
}

impl EvaluationRow {
    /// The rows of an `eval.json`; none where it is not there yet.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub fn read_all(path: &Path) -> Result<Vec<EvaluationRow>, RecordError> {
        let Some(text) = read_if_there(path)? else { return Ok(Vec::new()) };
        serde_json::from_slice(&text).map_err(|source| content(path, source))
    }

    /// Replaces the `eval.json` of a run.
    ///
    /// # Errors
    /// The folder was moved, or cannot be written.
    pub fn write_all(folder: &RunFolder, rows: &[EvaluationRow]) -> Result<(), RecordError> {
        let path = folder.evaluations();
        let mut text = serde_json::to_vec_pretty(rows).map_err(|source| content(&path, source))?;
        text.push(b'\n');
        Ok(folder.replace(&path, &text)?)
    }
}

fn content(path: &Path, source: serde_json::Error) -> RecordError {
    RecordError::Content {
        path: path.to_path_buf(),
        expected: "list of evaluations that a run writes",
        advice: "Put it back, or delete it: what was measured before the newest checkpoint is lost then",
        source,
    }
}

/// A row is a result, with its place beside.
impl Deref for EvaluationRow {
    type Target = Evaluation;

    fn deref(&self) -> &Evaluation {
        &self.evaluation
    }
}

fn write_metrics<S: Serializer>(metrics: &[(String, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(metrics.iter().map(|(name, value)| (name, value)))
}

/// An object or a list of pairs; a map type would forget the order.
fn read_metrics<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, f64)>, D::Error> {
    struct Metrics;
    impl<'de> Visitor<'de> for Metrics {
        type Value = Vec<(String, f64)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("metrics as {\"name\": value} or [[\"name\", value]]")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut metrics = Vec::new();
            while let Some((name, value)) = map.next_entry::<String, Option<f64>>()? {
                metrics.push((name, value.unwrap_or(f64::NAN)));
            }
            Ok(metrics)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut metrics = Vec::new();
            while let Some((name, value)) = list.next_element::<(String, Option<f64>)>()? {
                metrics.push((name, value.unwrap_or(f64::NAN)));
            }
            Ok(metrics)
        }
    }
    deserializer.deserialize_any(Metrics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_rows_are_read_in_their_order_and_a_value_that_is_not_finite_is_nan() {
        let row = EvaluationRow {
            stage: 1,
            step: 20,
            samples: 320,
            evaluation: Evaluation {
                kind: "zero_shot".into(),
                dataset: "scenes".into(),
                task: "held out".into(),
                metrics: vec![("top5".into(), 0.5), ("top1".into(), f64::NAN)],
                n: 9,
                per_class: vec![ClassResult { name: "red".into(), n: 3, top1: f64::NAN }],
                confusions: Vec::new(),
            },
        };
        let text = serde_json::to_string(&row).unwrap();
        let expected = r#"{"stage":1,"step":20,"samples":320,"kind":"zero_shot","dataset":"scenes","task":"held out","metrics":{"top5":0.5,"top1":null},"n":9,"per_class":[{"name":"red","n":3,"top1":null}]}"#;
        assert_eq!(text, expected);
        let read: EvaluationRow = serde_json::from_str(&text).unwrap();
        assert_eq!(format!("{read:?}"), format!("{row:?}"));
        let pairs = r#"{"stage": 0, "kind": "retrieval", "dataset": "x", "metrics": [["r1", 1.0], ["r5", null]], "n": 2}"#;
        let read: EvaluationRow = serde_json::from_str(pairs).unwrap();
        assert_eq!((read.step, read.metrics[0].1, read.metrics[1].1.is_nan()), (0, 1.0, true));
    }
}
