//! The text encoder on kernels.

use std::sync::Arc;

use dfdx::shapes::HasShape;
use dfdx::tensor::Cpu;

use super::memory::{Arenas, Purpose};
use super::tower::{Head, HeadSaved, Masters, Places, Recorded, Supply};
use super::{length, text_shape};
use crate::kernel::element::Element;
use crate::kernel::transformer::{Activations, Stack};
use crate::kernel::{tokens, Cpu as Kernels};
use crate::model::config::{ModelConfig, Recompute};
use crate::model::input::TextInput;
use crate::model::layer::Matrix;
use crate::model::text::pooled_tokens;
use crate::parameter::Parameter;

/// Weights as kernels read them, and memory.
#[derive(Debug, Clone)]
pub(super) struct FusedTexts<K> {
    config: ModelConfig,
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
            positions: Vec::new(),
            stack: Stack::new(text_shape(config)),
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

    /// Copies the masters, given in the order of the model's walk. The first, the table of tokens, is read where
    /// it is needed: a batch names few of its rows.
    pub fn load(&mut self, kernels: &Kernels, parameters: &[&Parameter<f32, Cpu>], supply: Supply<'_>) {
        let mut masters = Masters::new(&parameters[1..], supply);
        self.positions = masters.read().to_vec();
        masters.stack(kernels, &mut self.stack);
        self.head.norm = masters.norm();
        masters.weight(|values| self.head.projection.pack(kernels, values));
    }

    /// Unit embeddings [batch, embed_dim], and the way back where `record`. Kept tokens of a causal encoder
    /// come in the order of the caption. `table` is the master of the tokens, [vocab_size, width].
    pub fn forward(
        self: Arc<Self>,
        kernels: &Kernels,
        table: &Matrix<f32, Cpu>,
        input: &TextInput,
        record: bool,
    ) -> (Vec<f32>, Option<Box<dyn Recorded>>) {
        let (kept, width) = (&input.kept, self.config.text.width);
        let purpose = Purpose { batch: kept.batch, tokens: kept.kept, record };
        let mut arena = self.arenas.take(self.stack.shape(), purpose);
        let (rows, ids) = named_rows::<K>(kernels, table, &input.tokens);
        tokens::gather(kernels, &mut arena.x, &rows, &ids, &self.positions, &kept.ids, width);
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

    /// Keeps no master, so that they can be changed in place.
    pub fn release(&mut self) {
        self.stack.release();
    }

    /// Bytes of the arenas that are not in use.
    pub fn arena_bytes(&self) -> usize {
        self.arenas.bytes()
    }
}

/// The rows of a table that `tokens` name, each once and rounded, and for each token its row among them. dfdx lends
/// single values of a tensor, not its storage, and a copy of the whole table would be the largest thing in memory.
fn named_rows<K: Element>(kernels: &Kernels, table: &Matrix<f32, Cpu>, tokens: &[u32]) -> (Vec<K>, Vec<u32>) {
    let mut named = tokens.to_vec();
    named.sort_unstable();
    named.dedup();
    let width = table.shape().1;
    let mut rows = vec![K::default(); named.len() * width];
    kernels.threads().each(rows.chunks_mut(width).zip(&named), |_, (row, &token)| {
        row.iter_mut().enumerate().for_each(|(column, x)| *x = K::from_f32(table[[token as usize, column]]));
    });
    let ids = tokens.iter().map(|token| named.partition_point(|named| named < token) as u32);
    (rows, ids.collect())
}

impl<K: Element> Recorded for Pass<K> {
    fn backward(self: Box<Self>, kernels: &Kernels, of_z: &[f32], gradients: &mut [&mut [f32]]) {
        let Pass { tower, purpose, mut arena, input, places, head } = *self;
        let width = tower.config.text.width;
        let [dtokens, dpositions, dstack @ .., dscale, dshift, dprojection] = gradients else {
            unreachable!("a text encoder has tokens, positions, blocks, a norm and a projection")
        };
        let of_head = [&mut **dscale, dshift, dprojection];
        tower.head.backward(kernels, arena.dx(), of_head, of_z, &head, purpose.tokens, &places);
        tower.stack.backward(kernels, &mut arena, dstack);
        let dx = &*arena.dx();
        tokens::scatter_add(kernels, dtokens, &input.tokens, dx, |row| row, width);
        tokens::scatter_add(kernels, dpositions, &input.kept.ids, dx, |row| row, width);
        tower.arenas.give_back(purpose, arena);
    }
}
