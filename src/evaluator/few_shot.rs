//! A linear classifier from a few labelled images of each class, averaged over several draws of them.

use rand::seq::SliceRandom;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::labelled::Labelled;
use super::logistic::{Classifier, Fit, Samples, ITERATIONS};
use super::products::Products;
use super::{Embedder, Evaluated, Evaluator, EvaluatorError, Known, LabelsConfig, Material};
use crate::data::load::LabelFrom;
use crate::data::SourceConfig;
use crate::record::Evaluation;
use crate::seed::{rng, Purpose};

/// A linear classifier on n images of every class of `train`, tried on those of `data`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FewShotConfig {
    /// Name of the result.
    pub name: String,
    /// Images that are drawn from.
    pub train: SourceConfig,
    /// Images that are classified. Default: `data.validation`.
    #[serde(default)]
    pub data: Option<SourceConfig>,
    /// Place of the classes.
    #[serde(default)]
    pub labels: LabelsConfig,
    /// Images of each class; a class that has fewer gives all.
    #[serde(default = "shots")]
    pub shots: Vec<usize>,
    /// Draws that are averaged.
    #[serde(default = "draws")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub draws: usize,
    /// The inverse strength of the penalty on large weights, as scikit-learn's `C`. Embeddings are of unit
    /// length.
    #[serde(default = "c")]
    #[schemars(range(min = 0.0))]
    pub c: f64,
}

fn shots() -> Vec<usize> {
    vec![1, 2, 4, 8, 16]
}
fn draws() -> usize {
    3
}
fn c() -> f64 {
    32.0
}

impl FewShotConfig {
    /// 1, 2, 4, 8 and 16 images of each class, three times.
    pub fn new(name: &str, train: SourceConfig) -> Self {
        FewShotConfig {
            name: name.into(),
            train,
            data: None,
            labels: LabelsConfig::default(),
            shots: shots(),
            draws: draws(),
            c: c(),
        }
    }
}

impl Evaluator for FewShotConfig {
    fn kind(&self) -> &'static str {
        "few_shot"
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn data(&self) -> Option<&SourceConfig> {
        self.data.as_ref()
    }
    fn train(&self) -> Option<&SourceConfig> {
        Some(&self.train)
    }
    fn label(&self, _known: Known<'_>) -> Result<LabelFrom, EvaluatorError> {
        Ok(self.labels.label())
    }
    fn evaluate(
        &self,
        material: Material<'_>,
        embedder: &mut Embedder<'_>,
    ) -> Result<Evaluated, EvaluatorError> {
        let (seed, stop) = (material.seed, material.stop);
        let labelled = Labelled::gather(&self.name, material, embedder)?;
        let mut products = Products::new()?;
        let mut metrics = Vec::new();
        for &shots in &self.shots {
            let mut accuracies = Vec::with_capacity(self.draws);
            for draw in 0..self.draws {
                let (rows, classes) = drawn(&labelled, shots, seed, draw as u64);
                let (dim, count) = (labelled.dim, labelled.names.len());
                let samples = Samples { rows: &rows, classes: &classes, dim, count };
                let fit = Fit { c: self.c, iterations: ITERATIONS, stop };
                let classifier = Classifier::fit(&mut products, samples, fit, None);
                accuracies.push(classifier.tried(&mut products, labelled.tests()).top1());
            }
            let n = accuracies.len() as f64;
            let mean = accuracies.iter().sum::<f64>() / n;
            let variance = accuracies.iter().map(|top1| (top1 - mean).powi(2)).sum::<f64>() / n;
            metrics.push((format!("top1_of_{shots}_shots"), mean));
            metrics.push((format!("deviation_of_{shots}_shots"), variance.sqrt()));
        }
        metrics.push(("chance".into(), 1.0 / labelled.names.len() as f64));
        metrics.push(("draws".into(), self.draws as f64));
        let evaluation = Evaluation {
            kind: self.kind().into(),
            dataset: self.name.clone(),
            task: Labelled::task(&self.labels).into(),
            metrics,
            n: labelled.test_classes.len() as u64,
            per_class: Vec::new(),
            confusions: Vec::new(),
        };
        Ok(evaluation.into())
    }
}

/// `shots` training images of every class. More shots contain those of fewer.
fn drawn(labelled: &Labelled, shots: usize, seed: u64, draw: u64) -> (Vec<f32>, Vec<usize>) {
    let (mut rows, mut classes) = (Vec::new(), Vec::new());
    for class in 0..labelled.names.len() {
        let mut members: Vec<usize> = (0..labelled.train_classes.len())
            .filter(|&sample| labelled.train_classes[sample] == class)
            .collect();
        members.shuffle(&mut rng(seed, Purpose::Labelled, draw + 1, class as u64));
        for sample in members.into_iter().take(shots) {
            rows.extend(&labelled.train[sample * labelled.dim..][..labelled.dim]);
            classes.push(class);
        }
    }
    (rows, classes)
}
