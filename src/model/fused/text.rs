//! The text encoder on kernels.

use std::sync::Arc;

use dfdx::tensor::Cpu;

use super::memory::{Arenas, Purpose};
use super::tower::{Head, HeadSaved, Masters, Places, Recorded};
use super::{length, text_shape};
use crate::kernel::element::Element;
use crate::kernel::transformer::{Activations, Stack};
use crate::kernel::{patches, tokens, Cpu as Kernels};
use crate::model::config::{ModelConfig, Recompute};
use crate::model::input::TextInput;
use crate::model::text::pooled_tokens;
use crate::parameter::Parameter;

/// Weights as kernels read them, and memory.
#[derive(Debug, Clone)]
pub(super) struct FusedTexts<K> {
    config: ModelConfig,
    /// [vocab_size, width].
    tokens: Vec<K>,
    /// [context, width].
    positions: Vec<f32>,
    stack: Stack<K>,
    head: Head<K>,
    arenas: Arenas<K>,
}

/// What the backward pass needs besides the arena.
struct Pass<K: Element> {
    tower: Arc<FusedTexts<K>>,
    purpose: Purpose,
    arena: Activations<K>,
    input: TextInput,
    places: Places,
    head: HeadSaved<K>,
}

impl<K: Element> FusedTexts<K> {
    pub fn new(kernels: &Kernels, config: &ModelConfig, recompute: Recompute) -> Self {
        let text = &config.text;
        FusedTexts {
            tokens: Vec::new(),
            positions: Vec::new(),
            stack: Stack::zeroed(kernels, text_shape(config)),
            head: Head::zeroed(
                kernels,
                text.width,
                config.embed_dim,
                text.norm_eps as f32,
                length(config.normalisation),
            ),
            arenas: Arenas::new(recompute),
            config: config.clone(),
        }
    }

    /// Copies the masters, given in the order of the model's walk.
    pub fn load(&mut self, kernels: &Kernels, parameters: &[&Parameter<f32, Cpu>]) {
        let mut masters = Masters::new(parameters);
        let tokens = masters.read();
        self.tokens.resize(tokens.len(), K::default());
        patches::from_floats(kernels, &mut self.tokens, tokens);
        self.positions = masters.read().to_vec();
        for entry in self.stack.layout().entries().to_vec() {
            self.stack.load_part(kernels, entry.block, entry.part, masters.read());
        }
        self.head.norm = masters.norm();
        self.head.projection.pack(kernels, masters.read());
    }

    /// Unit embeddings [batch, embed_dim], and the way back where `record`. Kept tokens of a causal encoder
    /// come in the order of the caption.
    pub fn forward(
        self: Arc<Self>,
        kernels: &Kernels,
        input: &TextInput,
        record: bool,
    ) -> (Vec<f32>, Option<Box<dyn Recorded>>) {
        let (kept, width) = (&input.kept, self.config.text.width);
        let purpose = Purpose { batch: kept.batch, tokens: kept.kept, record };
        let mut arena = self.arenas.take(self.stack.shape(), purpose);
        tokens::gather(kernels, &mut arena.x, &self.tokens, &input.tokens, &self.positions, &kept.ids, width);
        self.stack.forward(kernels, &mut arena);
        let places: Places = pooled_tokens(input, self.config.text.pool)
            .map(|places| places.into_iter().map(|place| place as u32).collect());
        let (z, head) = self.head.forward(kernels, &arena.x, kept.kept, &places);
        if !record {
            self.arenas.give_back(purpose, arena);
            return (z, None);
        }
        (z, Some(Box::new(Pass { purpose, arena, input: input.clone(), places, head, tower: self })))
    }

    /// Bytes of the arenas that are not in use.
    pub fn arena_bytes(&self) -> usize {
        self.arenas.bytes()
    }
}

impl<K: Element> Recorded for Pass<K> {
    fn backward(self: Box<Self>, kernels: &Kernels, of_z: &[f32], gradients: &mut [&mut [f32]]) {
        let Pass { tower, purpose, mut arena, input, places, head } = *self;
        let width = tower.config.text.width;
        let [dtokens, dpositions, dstack @ .., dscale, dshift, dprojection] = gradients else {
            unreachable!("a text encoder has tokens, positions, blocks, a norm and a projection")
        };
        let of_head = [&mut **dscale, dshift, dprojection];
        tower.head.backward(kernels, &mut arena.dx, of_head, of_z, &head, purpose.tokens, &places);
        tower.stack.backward(kernels, &mut arena, dstack);
        tokens::scatter_add(kernels, dtokens, &input.tokens, &arena.dx, |row| row, width);
        tokens::scatter_add(kernels, dpositions, &input.kept.ids, &arena.dx, |row| row, width);
        tower.arenas.give_back(purpose, arena);
    }
}
