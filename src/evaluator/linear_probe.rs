//! A linear classifier on frozen embeddings: logistic regression by L-BFGS, the strength of its penalty
//! chosen as CLIP does (appendix A.3 of arXiv 2103.00020): on images held back from training, over 97
//! strengths from 1e-6 to 1e6, every sixteenth of them first and then ever closer to the best.

use rand::seq::SliceRandom;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::labelled::Labelled;
use super::logistic::{Classifier, Fit, Samples, ITERATIONS};
use super::products::Products;
use super::roc_auc::Sides;
use super::tally::{Ranking, Tally};
use super::{Embedder, Evaluated, Evaluator, EvaluatorError, Known, LabelsConfig, Material};
use crate::data::load::LabelFrom;
use crate::data::SourceConfig;
use crate::seed::{rng, Purpose};

/// A linear classifier on the embeddings of `train`, tried on those of `data`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinearProbeConfig {
    /// Name of the result.
    pub name: String,
    /// Images that are learned from.
    pub train: SourceConfig,
    /// Images that are classified. Default: `data.validation`.
    #[serde(default)]
    pub data: Option<SourceConfig>,
    /// Place of the classes.
    #[serde(default)]
    pub labels: LabelsConfig,
    /// Penalty of large weights.
    #[serde(default)]
    pub penalty: Penalty,
    /// Steps of L-BFGS, at most.
    #[serde(default = "iterations")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub iterations: usize,
}

/// Penalty of large weights.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum Penalty {
    /// The best of 97 strengths, found on images held back; then learned again from all of `train`.
    Sweep {
        /// Share of every class that is held back.
        #[serde(default = "held_out")]
        #[schemars(range(min = 0.0, max = 1.0))]
        held_out: f64,
    },
    /// The inverse strength, as scikit-learn's `C`. Embeddings are of unit length.
    C(#[schemars(range(min = 0.0))] f64),
}

impl Default for Penalty {
    fn default() -> Self {
        Penalty::Sweep { held_out: held_out() }
    }
}

fn held_out() -> f64 {
    0.2
}

fn iterations() -> usize {
    ITERATIONS
}

impl LinearProbeConfig {
    /// The best of 97 penalties, as CLIP does.
    pub fn new(name: &str, train: SourceConfig) -> Self {
        LinearProbeConfig {
            name: name.into(),
            train,
            data: None,
            labels: LabelsConfig::default(),
            penalty: Penalty::default(),
            iterations: iterations(),
        }
    }
}

impl Evaluator for LinearProbeConfig {
    fn kind(&self) -> &'static str {
        "linear_probe"
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
        let (c, chosen) = match self.penalty {
            Penalty::C(c) => (c, None),
            Penalty::Sweep { held_out } => {
                let parts = Parts::of(&labelled, held_out, seed);
                if parts.held_back.classes.is_empty() || parts.kept.classes.is_empty() {
                    let detail = format!(
                        "{held_out} of {} labelled images leaves nothing to hold back or to learn from; \
                         set `penalty: C(...)`, or another `held_out`",
                        labelled.train_classes.len()
                    );
                    return Err(EvaluatorError::NothingToMeasure { name: self.name.clone(), detail });
                }
                let swept = self.sweep(&mut products, &parts, &labelled, stop)?;
                (swept.c, Some(swept))
            }
        };
        let start = chosen.as_ref().map(|swept| &swept.classifier);
        let fit = Fit { c, iterations: self.iterations, stop };
        let classifier = Classifier::fit(&mut products, labelled.training(), fit, start);
        let task = Labelled::task(&self.labels);
        let (mut tally, mut sides) = (Tally::new(labelled.names.len()), Sides::default());
        classifier.each(&mut products, labelled.tests(), |class, logits| {
            tally.add(class, Ranking::of(logits, class));
            sides.add(class, logits);
        });
        let mut result = tally.finish(self.kind(), &self.name, task, &labelled.names);
        result.metrics.extend(sides.roc_auc().map(|area| ("roc_auc".into(), area)));
        result.metrics.push(("c".into(), c));
        if let Some(swept) = chosen {
            result.metrics.push(("held_out_top1".into(), swept.accuracy));
        }
        result.metrics.push(("iterations".into(), classifier.iterations as f64));
        result.metrics.push(("train_n".into(), labelled.train_classes.len() as f64));
        Ok(result.into())
    }
}

