//! Memory that a training stage needs, estimated from sizes alone.

use serde::Serialize;

use super::{Compute, Precision};
use crate::model::ModelConfig;

/// Bytes that a training stage needs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Memory {
    /// 32-bit masters, and their 16-bit copy in Bf16.
    pub parameters: f64,
    pub gradients: f64,
    /// AdamW's first and second moments.
    pub moments: f64,
    /// What a micro-batch's forward pass leaves for its backward pass.
    pub activations: f64,
    /// Embeddings of the whole batch, and their products where those are kept.
    pub loss: f64,
    /// Decoded pictures of one batch, in host memory.
    pub pictures: f64,
}

/// What one update works on.
pub struct Update {
    pub kept_patches: usize,
    pub kept_tokens: usize,
    /// Side of the training pictures, pixels.
    pub image_size: usize,
    pub batch: usize,
    pub micro_batch: usize,
}

impl Memory {
    /// The estimate for an update.
    pub fn of(model: &ModelConfig, precision: Precision, compute: Compute, update: &Update) -> Memory {
        let parameters = model.parameter_counts().total() as f64;
        let (value, copy) = match precision {
            Precision::F32 => (4.0, 0.0),
            Precision::Bf16 => (2.0, 2.0),
        };
        let [width, depth, heads] =
            [model.image.width, model.image.depth, model.image.heads].map(|n| n as f64);
        let image = Blocks { width, hidden: model.image.hidden() as f64, depth, heads };
        let [width, depth, heads] = [model.text.width, model.text.depth, model.text.heads].map(|n| n as f64);
        let text = Blocks { width, hidden: model.text.hidden() as f64, depth, heads };
        let per_pair = image.activations(update.kept_patches as f64 + 1.0, compute)
            + text.activations(update.kept_tokens as f64, compute);

        let batch = update.batch as f64;
        // Both encoders' embeddings with their gradients; the reference also keeps each pair with each other.
        let embeddings = 2.0 * 2.0 * batch * model.embed_dim as f64;
        let products = match compute {
            Compute::Fused => 0.0,
            Compute::Reference => 8.0 * batch * batch,
        };
        Memory {
            parameters: (4.0 + copy) * parameters,
            gradients: 4.0 * parameters,
            moments: 8.0 * parameters,
            activations: update.micro_batch as f64 * per_pair * value,
            loss: 4.0 * (embeddings + products),
            pictures: batch * (update.image_size as f64).powi(2) * 3.0,
        }
    }

    /// All of it.
    pub fn total(&self) -> f64 {
        self.parameters + self.gradients + self.moments + self.activations + self.loss + self.pictures
    }
}

/// The blocks of one encoder.
struct Blocks {
    width: f64,
    hidden: f64,
    depth: f64,
    heads: f64,
}

impl Blocks {
    /// Numbers that the forward pass over `tokens` tokens of one sample leaves for the backward pass.
    ///
    /// Fused, per token and block: both norms' results, q, k, v, the attention's result and two residuals (8
    /// widths), the MLP before and after its activation, the attention's weights. The composed graph keeps the
    /// result and the gradient of every elementary operation.
    fn activations(&self, tokens: f64, compute: Compute) -> f64 {
        let weights = self.heads * tokens;
        let per_token = match compute {
            Compute::Fused => 8.0 * self.width + 2.0 * self.hidden + weights,
            Compute::Reference => 2.0 * (30.0 * self.width + 6.0 * self.hidden + 4.0 * weights),
        };
        self.depth * tokens * per_token
    }
}
