//! The text encoder on kernels.

use std::sync::Arc;

use dfdx::tensor::Cpu;

use super::memory::{Arenas, Purpose};
use super::tower::{parts, Head, HeadSaved, Places, Recorded};
use super::{length, text_shape};
use crate::kernel::element::Element;
use crate::kernel::transformer::{Activations, Norm, Stack};
use crate::kernel::{tokens, Cpu as Kernels};
use crate::model::config::ModelConfig;
use crate::model::input::TextInput;
use crate::model::text::pooled_tokens;
use crate::parameter::Parameter;

/// Weights as kernels read them, and memory.
#[derive(Debug, Clone)]
pub(super) struct FusedTexts<K> {
    config: ModelConfig,
    /// [vocab_size, width].
    tokens: Vec<f32>,
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
    pub fn new(kernels: &Kernels, config: &ModelConfig) -> Self {
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
            arenas: Arenas::new(),
            config: config.clone(),
        }
    }

    /// Copies the masters, given in the order of the model's walk.
    pub fn load(&mut self, kernels: &Kernels, parameters: &[&Parameter<f32, Cpu>]) {
        let mut masters = parameters.iter().map(|parameter| parameter.master.as_vec());
        let mut next = || masters.next().unwrap_or_default();
        self.tokens = next();
        self.positions = next();
        for entry in self.stack.layout().entries().to_vec() {
            self.stack.load_part(kernels, entry.block, entry.part, &next());
        }
        self.head.norm = Norm { scale: next(), shift: next() };
        self.head.projection.pack(kernels, &next());
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

    /// Numbers of each parameter, in the order of the model's walk: tokens, positions, blocks, norm scale and
    /// shift, projection.
    fn lengths(&self) -> [usize; 6] {
        let width = self.config.text.width;
        let stack = self.stack.layout().len();
        [self.tokens.len(), self.positions.len(), stack, width, width, width * self.config.embed_dim]
    }
}

impl<K: Element> Recorded for Pass<K> {
    fn backward(self: Box<Self>, kernels: &Kernels, of_z: &[f32]) -> Vec<f32> {
        let Pass { tower, purpose, mut arena, input, places, head } = *self;
        let width = tower.config.text.width;
        let lengths = tower.lengths();
        let mut flat = vec![0.0; lengths.iter().sum()];
        let [dtokens, dpositions, dstack, dscale, dshift, dprojection] = parts(&mut flat, lengths);
        let of_head = [dscale, dshift, dprojection];
        tower.head.backward(kernels, &mut arena.dx, of_head, of_z, &head, purpose.tokens, &places);
        tower.stack.backward(kernels, &mut arena, dstack);
        tokens::scatter_add(kernels, dtokens, &input.tokens, &arena.dx, |row| row, width);
        tokens::scatter_add(kernels, dpositions, &input.kept.ids, &arena.dx, |row| row, width);
        tower.arenas.give_back(purpose, arena);
        flat
    }
}
