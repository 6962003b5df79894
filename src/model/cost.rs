//! Parameters, work and memory of a model, known from its sizes alone.

use super::config::{Activation, ImagePool, ModelConfig};
use crate::parameter::{Parameter, Role, Tower};

/// Trainable numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterCounts {
    /// The image encoder with its projection.
    pub image: u64,
    /// The text encoder with its projection.
    pub text: u64,
    /// The logit scale, and the logit bias where there is one.
    pub other: u64,
    /// Those of them in matrices that activations are multiplied by.
    pub weights: u64,
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
    /// Numbers that the reference graph keeps for one sample of `tokens` tokens: dfdx holds a gradient of
    /// every operation's result until the pass is over, and by then has given the results back.
    fn activations(&self, tokens: f64, masked: bool) -> f64 {
        let (w, h) = (self.width as f64, self.hidden as f64);
        let norms = 2.0 * 5.0 * w;
        let attention = (3.0 + 2.0 + 2.0 + 5.0) * w;
        let softmax = if masked { 4.0 } else { 3.0 } * self.heads as f64 * tokens;
        let non_linearity = match self.activation {
            Activation::GeluTanh => 6.0,
            Activation::GeluExact => 4.0,
            Activation::QuickGelu => 3.0,
        };
        let mlp = (2.0 + non_linearity) * h + 3.0 * w;
        self.depth as f64 * tokens * (norms + attention + softmax + mlp)
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

    /// Number of parameters of the model.
    pub fn parameter_counts(&self) -> ParameterCounts {
        let all = self.parameters();
        let sum = |wanted: &dyn Fn(&Parameter) -> bool| -> u64 {
            all.iter().filter(|spec| wanted(spec)).map(|spec| spec.len() as u64).sum()
        };
        ParameterCounts {
            image: sum(&|spec| spec.tower == Tower::Image),
            text: sum(&|spec| spec.tower == Tower::Text),
            other: sum(&|spec| spec.tower == Tower::Loss),
            weights: sum(&|spec| spec.role == Role::Weight),
        }
    }

    /// Floating-point operations of the matrix products of training on one pair out of a batch of
    /// `batch`: three times the forward pass, over the kept patches and tokens only.
    pub fn flops_per_pair(&self, kept_patches: usize, kept_tokens: usize, batch: usize) -> f64 {
        let (patches, tokens, embed) = (kept_patches as f64, kept_tokens as f64, self.embed_dim as f64);
        let (image_width, text_width) = (self.image.width as f64, self.text.width as f64);
        let patch = 2.0 * patches * self.image.patch_values() as f64 * image_width;
        let prefix = self.image.prefix() as f64;
        let blocks = self.image_blocks().flops(patches + prefix) + self.text_blocks().flops(tokens);
        let pool = self.attention_pool_flops(patches + prefix);
        let projections = 2.0 * (image_width + text_width) * embed;
        let logits = 2.0 * batch as f64 * embed;
        3.0 * (patch + blocks + pool + projections + logits)
    }

    /// Of the matrix products of one forward pass of the attention pool over `tokens` tokens, where there is one.
    fn attention_pool_flops(&self, tokens: f64) -> f64 {
        let (w, h) = (self.image.width as f64, self.image.hidden() as f64);
        let pool = 2.0 * tokens * 2.0 * w * w + 4.0 * tokens * w + 2.0 * w * w + 4.0 * w * h;
        if self.image.pool == ImagePool::Attention {
            pool
        } else {
            0.0
        }
    }

    /// The same where some towers do not learn: of their encoders the forward pass counts alone.
    pub fn flops_per_pair_without(
        &self,
        frozen: &[Tower],
        kept_patches: usize,
        kept_tokens: usize,
        batch: usize,
    ) -> f64 {
        let all = self.flops_per_pair(kept_patches, kept_tokens, batch);
        let text = self.text_flops_per_pair(kept_tokens);
        let logits = 3.0 * 2.0 * batch as f64 * self.embed_dim as f64;
        let backward = |tower: Tower, flops: f64| match frozen.contains(&tower) {
            true => flops * 2.0 / 3.0,
            false => 0.0,
        };
        all - backward(Tower::Text, text) - backward(Tower::Image, all - text - logits)
    }

    /// The text encoder's part of it.
    pub fn text_flops_per_pair(&self, kept_tokens: usize) -> f64 {
        let projection = 2.0 * self.text.width as f64 * self.embed_dim as f64;
        3.0 * (self.text_blocks().flops(kept_tokens as f64) + projection)
    }

    /// Estimated bytes, in single precision, of everything that a step of the reference graph holds besides
    /// 16 bytes a parameter (weights, gradients, two moments): activations of `micro_batch` pairs at a time,
    /// and the logits of all `batch` pairs. Several micro-batches take the towers one after the other.
    pub fn activation_bytes(
        &self,
        kept_patches: usize,
        kept_tokens: usize,
        batch: usize,
        micro_batch: usize,
    ) -> f64 {
        let (patches, tokens) = (kept_patches as f64, kept_tokens as f64);
        let embedded = patches * (self.image.patch_values() as f64 + 4.0 * self.image.width as f64);
        let image = embedded + self.image_blocks().activations(patches + self.image.prefix() as f64, false);
        let text =
            3.0 * tokens * self.text.width as f64 + self.text_blocks().activations(tokens, self.text.causal);
        let towers = if micro_batch < batch { image.max(text) } else { image + text };
        // Logits and the exponentials of both cross-entropies.
        let logits = 3.0 * (batch as f64).powi(2);
        4.0 * (micro_batch as f64 * towers + logits)
    }
}

