//! What was measured, as a row of `eval.json` has it.

use serde::{Deserialize, Serialize};

use super::examples::Example;

/// One measured result: what a row of `eval.json` says beside where in the run it was taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// [`Evaluator::kind`](super::Evaluator::kind).
    pub kind: String,
    /// Name given in the recipe.
    pub dataset: String,
    /// What was asked, for example the task or the split.
    pub task: String,
    /// Metric name to value, in a fixed order; an object in JSON.
    #[serde(with = "ordered_map")]
    pub metrics: Vec<(String, f64)>,
    /// Samples that counted.
    pub n: u64,
    /// Accuracy per class where there are classes: name, samples, share that was right.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_class: Vec<ClassResult>,
    /// Which classes were taken for which others, the most frequent first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confusions: Vec<Confusion>,
    /// Images for a person to look at; not part of the row.
    #[serde(skip)]
    pub examples: Vec<Example>,
}

/// Images of one class that were taken for another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// The class they belong to.
    pub class: String,
    /// The class they were taken for.
    pub taken_for: String,
    /// How many.
    pub n: u64,
}

/// Pairs as a JSON object that keeps their order.
mod ordered_map {
    use std::fmt;

    use serde::de::{MapAccess, Visitor};
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(pairs: &[(String, f64)], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(pairs.iter().map(|(name, value)| (name, value)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, f64)>, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Vec<(String, f64)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of metric names and numbers")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Option<f64>>()? {
                    pairs.push((name, value.unwrap_or(f64::NAN)));
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// How one class fared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassResult {
    pub name: String,
    pub n: u64,
    pub top1: f64,
}
