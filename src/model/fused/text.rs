//! The text encoder on kernels.

use std::sync::Arc;

use super::memory::{Arenas, Purpose};
use super::tower::{Head, HeadSaved, PooledTokens, Recorded};
use super::values::{place, Parameters};
use super::{length, text_shape};
use crate::kernel::element::Element;
use crate::kernel::transformer::Activations;
use crate::kernel::{tokens, Cpu as Kernels};
use crate::model::config::{ModelConfig, Recompute};
use crate::model::input::TextInput;
use crate::model::spec::{TEXT_POSITIONS, TOKENS};
use crate::model::text::pooled_tokens;
use crate::parameter::Parameter;

/// The text encoder: options, places of its parameters, and memory.
#[derive(Debug)]
pub(super) struct FusedTexts<K> {
    config: ModelConfig,
    places: Places,
    head: Head,
    arenas: Arenas<K>,
}

/// Places of parameters in the list of all.
#[derive(Debug, Clone, Copy)]
struct Places {
    /// [vocab_size, width].
    tokens: usize,
    /// [context, width].
    positions: usize,
    /// The first of the blocks.
    stack: usize,
}

/// What the backward pass needs besides the arena.
struct Pass<K: Element> {
    encoder: Arc<FusedTexts<K>>,
    parameters: Parameters<K>,
    purpose: Purpose,
    arena: Activations<K>,
    input: TextInput,
    pooled: PooledTokens,
    head: HeadSaved<K>,
}

impl<K: Element> FusedTexts<K> {
    pub fn new(config: &ModelConfig, parameters: &[Parameter], recompute: Recompute) -> Self {
        let positions = place(parameters, TEXT_POSITIONS);
        FusedTexts {
            places: Places { tokens: place(parameters, TOKENS), positions, stack: positions + 1 },
            head: Head {
                norm_eps: config.text.norm_eps as f32,
                length: length(config.normalisation),
                norm: place(parameters, "text.norm.scale"),
                projection: place(parameters, "text.projection"),
            },
            arenas: Arenas::new(recompute),
            config: config.clone(),
        }
    }

    /// Unit embeddings [batch, embed_dim], and the backward pass where `record`. Kept tokens of a causal encoder
    /// come in the order of the caption.
    pub fn forward(
        self: Arc<Self>,
        kernels: &Kernels,
        parameters: Parameters<K>,
        input: &TextInput,
        record: bool,
    ) -> (Vec<f32>, Option<Box<dyn Recorded>>) {
        let (kept, width) = (&input.kept, self.config.text.width);
        let purpose = Purpose { batch: kept.batch, tokens: kept.kept, record };
        let stack = parameters.stack(text_shape(&self.config), self.places.stack);
        let mut arena = self.arenas.take(stack.shape(), purpose);
        let [table, positions] = [self.places.tokens, self.places.positions].map(|of| parameters.vector(of));
        tokens::gather::<K>(kernels, &mut arena.x, table, &input.tokens, positions, &kept.ids, width);
        stack.forward(kernels, &mut arena);
        let pooled: PooledTokens = pooled_tokens(input, self.config.text.pool)
            .map(|places| places.into_iter().map(|place| place as u32).collect());
        let (z, head) = self.head.forward(kernels, &parameters, &arena.x, kept.kept, &pooled);
        if !record {
            self.arenas.give_back(purpose, arena);
            return (z, None);
        }
        let input = input.clone();
        (z, Some(Box::new(Pass { purpose, parameters, arena, input, pooled, head, encoder: self })))
    }

    /// Bytes of the arenas that are not in use.
    pub fn arena_bytes(&self) -> usize {
        self.arenas.bytes()
    }
}

impl<K: Element> Recorded for Pass<K> {
    fn backward(self: Box<Self>, kernels: &Kernels, of_z: &[f32], gradients: &mut [&mut [f32]]) {
        let Pass { encoder, parameters, purpose, mut arena, input, pooled, head } = *self;
        let width = encoder.config.text.width;
        let [dtokens, dpositions, dstack @ .., dscale, dshift, dprojection] = gradients else {
            unreachable!("a text encoder has tokens, positions, blocks, a norm and a projection")
        };
        let of_head = [&mut **dscale, dshift, dprojection];
        let (dx, tokens) = (arena.dx(), purpose.tokens);
        encoder.head.backward(kernels, &parameters, dx, of_head, of_z, &head, tokens, &pooled);
        let stack = parameters.stack(text_shape(&encoder.config), encoder.places.stack);
        stack.backward(kernels, &mut arena, dstack);
        let dx = &*arena.dx();
        tokens::scatter_add(kernels, dtokens, &input.tokens, dx, |row| row, width);
        tokens::scatter_add(kernels, dpositions, &input.kept.ids, dx, |row| row, width);
        encoder.arenas.give_back(purpose, arena);
    }
}
