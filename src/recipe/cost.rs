//! What a model costs, from its sizes alone: parameters, arithmetic, memory.

use serde::Serialize;

use super::{Compute, Precision};
use crate::mask::{ImageMask, TextMask};
use crate::model::{ImagePositions, ModelConfig};

/// Parameters by part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Parameters {
    /// Image encoder with its projection.
    pub image: u64,
    /// Text encoder with its projection.
    pub text: u64,
    /// All, the logit scale included.
    pub total: u64,
}

/// Bytes that a training stage needs, estimated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Memory {
    /// 32-bit masters, and their 16-bit copy in Bf16.
    pub parameters: f64,
    pub gradients: f64,
    /// AdamW's first and second moments.
    pub moments: f64,
    /// What the backward pass of a micro-batch needs of its forward pass.
    pub activations: f64,
    /// Embeddings of the whole batch, and their products where those are kept.
    pub loss: f64,
    /// Decoded pictures of one batch, in host memory.
    pub pictures: f64,
    pub total: f64,
}

/// The blocks of one encoder.
struct Blocks {
    width: f64,
    depth: f64,
    heads: f64,
    /// Hidden width of the MLP.
    hidden: f64,
}

impl Blocks {
    fn image(model: &ModelConfig) -> Self {
        let tower = &model.image;
        Blocks::new(tower.width, tower.depth, tower.heads, tower.mlp_ratio)
    }

    fn text(model: &ModelConfig) -> Self {
        let tower = &model.text;
        Blocks::new(tower.width, tower.depth, tower.heads, tower.mlp_ratio)
    }

    fn new(width: usize, depth: usize, heads: usize, mlp_ratio: f64) -> Self {
        let [width, depth, heads] = [width, depth, heads].map(|size| size as f64);
        Blocks { width, depth, heads, hidden: (width * mlp_ratio).round() }
    }

    /// Two norms, q, k, v and out projections, two MLP matrices, all with biases; and the final norm.
    fn parameters(&self) -> f64 {
        let (w, h) = (self.width, self.hidden);
        let block = 2.0 * 2.0 * w + 4.0 * (w * w + w) + 2.0 * w * h + h + w;
        self.depth * block + 2.0 * w
    }

    /// Matrix products of the forward pass over `n` tokens, two operations per multiply-add.
    fn forward_flops(&self, n: f64) -> f64 {
        let (w, h) = (self.width, self.hidden);
        let projections = 2.0 * n * (4.0 * w * w + 2.0 * w * h);
        let attention = 2.0 * 2.0 * n * n * w;
        self.depth * (projections + attention)
    }

    /// Numbers kept from the forward pass over `n` tokens for the backward pass.
    ///
    /// Fused, per token and block: both norms' results, q, k, v, the attention's result, two residuals (8
    /// widths), the MLP before and after its activation (2 hidden widths), and the attention's weights. The
    /// composed graph keeps the result of each elementary operation, and as many gradients.
    fn activations(&self, n: f64, compute: Compute) -> f64 {
        let (w, h, weights) = (self.width, self.hidden, self.heads * n);
        let per_token = match compute {
            Compute::Fused => 8.0 * w + 2.0 * h + weights,
            Compute::Reference => 2.0 * (30.0 * w + 6.0 * h + 4.0 * weights),
        };
        self.depth * n * per_token
    }
}

/// Parameters of the model.
pub fn parameters(model: &ModelConfig) -> Parameters {
    let (image, text) = (&model.image, &model.text);
    let embed = model.embed_dim as f64;
    let width = image.width as f64;
    let patch = (3 * image.patch * image.patch) as f64 * width + if image.patch_bias { width } else { 0.0 };
    let patches = ((image.size / image.patch) as f64).powi(2);
    let positions = match image.positions {
        ImagePositions::SinCos => 0.0,
        ImagePositions::Learned => (patches + 1.0) * width,
    };
    let class_token = width;
    let pre_norm = if image.pre_norm { 2.0 * width } else { 0.0 };
    let image_tower =
        patch + class_token + positions + pre_norm + Blocks::image(model).parameters() + width * embed;
    let width = text.width as f64;
    let tokens = (text.vocab_size + text.context) as f64 * width;
    let text_tower = tokens + Blocks::text(model).parameters() + width * embed;
    let (image, text) = (image_tower as u64, text_tower as u64);
    Parameters { image, text, total: image.saturating_add(text).saturating_add(1) }
}

