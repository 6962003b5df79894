//! The text encoder.

use super::arenas::Purpose;
use super::head::{HeadParts, Pooling};
use super::names::Names;
use super::tower::{text_shape, Blocks};
use crate::kernel::arena::Arena;
use crate::kernel::backend::{Backend, Needs, Weights};
use crate::kernel::tokens::Sequences;
use crate::kernel::transformer::{Activations, Gradients, Keep};
use crate::kernel::view::{Number, View, ViewMut};
use crate::model::config::{ModelConfig, TextPool};
use crate::model::input::TextInput;
use crate::model::spec::{TEXT_POSITIONS, TOKENS};
use crate::model::text::pooled_tokens;
use crate::parameter::Parameter;

/// Places of the parameters of a text encoder, and its options.
#[derive(Debug, Clone)]
pub(super) struct TextEncoder {
    /// [vocab_size, width].
    tokens: usize,
    /// [context, width].
    positions: usize,
    pub blocks: Blocks,
    pool: TextPool,
}

/// The memory of a pass.
pub(super) struct Parts<'a, E> {
    activations: Activations<'a, E>,
    pub head: HeadParts<'a, E>,
    tokens: ViewMut<'a, u32>,
    positions: ViewMut<'a, u32>,
    scatter: ViewMut<'a, u32>,
}

impl TextEncoder {
    pub fn new(config: &ModelConfig, parameters: &[Parameter]) -> Self {
        let (names, pool) = (Names::new(parameters), config.text.pool);
        let pooling = if pool == TextPool::Mean { Pooling::Mean } else { Pooling::Place };
        TextEncoder {
            tokens: names.place(TOKENS),
            positions: names.place(TEXT_POSITIONS),
            blocks: Blocks::new(config, &names, "text", text_shape(config), pooling),
            pool,
        }
    }

    pub fn take<'a, E: Number>(&self, arena: &mut Arena<'a>, needs: Needs, purpose: Purpose) -> Parts<'a, E> {
        let Purpose { batch, kept, keep, .. } = purpose;
        let rows = batch * kept;
        Parts {
            activations: Activations::take(arena, needs, &self.blocks.shape, batch, kept, keep),
            head: self.blocks.head.take(arena, needs, batch, kept, keep),
            tokens: arena.take(rows),
            positions: arena.take(rows),
            scatter: arena.take(if keep == Keep::Nothing { 0 } else { (needs.scatter)(rows) }),
        }
    }

    /// Unit embeddings in the head's parts.
    pub fn forward<B: Backend>(
        &self,
        weights: &Weights<B>,
        input: &TextInput,
        parts: &mut Parts<B::Element>,
    ) -> Result<(), B::Error> {
        let (backend, width) = (weights.backend, self.blocks.shape.width);
        let Parts { activations, head, tokens, positions, .. } = parts;
        backend.write(tokens.reborrow(), &input.tokens)?;
        backend.write(positions.reborrow(), &input.kept.ids)?;
        if let Some(places) = pooled_tokens(input, self.pool) {
            let places: Vec<u32> = places.into_iter().map(|place| place as u32).collect();
            backend.write(head.places.reborrow(), &places)?;
        }
        let table = (weights.rounded(self.tokens), tokens.view());
        let positions = (weights.vector(self.positions), positions.view());
        backend.gather(activations.x.reborrow(), table, positions, width)?;
        self.blocks.forward(weights, activations, head)
    }

    /// Adds to the gradients of all parameters. `read` are the tokens and the positions that the forward pass read.
    pub fn backward<B: Backend>(
        &self,
        weights: &Weights<B>,
        read: [&[u32]; 2],
        purpose: Purpose,
        parts: &mut Parts<B::Element>,
        dz: View<f32>,
        gradients: &mut Gradients,
    ) -> Result<(), B::Error> {
        let Parts { activations, head, scatter, .. } = parts;
        self.blocks.backward(weights, activations, head, dz, gradients)?;
        let (dx, width) = (activations.backward().dx, self.blocks.shape.width);
        let of = Sequences { batch: purpose.batch, kept: purpose.kept, prefix: 0, width };
        for (place, ids) in [self.tokens, self.positions].into_iter().zip(read) {
            let [table] = gradients.at([place]);
            weights.backend.scatter_add(table, ids, dx.view(), of, scatter.reborrow())?;
        }
        Ok(())
    }
}
