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
        let (patches, tokens) = (update.kept_patches, update.kept_tokens);
        let per_pair = match compute {
            Compute::Fused => model.fused_activations(patches, tokens),
            Compute::Reference => model.composed_activations(patches, tokens),
        };
        let batch = update.batch as f64;
        // Both encoders' embeddings with their gradients; the reference also keeps each pair with each other.
        let embeddings = 2.0 * 2.0 * batch * model.embed_dim as f64;
        let products = match compute {
            Compute::Fused => 0.0,
            Compute::Reference => 8.0 * batch * batch,
        };
        let mut memory = Memory {
            parameters: (4.0 + copy) * parameters,
            gradients: 4.0 * parameters,
            moments: 8.0 * parameters,
            activations: update.micro_batch as f64 * per_pair * value,
            loss: 4.0 * (embeddings + products),
            pictures: batch * (update.image_size as f64).powi(2) * 3.0,
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
            ("loss", self.loss),
            ("pictures", self.pictures),
        ]
    }
}