/// Floating-point operations of the matrix products of training on one pair: the forward pass over the kept
/// patches (and class token) and kept tokens, times three for the backward pass.
pub fn flops_per_pair(model: &ModelConfig, kept_patches: usize, kept_tokens: usize, batch: usize) -> f64 {
    3.0 * (towers_forward_flops(model, kept_patches, kept_tokens)
        + 2.0 * batch as f64 * model.embed_dim as f64)
}

/// The forward pass of both encoders with their projections, for one pair.
pub fn towers_forward_flops(model: &ModelConfig, kept_patches: usize, kept_tokens: usize) -> f64 {
    let (patches, tokens) = (kept_patches as f64, kept_tokens as f64);
    let (image, text) = (model.image.width as f64, model.text.width as f64);
    let patch = 3.0 * (model.image.patch as f64).powi(2);
    2.0 * patches * patch * image
        + Blocks::image(model).forward_flops(patches + 1.0)
        + Blocks::text(model).forward_flops(tokens)
        + 2.0 * (image + text) * model.embed_dim as f64
}

/// What one update needs.
pub struct Update {
    pub kept_patches: usize,
    pub kept_tokens: usize,
    /// Side of the training pictures, pixels.
    pub image_size: usize,
    pub batch: usize,
    pub micro_batch: usize,
}

/// Memory of a training stage.
pub fn memory(model: &ModelConfig, precision: Precision, compute: Compute, update: &Update) -> Memory {
    let count = parameters(model).total as f64;
    let (value, copy) = match precision {
        Precision::F32 => (4.0, 0.0),
        Precision::Bf16 => (2.0, 2.0),
    };
    let micro = update.micro_batch as f64;
    let per_pair = Blocks::image(model).activations(update.kept_patches as f64 + 1.0, compute)
        + Blocks::text(model).activations(update.kept_tokens as f64, compute);
    let batch = update.batch as f64;
    let embeddings = 2.0 * 2.0 * batch * model.embed_dim as f64;
    let products = match compute {
        Compute::Fused => 0.0,
        Compute::Reference => 4.0 * batch * batch,
    };
    let side = update.image_size as f64;
    let mut memory = Memory {
        parameters: (4.0 + copy) * count,
        gradients: 4.0 * count,
        moments: 8.0 * count,
        activations: micro * per_pair * value,
        loss: 4.0 * (embeddings + products),
        pictures: batch * side * side * 3.0,
        total: 0.0,
    };
    memory.total = memory.parameters
        + memory.gradients
        + memory.moments
        + memory.activations
        + memory.loss
        + memory.pictures;
    memory
}

/// Patches that stay of `patches`.
pub fn kept_patches(mask: &ImageMask, patches: usize) -> usize {
    match mask {
        ImageMask::Keep => patches,
        ImageMask::Centred { ratio, .. } => ratio.kept(patches),
        ImageMask::Random(ratio) | ImageMask::Grid(ratio) | ImageMask::Block(ratio) => ratio.kept(patches),
    }
}

/// Tokens that stay of `context`.
pub fn kept_tokens(mask: &TextMask, context: usize) -> usize {
    match mask {
        TextMask::Keep => context,
        TextMask::Random(ratio)
        | TextMask::Prioritised(ratio)
        | TextMask::Truncate(ratio)
        | TextMask::Block(ratio)
        | TextMask::Frequency(ratio) => ratio.kept(context),
    }
}
