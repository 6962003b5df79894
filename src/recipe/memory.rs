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
    /// What a micro-batch's forward pass leaves for its backward pass; in the composed graph also the logits
    /// of the batch, each pair with each other.
    pub activations: f64,
    /// Embeddings of the whole batch and their gradients.
    pub embeddings: f64,
    /// Decoded pictures of one batch, in host memory.
    pub pictures: f64,
    pub total: f64,
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
        let Update { kept_patches, kept_tokens, image_size, batch, micro_batch } = *update;
        let activations = match compute {
            Compute::Reference => model.activation_bytes(kept_patches, kept_tokens, batch, micro_batch),
            Compute::Fused => {
                micro_batch as f64 * fused_activations(model, kept_patches, kept_tokens) * value
            }
        };
        let mut memory = Memory {
            parameters: (4.0 + copy) * parameters,
            gradients: 4.0 * parameters,
            moments: 8.0 * parameters,
            activations,
            embeddings: 4.0 * 2.0 * 2.0 * batch as f64 * model.embed_dim as f64,
            pictures: batch as f64 * (image_size as f64).powi(2) * 3.0,
            total: 0.0,
        };
        memory.total = memory.parts().iter().map(|(_, bytes)| bytes).sum();
        memory
    }

    /// Each part with its name.
    pub fn parts(&self) -> [(&'static str, f64); 6] {
        [
            ("parameters", self.parameters),
            ("gradients", self.gradients),
            ("moments", self.moments),
            ("activations", self.activations),
            ("embeddings", self.embeddings),
            ("pictures", self.pictures),
        ]
    }
}

/// Numbers that fused kernels keep of one pair's forward pass for its backward pass. Per token and block:
/// both norms' results, q, k, v, the attention's result and two residuals (8 widths), the MLP before and after
/// its activation, the attention's weights.
fn fused_activations(model: &ModelConfig, kept_patches: usize, kept_tokens: usize) -> f64 {
    let blocks = |[width, hidden, depth, heads, tokens]: [usize; 5]| {
        let per_token = 8.0 * width as f64 + 2.0 * hidden as f64 + heads as f64 * tokens as f64;
        depth as f64 * tokens as f64 * per_token
    };
    let (image, text) = (&model.image, &model.text);
    blocks([image.width, image.hidden(), image.depth, image.heads, kept_patches + 1])
        + blocks([text.width, text.hidden(), text.depth, text.heads, kept_tokens])
}
