//! Memory that a training stage needs, estimated from sizes alone.

use serde::Serialize;

use super::{Compute, Fusion, Precision};
use crate::model::{arena_bytes, weight_copies, ModelConfig};

/// Bytes that a training stage needs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Memory {
    /// 32-bit masters, and what fused kernels read: in Bf16 a rounded copy of all but the token table, in F32
    /// copies of small weights and two of one large weight at a time.
    pub parameters: f64,
    pub gradients: f64,
    /// AdamW's first and second moments.
    pub moments: f64,
    /// What a micro-batch's forward pass leaves for its backward pass: the arenas of the fused encoders; in the
    /// composed graph also the logits of the batch, each pair with each other.
    pub activations: f64,
    /// Embeddings of the whole batch and their gradients.
    pub embeddings: f64,
    /// What pictures of [`BATCHES`] batches keep of themselves, bytes in host memory.
    pub pictures: f64,
    pub total: f64,
}

/// Batches in memory at a time: the one in use, its copy in micro-batches, and two that are loaded ahead.
const BATCHES: f64 = 4.0;

/// What one update works on.
pub struct Update {
    pub kept_patches: usize,
    pub kept_tokens: usize,
    pub batch: usize,
    pub micro_batch: usize,
}

impl Memory {
    /// The estimate for an update.
    pub fn of(model: &ModelConfig, compute: Compute, fusion: Fusion, update: &Update) -> Memory {
        let Fusion { precision, recompute, .. } = fusion;
        let parameters = model.parameter_counts().total() as f64;
        let table = (model.text.vocab_size * model.text.width) as f64;
        let copies = match (compute, precision) {
            (Compute::Reference, _) => 0.0,
            (Compute::Fused, Precision::F32) => weight_copies(model) as f64,
            (Compute::Fused, Precision::Bf16) => 2.0 * (parameters - table),
        };
        let Update { kept_patches, kept_tokens, batch, micro_batch } = *update;
        let activations = match compute {
            Compute::Reference => model.activation_bytes(kept_patches, kept_tokens, batch, micro_batch),
            Compute::Fused => {
                arena_bytes(model, precision, recompute, micro_batch, kept_patches, kept_tokens) as f64
            }
        };
        let mut memory = Memory {
            parameters: 4.0 * parameters + copies,
            gradients: 4.0 * parameters,
            moments: 8.0 * parameters,
            activations,
            embeddings: 4.0 * 2.0 * 2.0 * batch as f64 * model.embed_dim as f64,
            pictures: BATCHES * (batch * kept_patches * model.image.patch_values()) as f64,
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
