//! Labelled embeddings in memory, for evaluators that learn from them.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::logistic::Samples;
use super::{Batches, Embedder, EvaluatorError, Known, Material};
use crate::data::load::LabelFrom;

/// Place of an image's class.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum LabelsConfig {
    /// The source knows it: sub-folders, `.cls` members, scenes.
    #[default]
    Source,
    /// A field of the sample's json.
    Field(String),
}

impl LabelsConfig {
    pub(super) fn label(&self) -> LabelFrom {
        match self {
            LabelsConfig::Source => LabelFrom::Source,
            LabelsConfig::Field(field) => LabelFrom::JsonField(field.clone()),
        }
    }
}

/// Embeddings with their classes.
#[derive(Debug, Clone, Default)]
pub(super) struct Features {
    /// [n, dim]
    pub rows: Vec<f32>,
    /// [n]
    pub labels: Vec<i64>,
    /// Images that may show several classes.
    pub several: usize,
}

impl Features {
    fn gather(batches: &mut Batches<'_>, embedder: &mut Embedder<'_>) -> Result<Self, EvaluatorError> {
        let mut features = Features::default();
        while let Some(batch) = batches()? {
            let rows = embedder.embed_images(&batch)?;
            features.several += batch.label_sets.iter().flatten().count();
            for (row, label) in rows.chunks_exact(embedder.dim).zip(&batch.labels) {
                // Samples without a label are in other classes, or in none.
                if let Some(label) = label {
                    features.rows.extend(row);
                    features.labels.push(*label);
                }
            }
        }
        Ok(features)
    }
}

/// Training and test samples. Classes are counted from 0 in the order of their labels.
#[derive(Debug)]
pub(super) struct Labelled {
    pub dim: usize,
    /// [n, dim]
    pub train: Vec<f32>,
    pub train_classes: Vec<usize>,
    pub test: Vec<f32>,
    pub test_classes: Vec<usize>,
    /// By class.
    pub names: Vec<String>,
}

impl Labelled {
    /// Samples to learn from.
    pub fn training(&self) -> Samples<'_> {
        let Labelled { dim, train, train_classes, .. } = self;
        Samples { rows: train, classes: train_classes, dim: *dim, count: self.names.len() }
    }

    /// Samples that a classifier is tried on.
    pub fn tests(&self) -> Samples<'_> {
        let Labelled { dim, test, test_classes, .. } = self;
        Samples { rows: test, classes: test_classes, dim: *dim, count: self.names.len() }
    }

    /// Embeds both.
    pub fn gather(
        name: &str,
        material: Material<'_>,
        embedder: &mut Embedder<'_>,
    ) -> Result<Self, EvaluatorError> {
        let train = material.train.ok_or_else(|| EvaluatorError::NoTrainingData { name: name.into() })?;
        let train = Features::gather(train, embedder)?;
        let test = Features::gather(material.test, embedder)?;
        for (what, features) in [("train", &train), ("data", &test)] {
            if features.labels.is_empty() {
                let detail = match features.several {
                    0 => format!("no sample of `{what}` has a label"),
                    n => format!(
                        "{n} images of `{what}` may show several classes; classifiers here learn one class an image. Measure it \
                         with zero-shot classification, which reports mean average precision"
                    ),
                };
                return Err(EvaluatorError::NothingToMeasure { name: name.into(), detail });
            }
        }
        let labels: BTreeSet<i64> = train.labels.iter().chain(&test.labels).copied().collect();
        let labels: Vec<i64> = labels.into_iter().collect();
        let trained: BTreeSet<i64> = train.labels.iter().copied().collect();
        if trained.len() < 2 {
            let detail = "every sample of `train` has the same label; expected two classes or more".into();
            return Err(EvaluatorError::NothingToMeasure { name: name.into(), detail });
        }
        // Every label is in the list.
        let class = |label: &i64| labels.partition_point(|known| known < label);
        Ok(Labelled {
            dim: embedder.dim,
            train_classes: train.labels.iter().map(class).collect(),
            test_classes: test.labels.iter().map(class).collect(),
            train: train.rows,
            test: test.rows,
            names: labels.iter().map(|label| name_of(*label, material.known)).collect(),
        })
    }

    /// Name of the task, for the result.
    pub fn task(labels: &LabelsConfig) -> &str {
        match labels {
            LabelsConfig::Source => "source classes",
            LabelsConfig::Field(field) => field,
        }
    }
}

fn name_of(label: i64, known: Known<'_>) -> String {
    let named = usize::try_from(label).ok().and_then(|label| known.classes.get(label));
    named.cloned().unwrap_or_else(|| label.to_string())
}
