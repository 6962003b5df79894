//! What a model costs, known from its sizes alone.

use super::config::{ImagePositions, ModelConfig};

/// Trainable numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterCounts {
    /// The image encoder with its projection.
    pub image: u64,
    /// The text encoder with its projection.
    pub text: u64,
    /// The logit scale.
    pub other: u64,
}

impl ParameterCounts {
    /// All of them.
    pub fn total(self) -> u64 {
        self.image + self.text + self.other
    }
}

/// The sizes of a tower's blocks, as they are counted with.
struct Blocks {
    width: u64,
    hidden: u64,
    depth: u64,
    heads: u64,
}

impl Blocks {
    fn parameters(&self) -> u64 {
        let (w, h) = (self.width, self.hidden);
        let norms = 4 * w;
        let attention = w * 3 * w + 3 * w + w * w + w;
        let mlp = w * h + h + h * w + w;
        self.depth * (norms + attention + mlp)
    }

    /// Of the matrix products of one forward pass over `tokens` tokens of one sample.
    fn flops(&self, tokens: f64) -> f64 {
        let (w, h) = (self.width as f64, self.hidden as f64);
        let projections = 2.0 * tokens * (4.0 * w * w + 2.0 * w * h);
        let attention = 2.0 * 2.0 * tokens * tokens * w;
        self.depth as f64 * (projections + attention)
    }

    /// Numbers kept for the backward pass over `tokens` tokens of one sample, where each token and block
    /// keeps this many times the width, the hidden width and a row of attention weights per head.
    fn kept(&self, tokens: f64, [widths, hiddens, rows]: [f64; 3]) -> f64 {
        let (w, h) = (self.width as f64, self.hidden as f64);
        let per_token = widths * w + hiddens * h + rows * self.heads as f64 * tokens;
        self.depth as f64 * tokens * per_token
    }
}

impl ModelConfig {
    fn image_blocks(&self) -> Blocks {
        let c = &self.image;
        let [width, hidden, depth, heads] = [c.width, c.hidden(), c.depth, c.heads].map(|n| n as u64);
        Blocks { width, hidden, depth, heads }
    }

    fn text_blocks(&self) -> Blocks {
        let c = &self.text;
        let [width, hidden, depth, heads] = [c.width, c.hidden(), c.depth, c.heads].map(|n| n as u64);
        Blocks { width, hidden, depth, heads }
    }

    /// How many parameters the model has.
    pub fn parameter_counts(&self) -> ParameterCounts {
        let (embed, width) = (self.embed_dim as u64, self.image.width as u64);
        let grid = self.image.grid() as u64;
        let patch = self.image.patch_values() as u64 * width + if self.image.patch_bias { width } else { 0 };
        let positions = match self.image.positions {
            ImagePositions::SinCos => 0,
            ImagePositions::Learned => (1 + grid * grid) * width,
        };
        let norms = if self.image.pre_norm { 4 * width } else { 2 * width };
        let image = patch + width + positions + norms + self.image_blocks().parameters() + width * embed;
        let width = self.text.width as u64;
        let tokens = (self.text.vocab_size + self.text.context) as u64 * width;
        let text = tokens + 2 * width + self.text_blocks().parameters() + width * embed;
        ParameterCounts { image, text, other: 1 }
    }

    /// Floating-point operations of the matrix products of training on one pair out of a batch of
    /// `batch`: three times the forward pass, over the kept patches and tokens only.
    pub fn flops_per_pair(&self, kept_patches: usize, kept_tokens: usize, batch: usize) -> f64 {
        let (patches, tokens, embed) = (kept_patches as f64, kept_tokens as f64, self.embed_dim as f64);
        let (image_width, text_width) = (self.image.width as f64, self.text.width as f64);
        let patch = 2.0 * patches * self.image.patch_values() as f64 * image_width;
        let blocks = self.image_blocks().flops(patches + 1.0) + self.text_blocks().flops(tokens);
        let projections = 2.0 * (image_width + text_width) * embed;
        let logits = 2.0 * batch as f64 * embed;
        3.0 * (patch + blocks + projections + logits)
    }

    /// Numbers that one pair's forward pass leaves for its backward pass in the composed graph, which keeps
    /// results and gradients of every operation: as measured within 5 % on a ViT-B/16 and a small model.
    pub fn composed_activations(&self, kept_patches: usize, kept_tokens: usize) -> f64 {
        self.activations(kept_patches, kept_tokens, [27.0, 8.0, 3.0])
    }

    /// The same for fused kernels, which keep what they cannot cheaply compute again: both norms' results, q,
    /// k, v, the attention's result and two residuals, the MLP before and after its activation, and the
    /// attention's weights.
    pub fn fused_activations(&self, kept_patches: usize, kept_tokens: usize) -> f64 {
        self.activations(kept_patches, kept_tokens, [8.0, 2.0, 1.0])
    }

    fn activations(&self, kept_patches: usize, kept_tokens: usize, per_token: [f64; 3]) -> f64 {
        self.image_blocks().kept(kept_patches as f64 + 1.0, per_token)
            + self.text_blocks().kept(kept_tokens as f64, per_token)
    }
}
