//! The parameters of a model in one list, in the order of draws, checkpoints and updates: initial values, import and export,
//! the optimizer and its shards all read it.

use super::config::{ImagePool, ImagePositions, ModelConfig, Projection};
use crate::parameter::{Init, Parameter, Role, Tower};

/// Deviation of tokens, class token and learned positions.
const TOKEN_DEVIATION: f64 = 0.02;

/// Name of the class token.
pub(crate) const CLASS_TOKEN: &str = "image.class_token";
/// Name of the learned positions of image patches, the class token's first.
pub(crate) const IMAGE_POSITIONS: &str = "image.positions";
/// Name that the parameters of the attention pool begin with.
pub(crate) const ATTENTION_POOL: &str = "image.attention_pool";
/// Name of the token embedding.
pub(crate) const TOKENS: &str = "text.tokens";
/// Name of the learned positions of captions.
pub(crate) const TEXT_POSITIONS: &str = "text.positions";
/// Name of the natural log of the factor on the cosines.
pub(crate) const LOGIT_SCALE: &str = "logit_scale";
/// Name of the number that is added to every logit.
pub(crate) const LOGIT_BIAS: &str = "logit_bias";

impl ModelConfig {
    /// Every parameter: the image encoder's, the text encoder's, the logit scale and bias. Initial values are those of the official
    /// code: Xavier-uniform matrices, normal tokens and positions, zero biases, unit norms.
    pub fn parameters(&self) -> Vec<Parameter> {
        let (image, text) = (&self.image, &self.text);
        let mut list = List { tower: Tower::Image, all: Vec::new() };
        list.matrix("image.patch.weight", image.patch_values(), image.width);
        if image.patch_bias {
            list.vector("image.patch.bias", Role::Bias, image.width, 0.0);
        }
        if image.class_token {
            list.tokens(CLASS_TOKEN, Role::Token, vec![image.width]);
        }
        if image.positions == ImagePositions::Learned {
            let rows = image.prefix() + image.grid() * image.grid();
            list.tokens(IMAGE_POSITIONS, Role::Position, vec![rows, image.width]);
        }
        if image.pre_norm {
            list.norm("image.pre_norm", image.width);
        }
        for block in 0..image.depth {
            list.block(&format!("image.blocks.{block}"), image.width, image.hidden());
        }
        list.norm("image.norm", image.width);
        if image.pool == ImagePool::Attention {
            list.attention_pool(image.width, image.hidden());
        }
        list.projection("image", image.projection, image.width, self.embed_dim);

        list.tower = Tower::Text;
        list.tokens(TOKENS, Role::Token, vec![text.vocab_size, text.width]);
        list.rounded();
        list.tokens(TEXT_POSITIONS, Role::Position, vec![text.context, text.width]);
        for block in 0..text.depth {
            list.block(&format!("text.blocks.{block}"), text.width, text.hidden());
        }
        list.norm("text.norm", text.width);
        list.projection("text", text.projection, text.width, self.embed_dim);

        list.tower = Tower::Loss;
        list.vector(LOGIT_SCALE, Role::LogitScale, 1, self.logit_scale.init);
        if let Some(bias) = self.logit_bias {
            list.vector(LOGIT_BIAS, Role::Bias, 1, bias);
        }
        list.all
    }
}

/// The list as far as it goes, and the tower that comes next.
struct List {
    tower: Tower,
    all: Vec<Parameter>,
}

impl List {
    fn add(&mut self, name: &str, role: Role, shape: Vec<usize>, init: Init) {
        let rounded = role == Role::Weight;
        self.all.push(Parameter { name: name.into(), tower: self.tower, role, shape, init, rounded });
    }

    /// The last parameter may be read rounded.
    fn rounded(&mut self) {
        self.all.iter_mut().last().into_iter().for_each(|last| last.rounded = true);
    }

    /// A matrix [inputs, outputs], uniform within +-sqrt(6 / (inputs + outputs)) (Xavier).
    fn matrix(&mut self, name: &str, inputs: usize, outputs: usize) {
        let bound = (6.0 / (inputs + outputs) as f64).sqrt();
        self.add(name, Role::Weight, vec![inputs, outputs], Init::Uniform { bound });
    }

    fn tokens(&mut self, name: &str, role: Role, shape: Vec<usize>) {
        self.add(name, role, shape, Init::Normal { deviation: TOKEN_DEVIATION });
    }

    fn vector(&mut self, name: &str, role: Role, len: usize, value: f64) {
        self.add(name, role, vec![len], Init::Constant(value));
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.vector(&format!("{name}.scale"), Role::Norm, width, 1.0);
        self.vector(&format!("{name}.shift"), Role::Norm, width, 0.0);
    }

    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) {
        self.matrix(&format!("{name}.weight"), inputs, outputs);
        self.vector(&format!("{name}.bias"), Role::Bias, outputs, 0.0);
    }

    fn projection(&mut self, tower: &str, kind: Projection, width: usize, embed_dim: usize) {
        if kind != Projection::None {
            self.matrix(&format!("{tower}.projection"), width, embed_dim);
        }
        if kind == Projection::Biased {
            self.vector(&format!("{tower}.projection_bias"), Role::Bias, embed_dim, 0.0);
        }
    }

    /// Attention of a learned query. Key and value matrices stand side by side, each drawn as in a block.
    fn attention_pool(&mut self, width: usize, hidden: usize) {
        let name = |part: &str| format!("{ATTENTION_POOL}.{part}");
        self.tokens(&name("query"), Role::Token, vec![width]);
        let bound = (1.5 / width as f64).sqrt();
        self.add(&name("kv.weight"), Role::Weight, vec![width, 2 * width], Init::Uniform { bound });
        self.vector(&name("kv.bias"), Role::Bias, 2 * width, 0.0);
        self.rounded();
        self.linear(&name("out"), width, width);
        self.norm(&name("norm"), width);
        self.linear(&name("mlp.up"), width, hidden);
        self.rounded();
        self.linear(&name("mlp.down"), hidden, width);
    }

    /// A transformer block. Query, key and value matrices stand side by side, each uniform within +-sqrt(1.5 / width): half
    /// of Xavier's bound, on the fan of one matrix alone.
    fn block(&mut self, name: &str, width: usize, hidden: usize) {
        self.norm(&format!("{name}.norm1"), width);
        let bound = (1.5 / width as f64).sqrt();
        let qkv = format!("{name}.attention.qkv");
        self.add(&format!("{qkv}.weight"), Role::Weight, vec![width, 3 * width], Init::Uniform { bound });
        self.vector(&format!("{qkv}.bias"), Role::Bias, 3 * width, 0.0);
        self.rounded();
        self.linear(&format!("{name}.attention.out"), width, width);
        self.norm(&format!("{name}.norm2"), width);
        self.linear(&format!("{name}.mlp.up"), width, hidden);
        self.rounded();
        self.linear(&format!("{name}.mlp.down"), hidden, width);
    }
}
