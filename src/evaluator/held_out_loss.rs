//! The symmetric contrastive loss on pairs that training never sees. It depends on the batch: only values
//! of the same batch size can be compared.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::similarity::dot;
use super::{Batches, Embedder, Evaluated, Evaluator, EvaluatorError, Material};
use crate::data::SourceConfig;
use crate::kernel::contrastive::host::loss_of_cosines;
use crate::record::Evaluation;

/// The symmetric contrastive loss over batches of a fixed size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeldOutLossConfig {
    /// Name of the result.
    pub name: String,
    /// Pairs. Default: `data.validation`.
    #[serde(default)]
    pub data: Option<SourceConfig>,
    /// Pairs that compete with each other; the last, smaller batch is left out.
    #[schemars(range(min = 2, max = 1_048_576))]
    pub batch: usize,
}

impl Evaluator for HeldOutLossConfig {
    fn kind(&self) -> &'static str {
        "held_out_loss"
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn data(&self) -> Option<&SourceConfig> {
        self.data.as_ref()
    }
    fn batch(&self) -> Option<usize> {
        Some(self.batch)
    }
    fn captions(&self) -> bool {
        true
    }
    fn evaluate(
        &self,
        material: Material<'_>,
        embedder: &mut Embedder<'_>,
    ) -> Result<Evaluated, EvaluatorError> {
        evaluate(self, material.test, embedder, material.logit_scale)
    }
}

fn evaluate(
    config: &HeldOutLossConfig,
    batches: &mut Batches<'_>,
    embedder: &mut Embedder<'_>,
    logit_scale: f64,
) -> Result<Evaluated, EvaluatorError> {
    let nothing = |detail: String| EvaluatorError::NothingToMeasure { name: config.name.clone(), detail };
    if config.batch < 2 {
        return Err(nothing(format!(
            "a batch of {} has nothing to compare; expected 2 or more",
            config.batch
        )));
    }
    let whole = config.batch * embedder.dim;
    let (mut images, mut texts) = (Vec::new(), Vec::new());
    let mut losses = Vec::new();
    let mut pairs = 0;
    while let Some(batch) = batches()? {
        images.extend(embedder.embed_images(&batch)?);
        let captions: Vec<String> =
            batch.captions.iter().map(|captions| captions.first().cloned().unwrap_or_default()).collect();
        texts.extend(embedder.embed_texts(&captions)?);
        pairs += captions.len();
        while images.len() >= whole {
            losses.push(contrastive_loss(&images[..whole], &texts[..whole], embedder.dim, logit_scale));
            images.drain(..whole);
            texts.drain(..whole);
        }
    }
    if losses.is_empty() {
        return Err(nothing(format!(
            "needs at least one whole batch of {} pairs, the data has {pairs}",
            config.batch
        )));
    }
    let evaluation = Evaluation {
        kind: config.kind().into(),
        dataset: config.name.clone(),
        task: format!("batch {}", config.batch),
        metrics: vec![
            ("loss".into(), losses.iter().sum::<f64>() / losses.len() as f64),
            ("batches".into(), losses.len() as f64),
        ],
        n: (losses.len() * config.batch) as u64,
        per_class: Vec::new(),
        confusions: Vec::new(),
    };
    Ok(evaluation.into())
}

/// The loss of [batch, dim] images and texts.
fn contrastive_loss(images: &[f32], texts: &[f32], dim: usize, logit_scale: f64) -> f64 {
    loss_of_cosines(images.len() / dim, logit_scale, |i, j| {
        f64::from(dot(&images[i * dim..][..dim], &texts[j * dim..][..dim]))
    })
}
