//! Memory of the encoders, known from sizes alone; and what a GPU can compute of them.

use super::arenas::Purpose;
use super::image::ImageEncoder;
use super::keep;
use super::text::TextEncoder;
use super::tower::{image_shape, text_shape};
use super::{sizes, Read};
use crate::kernel::arena::{Arena, ALIGNMENT};
use crate::kernel::backend::{cpu, gpu, Needs};
use crate::kernel::contrastive::tiles;
use crate::kernel::cuda::rates::{self, Launches, Rate};
use crate::kernel::cuda::{Gpu, GpuError};
use crate::kernel::element::Bf16;
use crate::kernel::transformer::Keep;
use crate::kernel::view::Number;
use crate::model::config::{ModelConfig, Precision, Recompute};
use crate::parameter::Tower;

/// A micro-batch of pairs, of images of the model's own size.
#[derive(Debug, Clone, Copy)]
struct Micro {
    pairs: usize,
    kept_patches: usize,
    kept_tokens: usize,
}

/// Bytes of the arenas of both encoders for a micro-batch.
fn arenas<E: Number>(config: &ModelConfig, needs: Needs, keep: Keep, of: Micro) -> usize {
    let parameters = config.parameters();
    let (image, text) = (ImageEncoder::new(config, &parameters), TextEncoder::new(config, &parameters));
    let purpose = |tower, kept, grid| Purpose { tower, batch: of.pairs, kept, grid, floats: false, keep };
    let images = purpose(Tower::Image, of.kept_patches, image.grid);
    let texts = purpose(Tower::Text, of.kept_tokens, 0);
    Arena::measure(|arena| image.take::<E>(arena, needs, images))
        + Arena::measure(|arena| text.take::<E>(arena, needs, texts))
}

/// Bytes of the activations that the fused encoders hold on the processor for a micro-batch of `pairs` pairs.
pub fn arena_bytes(
    config: &ModelConfig,
    precision: Precision,
    recompute: Recompute,
    pairs: usize,
    kept_patches: usize,
    kept_tokens: usize,
) -> usize {
    let of = Micro { pairs, kept_patches, kept_tokens };
    match precision {
        Precision::F32 => arenas::<f32>(config, cpu::NEEDS, keep(recompute), of),
        Precision::Bf16 => arenas::<Bf16>(config, cpu::NEEDS, keep(recompute), of),
    }
}

/// Bytes that fused encoders hold on a GPU besides parameters, moments and gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuBytes {
    /// Rounded copies of parameters.
    pub copies: usize,
    /// Arenas of both encoders, and the memory that images arrive in.
    pub arenas: usize,
    /// Embeddings of the batch, their gradients, and scratch memory of the loss.
    pub loss: usize,
}

/// Bytes that fused encoders hold on a GPU for a batch in micro-batches of `pairs` pairs, of images of the model's own size.
pub fn gpu_bytes(
    config: &ModelConfig,
    recompute: Recompute,
    (batch, pairs): (usize, usize),
    kept_patches: usize,
    kept_tokens: usize,
) -> GpuBytes {
    let of = Micro { pairs, kept_patches, kept_tokens };
    let arenas = |keep| arenas::<Bf16>(config, gpu::NEEDS, keep, of);
    // Several micro-batches are encoded twice, the first time without a backward pass, in arenas of their own.
    let first = if pairs < batch { arenas(Keep::Nothing) } else { 0 };
    let incoming = pairs * kept_patches * config.image.patch_values();
    // As values of a tensor, as its gradient, and copies of both on the way between the two, of both sides.
    let embeddings = 8 * batch * config.embed_dim * size_of::<f32>();
    let sizes = sizes(&config.parameters()).into_iter().filter(|size| size.read != Read::Master);
    let copies = sizes.map(|size| (size.rows * size.columns * size_of::<Bf16>()).next_multiple_of(ALIGNMENT));
    GpuBytes {
        copies: copies.sum(),
        arenas: arenas(keep(recompute)) + first + incoming,
        loss: embeddings + tiles::bytes(batch),
    }
}

/// The sizes of a model that a GPU has no kernels for; `None` where it has.
pub fn gpu_lacks(config: &ModelConfig) -> Option<String> {
    let of = |tower: &str, shape| gpu::lacking(&shape).map(|lack| format!("model.{tower} needs {lack}"));
    let embed_dim = config.embed_dim;
    let odd = || {
        let even = embed_dim.is_multiple_of(8);
        (!even).then(|| format!("model.embed_dim needs to be a multiple of 8, not {embed_dim}"))
    };
    of("image", image_shape(config)).or_else(|| of("text", text_shape(config))).or_else(odd)
}

/// The speed of each kernel of the image encoder by itself, and of the update of `parameters` parameters. `seconds` says how
/// long a launch takes.
///
/// # Errors
/// The GPU fails, or has no room.
pub fn gpu_rates<G: Gpu>(
    gpu: &G,
    config: &ModelConfig,
    (pairs, kept): (usize, usize),
    parameters: usize,
    seconds: impl FnMut(&mut Launches) -> Result<f64, GpuError>,
) -> Result<Vec<Rate>, GpuError> {
    let patch_values = config.image.patch_values();
    let sizes = rates::Sizes { shape: image_shape(config), patch_values, pairs, kept, parameters };
    rates::rates(gpu, sizes, seconds)
}
