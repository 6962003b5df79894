//! The blocks and the head of an encoder.

use super::head::{Head, HeadParts, Pooling};
use super::names::Names;
use crate::kernel::activation;
use crate::kernel::backend::{Backend, Weights};
use crate::kernel::transformer::{Activations, Block, Gradients, Shape, Stack};
use crate::kernel::view::View;
use crate::model::config::{Activation, ModelConfig};

/// Places of the parameters of an encoder's blocks and head, and their options.
#[derive(Debug, Clone)]
pub(super) struct Blocks {
    pub shape: Shape,
    blocks: Vec<Block<usize>>,
    pub head: Head,
}

impl Blocks {
    /// Those of the encoder of a name.
    pub fn new(config: &ModelConfig, names: &Names, tower: &str, shape: Shape, pooling: Pooling) -> Self {
        let block = |i| Block::from_names(|name| names.place(&format!("{tower}.blocks.{i}.{name}")));
        Blocks {
            blocks: (0..shape.depth).map(block).collect(),
            head: Head::new(config, names, tower, &shape, pooling),
            shape,
        }
    }

    fn stack(&self) -> Stack<'_> {
        Stack { shape: &self.shape, blocks: &self.blocks }
    }

    /// From tokens in `activations.x` to unit embeddings in the head's parts.
    pub fn forward<B: Backend>(
        &self,
        weights: &Weights<B>,
        activations: &mut Activations<B::Element>,
        head: &mut HeadParts<B::Element>,
    ) -> Result<(), B::Error> {
        self.stack().forward(weights, activations)?;
        self.head.forward(weights, activations, head)
    }

    /// From the gradient `dz` of the embeddings to that of the tokens.
    pub fn backward<B: Backend>(
        &self,
        weights: &Weights<B>,
        activations: &mut Activations<B::Element>,
        head: &mut HeadParts<B::Element>,
        dz: View<f32>,
        gradients: &mut Gradients,
    ) -> Result<(), B::Error> {
        self.head.backward(weights, activations, head, dz, gradients)?;
        self.stack().backward(weights, activations, gradients)
    }
}

fn curve(activation: Activation) -> activation::Activation {
    match activation {
        Activation::GeluTanh => activation::Activation::GeluTanh,
        Activation::GeluExact => activation::Activation::GeluExact,
        Activation::QuickGelu => activation::Activation::QuickGelu,
    }
}

/// Sizes of the image encoder's blocks.
pub(super) fn image_shape(config: &ModelConfig) -> Shape {
    let image = &config.image;
    Shape {
        width: image.width,
        depth: image.depth,
        heads: image.heads,
        hidden: image.hidden(),
        activation: curve(image.activation),
        causal: false,
        norm_eps: image.norm_eps as f32,
    }
}

/// Sizes of the text encoder's blocks.
pub(super) fn text_shape(config: &ModelConfig) -> Shape {
    let text = &config.text;
    Shape {
        width: text.width,
        depth: text.depth,
        heads: text.heads,
        hidden: text.hidden(),
        activation: curve(text.activation),
        causal: text.causal,
        norm_eps: text.norm_eps as f32,
    }
}
