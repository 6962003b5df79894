//! Memory that a training stage needs, estimated from sizes alone.

use serde::Serialize;

use super::{Compute, Fusion, Precision, Recipe};
use crate::device::DeviceConfig;
use crate::model::{arena_bytes, gpu_bytes, ModelConfig};
use crate::parameter::Tower;

/// Bytes that a training stage needs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Memory {
    /// 32-bit masters, and what fused kernels read: in Bf16 a rounded copy of all but the token table, in F32 two copies of
    /// one weight at a time. On a GPU a copy of all, and what is held while it is made.
    pub parameters: f64,
    /// Gradients of all parameters, bytes.
    pub gradients: f64,
    /// AdamW's first and second moments.
    pub moments: f64,
    /// Average of the weights, where the stage has one.
    pub average: f64,
    /// Activations that a micro-batch's forward pass keeps for its backward pass: the arenas of the fused encoders; in the
    /// composed graph also the logits of the batch, each pair with each other.
    pub activations: f64,
    /// Embeddings of the whole batch and their gradients; on a GPU with the scratch memory of the loss.
    pub embeddings: f64,
    /// Images of `BATCHES` batches, bytes in host memory.
    pub images: f64,
    /// Sum of all, bytes.
    pub total: f64,
}

/// Bytes up to which activations are counted exactly, far above what any machine has.
const COUNTABLE: f64 = (1u64 << 52) as f64;

/// Batches in memory at a time: the one in use, its copy in micro-batches, and two that are loaded ahead.
const BATCHES: f64 = 4.0;

/// Sizes that one update works on.
pub struct Update {
    /// Patches of an image that are encoded.
    pub kept_patches: usize,
    /// Tokens of a caption that are encoded.
    pub kept_tokens: usize,
    /// Pairs of an update.
    pub batch: usize,
    /// Pairs encoded at a time.
    pub micro_batch: usize,
    /// The stage has an average of the weights.
    pub ema: bool,
    /// Towers that do not learn.
    pub frozen: Vec<Tower>,
}

/// True if a recipe asks for fused encoders on a GPU. `Auto` does not: what it will find, the estimate cannot know.
pub fn fused_on_gpu(recipe: &Recipe) -> bool {
    let fused = recipe.compute == Compute::Fused && recipe.precision == Precision::Bf16;
    fused && matches!(recipe.device, DeviceConfig::Cuda(_))
}

impl Memory {
    /// The estimate for an update of fused encoders on a GPU, all of it there but the images: without the context of the
    /// driver and the workspaces of its libraries, some hundred MiB.
    pub fn on_gpu(model: &ModelConfig, fusion: Fusion, update: &Update) -> Memory {
        let Update { kept_patches, kept_tokens, batch, micro_batch, .. } = *update;
        let of_host = Memory::of(model, Compute::Fused, fusion, update);
        if of_host.activations > COUNTABLE {
            return of_host;
        }
        let held = gpu_bytes(model, fusion.recompute, (batch, micro_batch), kept_patches, kept_tokens);
        let parameters = model.parameter_counts().total() as f64;
        Memory {
            parameters: 4.0 * parameters + held.copies as f64,
            activations: held.arenas as f64,
            embeddings: held.loss as f64,
            ..of_host
        }
        .summed()
    }

    fn summed(self) -> Memory {
        Memory { total: self.parts().iter().map(|(_, bytes)| bytes).sum(), ..self }
    }

    /// The estimate for an update.
    pub fn of(model: &ModelConfig, compute: Compute, fusion: Fusion, update: &Update) -> Memory {
        let Fusion { precision, recompute, .. } = fusion;
        let parameters = model.parameter_counts().total() as f64;
        let table = (model.text.vocab_size * model.text.width) as f64;
        let (image, text) = (&model.image, &model.text);
        let largest = (image.width * image.hidden()).max(text.width * text.hidden()) as f64;
        let copies = match (compute, precision) {
            (Compute::Reference, _) => 0.0,
            (Compute::Fused, Precision::F32) => 2.0 * 4.0 * largest,
            (Compute::Fused, Precision::Bf16) => 2.0 * (parameters - table),
        };
        let Update { kept_patches, kept_tokens, batch, micro_batch, ema, .. } = *update;
        let counts = model.parameter_counts();
        let frozen = update.frozen.iter().map(|tower| match tower {
            Tower::Image => counts.image,
            Tower::Text => counts.text,
            Tower::Loss => 0,
        });
        let learning = parameters - frozen.sum::<u64>() as f64;
        // In each block the input of each token at least: what counts where the exact count would overflow.
        let inputs = |width: usize, depth: usize, tokens: usize| {
            4.0 * width as f64 * depth as f64 * tokens as f64 * micro_batch as f64
        };
        let least =
            inputs(image.width, image.depth, kept_patches).max(inputs(text.width, text.depth, kept_tokens));
        let activations = match compute {
            Compute::Fused if least > COUNTABLE => least,
            Compute::Reference => model.activation_bytes(kept_patches, kept_tokens, batch, micro_batch),
            Compute::Fused => {
                arena_bytes(model, precision, recompute, micro_batch, kept_patches, kept_tokens) as f64
            }
        };
        let memory = Memory {
            parameters: 4.0 * parameters + copies,
            gradients: 4.0 * learning,
            moments: 8.0 * learning,
            average: if ema { 4.0 * parameters } else { 0.0 },
            activations,
            embeddings: 4.0 * 2.0 * 2.0 * batch as f64 * model.embed_dim as f64,
            images: BATCHES * batch as f64 * kept_patches as f64 * model.image.patch_values() as f64,
            total: 0.0,
        };
        memory.summed()
    }

    /// The part in host memory where a GPU computes.
    pub fn beside_gpu(&self) -> f64 {
        self.images
    }

    /// Each part with its name; without an average where there is none.
    pub fn parts(&self) -> Vec<(&'static str, f64)> {
        let parts = [
            ("parameters", self.parameters),
            ("gradients", self.gradients),
            ("moments", self.moments),
            ("average of weights", self.average),
            ("activations", self.activations),
            ("embeddings", self.embeddings),
            ("images", self.images),
        ];
        parts.into_iter().filter(|(name, bytes)| *name != "average of weights" || *bytes > 0.0).collect()
    }
}
