//! Classification by a vote of the nearest labelled images: what embeddings are worth without any learning.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::examples::Best;
use super::labelled::Labelled;
use super::products::{Products, TILE_COLUMNS, TILE_ROWS};
use super::tally::{Ranking, Tally};
use super::{Embedder, Evaluated, Evaluator, EvaluatorError, Known, LabelsConfig, Material};
use crate::data::load::LabelFrom;
use crate::data::SourceConfig;

/// Classification by the k nearest images of `train`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NearestNeighboursConfig {
    /// Name of the result.
    pub name: String,
    /// Images that vote.
    pub train: SourceConfig,
    /// Images that are classified. Default: `data.validation`.
    #[serde(default)]
    pub data: Option<SourceConfig>,
    /// Place of the classes.
    #[serde(default)]
    pub labels: LabelsConfig,
    /// Images that vote on each.
    #[serde(default = "k")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub k: usize,
    /// Votes count exp(similarity / temperature), as DINO's with 0.07. Default: all votes count the same.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub temperature: Option<f64>,
}

fn k() -> usize {
    20
}

impl Evaluator for NearestNeighboursConfig {
    fn kind(&self) -> &'static str {
        "nearest_neighbours"
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
        let labelled = Labelled::gather(&self.name, material, embedder)?;
        let dim = labelled.dim;
        let mut products = Products::new()?;
        let mut tally = Tally::new(labelled.names.len());
        for (block, test) in labelled.test.chunks(TILE_ROWS * dim).enumerate() {
            let mut nearest: Vec<Best<usize>> = (0..test.len() / dim).map(|_| Best::new(self.k)).collect();
            for (tile, train) in labelled.train.chunks(TILE_COLUMNS * dim).enumerate() {
                let similarities = products.of(test, train, dim).chunks_exact(train.len() / dim);
                for (nearest, similarities) in nearest.iter_mut().zip(similarities) {
                    for (column, similarity) in similarities.iter().enumerate() {
                        nearest.offer(*similarity, || labelled.train_classes[tile * TILE_COLUMNS + column]);
                    }
                }
            }
            let classes = &labelled.test_classes[block * TILE_ROWS..];
            for (nearest, &class) in nearest.into_iter().zip(classes) {
                tally.add(class, Ranking::of(&self.votes(nearest.finish(), labelled.names.len()), class));
            }
        }
        let task = Labelled::task(&self.labels);
        let mut result = tally.finish(self.kind(), &self.name, task, &labelled.names);
        result.metrics.push(("k".into(), self.k as f64));
        result.metrics.push(("train_n".into(), labelled.train_classes.len() as f64));
        Ok(result.into())
    }
}

impl NearestNeighboursConfig {
    /// [classes] votes, as a share of the most there can be.
    fn votes(&self, nearest: Vec<(f32, usize)>, classes: usize) -> Vec<f32> {
        let mut votes = vec![0.0f64; classes];
        for (similarity, class) in nearest {
            votes[class] += match self.temperature {
                // Rounding may take a similarity above 1, and a low temperature that to infinity.
                Some(temperature) => ((f64::from(similarity).min(1.0) - 1.0) / temperature).exp(),
                None => 1.0,
            };
        }
        let most: f64 = votes.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        votes.iter().map(|votes| (votes / most) as f32).collect()
    }
}
