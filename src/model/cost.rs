//! What a model costs, known from its sizes alone.

use super::config::{Activation, ImagePositions, ModelConfig};

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
    activation: Activation,
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
}

impl ModelConfig {
    fn image_blocks(&self) -> Blocks {
        let c = &self.image;
        let [width, hidden, depth, heads] = [c.width, c.hidden(), c.depth, c.heads].map(|n| n as u64);
        Blocks { width, hidden, depth, heads, activation: c.activation }
    }

    fn text_blocks(&self) -> Blocks {
        let c = &self.text;
        let [width, hidden, depth, heads] = [c.width, c.hidden(), c.depth, c.heads].map(|n| n as u64);
        Blocks { width, hidden, depth, heads, activation: c.activation }
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
}