#[cfg(test)]
mod tests {
    use dfdx::prelude::Cpu;

    use super::super::config::Activation;
    use super::super::tests::tiny_config;
    use super::super::{Flip, ImagePositions};
    use crate::parameter::Role;

    #[test]
    fn counts_are_those_of_the_model_that_is_built() {
        let mut config = tiny_config();
        for _ in 0..2 {
            let counts = config.parameter_counts();
            let model = Flip::<f32, Cpu>::new(&Cpu::default(), &config, 0).unwrap();
            let of = |prefix: &str| -> u64 {
                let ours = model.parameters().iter().filter(|p| p.name.starts_with(prefix));
                ours.map(|p| p.len() as u64).sum()
            };
            assert_eq!((counts.image, counts.text, counts.other), (of("image."), of("text."), 1));
            assert_eq!(counts.total(), of(""));
            let weights = model.parameters().iter().filter(|p| p.role == Role::Weight);
            assert_eq!(counts.weights, weights.map(|p| p.len() as u64).sum::<u64>());
            config.image.positions = ImagePositions::Learned;
            config.image.pre_norm = true;
            config.image.patch_bias = false;
            config.image.mlp_ratio = 2.7;
        }
    }

    #[test]
    fn the_published_b16_takes_the_operations_it_is_known_for() {
        let mut config = tiny_config();
        let image = &mut config.image;
        (image.size, image.patch, image.width, image.depth, image.heads) = (224, 16, 768, 12, 12);
        let text = &mut config.text;
        (text.vocab_size, text.context, text.width, text.depth, text.heads) = (30_523, 32, 512, 12, 8);
        config.embed_dim = 512;
        // 12 blocks of 24 n w^2 + 4 n^2 w on either side, the patches, the projections, a row of logits.
        let tower = |n: f64, w: f64| 12.0 * (24.0 * n * w * w + 4.0 * n * n * w);
        let forward = tower(99.0, 768.0) + tower(32.0, 512.0);
        let ends = 2.0 * 98.0 * 768.0 * 768.0 + 2.0 * (768.0 + 512.0) * 512.0 + 2.0 * 16.0 * 512.0;
        assert_eq!(config.flops_per_pair(98, 32, 16), 3.0 * (forward + ends));
        assert_eq!(config.parameter_counts().total(), 85_647_360 + 53_473_792 + (768 + 512) * 512 + 1);
    }

    #[test]
    fn a_gate_of_fewer_operations_keeps_less() {
        let mut config = tiny_config();
        let tanh = config.activation_bytes(4, 5, 8, 8);
        config.image.activation = Activation::QuickGelu;
        assert!(config.activation_bytes(4, 5, 8, 8) < tanh);
        assert!(config.activation_bytes(4, 5, 8, 2) < tanh / 3.0);
    }
}
