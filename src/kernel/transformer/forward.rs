use super::{Activations, Block, Keep, Stack};
use crate::kernel::backend::{Activated, Backend, Weights};

impl Stack<'_> {
    /// Runs all blocks over `activations.x`, in place.
    ///
    /// # Errors
    /// The device fails.
    pub fn forward<B: Backend>(
        &self,
        weights: &Weights<B>,
        activations: &mut Activations<B::Element>,
    ) -> Result<(), B::Error> {
        let stream = activations.x.len();
        for (i, block) in self.blocks.iter().enumerate() {
            if activations.keep == Keep::Inputs {
                let input = activations.inputs.part(i * stream, stream);
                weights.backend.copy(input, activations.x.view())?;
            }
            let slot = if activations.keep == Keep::Everything { i } else { 0 };
            self.block_forward(block, weights, activations, slot)?;
        }
        Ok(())
    }

    /// One block. It saves to `saved[slot]`.
    pub(super) fn block_forward<B: Backend>(
        &self,
        block: &Block<usize>,
        weights: &Weights<B>,
        activations: &mut Activations<B::Element>,
        slot: usize,
    ) -> Result<(), B::Error> {
        let (backend, shape) = (weights.backend, self.shape);
        let Activations { batch, tokens, x, saved, rounded, normed, wide, .. } = activations;
        let saved = &mut saved[slot];
        let normed = if normed.is_empty() { rounded } else { normed };
        let rows = *batch * *tokens;
        let Block { norm1, qkv, out, norm2, up, down } = block;

        let norm = weights.norm(*norm1, shape.norm_eps);
        backend.layer_norm(normed.reborrow(), &mut saved.norm1, x.view(), norm)?;
        let (weight, bias) = (weights.weight(qkv.weight), weights.rounded(qkv.bias));
        backend.linear(saved.qkv.reborrow(), normed.view(), weight, bias)?;
        let mut mixed = match saved.mixed.is_empty() {
            true => wide.part(0, rows * shape.width),
            false => saved.mixed.reborrow(),
        };
        let attention = shape.attention(*batch, *tokens);
        backend.attention(mixed.reborrow(), saved.lse.reborrow(), saved.qkv.view(), attention)?;
        let (weight, bias) = (weights.weight(out.weight), weights.vector(out.bias));
        backend.linear_add(x.reborrow(), mixed.view(), weight, bias)?;

        let norm = weights.norm(*norm2, shape.norm_eps);
        backend.layer_norm(normed.reborrow(), &mut saved.norm2, x.view(), norm)?;
        let mut after = wide.part(0, rows * shape.hidden);
        let before = saved.hidden.part(0, rows * shape.hidden);
        let (weight, bias) = (weights.weight(up.weight), weights.rounded(up.bias));
        let to = Activated { before, after: after.reborrow() };
        backend.linear_activate(to, normed.view(), weight, bias, shape.activation)?;
        let (weight, bias) = (weights.weight(down.weight), weights.vector(down.bias));
        backend.linear_add(x.reborrow(), after.view(), weight, bias)
    }
}