/// Rows and their classes.
#[derive(Debug, Default)]
struct Part {
    rows: Vec<f32>,
    classes: Vec<usize>,
}

impl Part {
    fn samples(&self, dim: usize, count: usize) -> Samples<'_> {
        Samples { rows: &self.rows, classes: &self.classes, dim, count }
    }
}

/// Training images, divided.
#[derive(Debug, Default)]
struct Parts {
    kept: Part,
    held_back: Part,
}

impl Parts {
    /// Holds back a share of every class.
    fn of(labelled: &Labelled, share: f64, seed: u64) -> Self {
        let mut parts = Parts::default();
        for class in 0..labelled.names.len() {
            let mut members: Vec<usize> = (0..labelled.train_classes.len())
                .filter(|&sample| labelled.train_classes[sample] == class)
                .collect();
            members.shuffle(&mut rng(seed, Purpose::Labelled, 0, class as u64));
            let held_back = (members.len() as f64 * share).round() as usize;
            for (at, sample) in members.into_iter().enumerate() {
                let part = if at < held_back { &mut parts.held_back } else { &mut parts.kept };
                part.rows.extend(&labelled.train[sample * labelled.dim..][..labelled.dim]);
                part.classes.push(class);
            }
        }
        parts
    }
}

/// Strengths of the sweep: C = 10^(6 - i / 8) for i from 0 to 96.
const STRENGTHS: usize = 96;

/// The best strength on what was held back.
struct Swept {
    c: f64,
    accuracy: f64,
    classifier: Classifier,
}

impl LinearProbeConfig {
    /// Of equally accurate strengths the strongest penalty is the best.
    fn sweep(
        &self,
        products: &mut Products,
        parts: &Parts,
        labelled: &Labelled,
        stop: &dyn Fn() -> bool,
    ) -> Result<Swept, EvaluatorError> {
        let (dim, count) = (labelled.dim, labelled.names.len());
        let mut best: Option<(usize, Swept)> = None;
        let mut tried = [false; STRENGTHS + 1];
        let mut step = 16;
        // From strong to weak: every fit is a good start for the next.
        let mut next: Vec<usize> = (0..=STRENGTHS).rev().step_by(step).collect();
        loop {
            for &index in &next {
                if std::mem::replace(&mut tried[index], true) {
                    continue;
                }
                let c = 10f64.powf(6.0 - index as f64 / 8.0);
                let start = best.as_ref().map(|(_, swept)| &swept.classifier);
                let fit = Fit { c, iterations: self.iterations, stop };
                let classifier = Classifier::fit(products, parts.kept.samples(dim, count), fit, start);
                let accuracy = classifier.tried(products, parts.held_back.samples(dim, count)).top1();
                tracing::debug!(target: "flip::evaluate", c, accuracy, iterations = classifier.iterations, "probe");
                let better = best.as_ref().is_none_or(|(known, swept)| {
                    accuracy > swept.accuracy || (accuracy == swept.accuracy && index > *known)
                });
                if better {
                    best = Some((index, Swept { c, accuracy, classifier }));
                }
            }
            step /= 2;
            match &best {
                Some((index, _)) if step > 0 => {
                    next = [index + step, index.saturating_sub(step)]
                        .into_iter()
                        .filter(|i| *i <= STRENGTHS)
                        .collect();
                }
                Some(_) | None => break,
            }
        }
        best.map(|(_, swept)| swept).ok_or_else(|| EvaluatorError::NothingToMeasure {
            name: self.name.clone(),
            detail: "no strength of the penalty could be tried".into(),
        })
    }
}
