use super::activations::{free, Free};
use super::{Activations, Backward, Block, Gradients, Keep, Stack};
use crate::kernel::backend::{Activated, Backend, Input, Weights};

impl Stack<'_> {
    /// Turns the gradient of the output in [`Backward::dx`] into that of the tokens, in place; adds the gradients of all
    /// parameters to `gradients`. Uses up what the forward pass saved, and leaves the gradient of the tokens rounded too.
    ///
    /// # Errors
    /// The device fails.
    pub fn backward<B: Backend>(
        &self,
        weights: &Weights<B>,
        activations: &mut Activations<B::Element>,
        gradients: &mut Gradients,
    ) -> Result<(), B::Error> {
        let stream = activations.x.len();
        let Backward { dx, rounded, .. } = activations.backward();
        weights.backend.round(rounded, dx.view())?;
        for (i, block) in self.blocks.iter().enumerate().rev() {
            let anew = activations.keep == Keep::Inputs;
            if anew {
                let input = activations.inputs.view().part(i * stream, stream);
                weights.backend.copy(activations.x.reborrow(), input)?;
                self.block_forward(block, weights, activations, 0)?;
            }
            let slot = if anew { 0 } else { i };
            self.block_backward(block, weights, activations, slot, gradients)?;
        }
        Ok(())
    }

    fn block_backward<B: Backend>(
        &self,
        block: &Block<usize>,
        weights: &Weights<B>,
        activations: &mut Activations<B::Element>,
        slot: usize,
        gradients: &mut Gradients,
    ) -> Result<(), B::Error> {
        let (backend, shape) = (weights.backend, self.shape);
        let (rows, width, hidden) = (activations.batch * activations.tokens, shape.width, shape.hidden);
        let attention = shape.attention(activations.batch, activations.tokens);
        let (Backward { mut dx, mut rounded, mut wide, mut scratch }, saved) = activations.block(slot);
        let Block { norm1, qkv, out, norm2, up, down } = block;

        let mut dhidden = wide.part(0, rows * hidden);
        let mut active = saved.hidden.part(0, rows * hidden);
        let to = Activated { before: active.reborrow(), after: dhidden.reborrow() };
        backend.linear_activate_backward(
            to,
            rounded.view(),
            weights.weight(down.weight),
            shape.activation,
        )?;
        let [dw, db] = gradients.at([down.weight, down.bias]);
        let x = Input::Rows { values: active.view(), width: hidden };
        backend.weight_gradient(dw, Some(db), x, rounded.view(), scratch.reborrow())?;

        let Free { mut dnormed, mut dmixed, mut mixed } =
            free(&mut saved.hidden, &mut saved.mixed, rows * width);
        backend.linear_backward(dnormed.reborrow(), dhidden.view(), weights.weight(up.weight))?;
        let norm = weights.norm(*norm2, shape.norm_eps);
        let [dw, db] = gradients.at([up.weight, up.bias]);
        let x = Input::Normed { saved: &saved.norm2, norm, room: dmixed.reborrow() };
        backend.weight_gradient(dw, Some(db), x, dhidden.view(), scratch.reborrow())?;
        let (to, copy) = (dx.reborrow(), Some(rounded.reborrow()));
        let dnorm = gradients.at([norm2.scale, norm2.shift]);
        let (dy, room) = (dnormed.view(), scratch.reborrow());
        backend.layer_norm_backward(to, copy, dnorm, dy, &saved.norm2, norm.scale, room)?;

        backend.linear_backward(dmixed.reborrow(), rounded.view(), weights.weight(out.weight))?;
        let mut dqkv = wide.part(0, rows * 3 * width);
        let (to, qkv_values, lse) = (dqkv.reborrow(), saved.qkv.view(), saved.lse.view());
        let (output, room) = (mixed.reborrow(), scratch.reborrow());
        backend.attention_backward(to, output, dmixed.view(), qkv_values, lse, attention, room)?;
        let [dw, db] = gradients.at([out.weight, out.bias]);
        let x = Input::Rows { values: mixed.view(), width };
        backend.weight_gradient(dw, Some(db), x, rounded.view(), scratch.reborrow())?;

        backend.linear_backward(dnormed.reborrow(), dqkv.view(), weights.weight(qkv.weight))?;
        let norm = weights.norm(*norm1, shape.norm_eps);
        let [dw, db] = gradients.at([qkv.weight, qkv.bias]);
        let x = Input::Normed { saved: &saved.norm1, norm, room: dmixed.reborrow() };
        backend.weight_gradient(dw, Some(db), x, dqkv.view(), scratch.reborrow())?;
        let (copy, dnorm) = (Some(rounded.reborrow()), gradients.at([norm1.scale, norm1.shift]));
        backend.layer_norm_backward(dx, copy, dnorm, dnormed.view(), &saved.norm1, norm.scale, scratch)
    }
}
