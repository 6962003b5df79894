use super::super::{Keep, Part};
use super::{Activations, Block, Norm, Stack};
use crate::kernel::attention::cuda::Saved;
use crate::kernel::cuda::copies::Copies;
use crate::kernel::cuda::{Machine, MachineError, ViewMut};
use crate::kernel::{attention, gemm, layer_norm, patches};

impl Stack {
    /// Turns the gradient of the output in `activations.dx` into that of the tokens, in place; adds the gradients of all
    /// parameters to `gradients`, one an entry of the layout. Uses up what the forward pass saved.
    pub fn backward<M: Machine>(
        &self,
        machine: &M,
        copies: &Copies<M>,
        activations: &mut Activations,
        gradients: &mut [ViewMut<f32>],
    ) -> Result<(), MachineError> {
        assert_eq!(gradients.len(), self.shape.depth * Part::ALL.len(), "gradients of a stack");
        let stream = activations.x.len();
        patches::cuda::from_floats(machine, activations.rounded.again(), activations.dx.read())?;
        for i in (0..self.shape.depth).rev() {
            let block = self.block(machine, copies, i);
            let anew = activations.keep == Keep::Inputs;
            if anew {
                let input = activations.inputs.read().part(i * stream, stream);
                machine.copy(activations.x.again(), input)?;
                self.block_forward(machine, block, activations, 0)?;
            }
            let slot = if anew { 0 } else { i };
            let own = &mut gradients[i * Part::ALL.len()..(i + 1) * Part::ALL.len()];
            self.block_backward(machine, block, activations, slot, own)?;
        }
        Ok(())
    }

    /// One block; `gradients` are those of its own parameters.
    fn block_backward<M: Machine>(
        &self,
        machine: &M,
        block: Block,
        activations: &mut Activations,
        slot: usize,
        gradients: &mut [ViewMut<f32>],
    ) -> Result<(), MachineError> {
        let shape = &self.shape;
        let Activations { batch, tokens, dx, saved, normed, rounded, dmixed, wide, dots, partial, .. } =
            activations;
        let saved = &mut saved[slot];
        let (rows, width, hidden) = (*batch * *tokens, shape.width, shape.hidden);
        let Block { norm1, qkv, out, norm2, up, down } = block;

        let mut dhidden = wide.part(0, rows * hidden);
        let to = (dhidden.again(), saved.hidden.again());
        gemm::cuda::activate_backward(machine, to, rounded.read(), down.weight, shape.activation)?;
        let (dw, db) = pair(gradients, Part::DownWeight);
        let (x, dy) = ((saved.hidden.read(), hidden), (rounded.read(), width));
        gemm::cuda::weight_gradient(machine, dw, Some(db), partial.again(), x, dy)?;

        gemm::cuda::backward(machine, normed.again(), dhidden.read(), up.weight)?;
        let Norm { scale, shift } = norm2;
        layer_norm::cuda::again(machine, dmixed.again(), saved.normal2.read(), scale, shift)?;
        let (dw, db) = pair(gradients, Part::UpWeight);
        let (x, dy) = ((dmixed.read(), width), (dhidden.read(), hidden));
        gemm::cuda::weight_gradient(machine, dw, Some(db), partial.again(), x, dy)?;
        let (dscale, dshift) = pair(gradients, Part::Norm2Scale);
        let norm = (saved.normal2.read(), saved.rstd2.read());
        layer_norm::cuda::backward(
            machine,
            dx.again(),
            Some(rounded.again()),
            dscale,
            dshift,
            partial.again(),
            normed.read(),
            norm,
            scale,
        )?;

        gemm::cuda::backward(machine, dmixed.again(), rounded.read(), out.weight)?;
        let mut dqkv = wide.part(0, rows * 3 * width);
        let of = Saved { qkv: saved.qkv.read(), out: saved.mixed.read(), lse: saved.lse.read() };
        let attention = shape.attention(*batch, *tokens);
        attention::cuda::backward(machine, dqkv.again(), dots.again(), dmixed.read(), of, attention)?;
        let (dw, db) = pair(gradients, Part::OutWeight);
        let (x, dy) = ((saved.mixed.read(), width), (rounded.read(), width));
        gemm::cuda::weight_gradient(machine, dw, Some(db), partial.again(), x, dy)?;

        gemm::cuda::backward(machine, normed.again(), dqkv.read(), qkv.weight)?;
        let Norm { scale, shift } = norm1;
        layer_norm::cuda::again(machine, dmixed.again(), saved.normal1.read(), scale, shift)?;
        let (dw, db) = pair(gradients, Part::QkvWeight);
        let (x, dy) = ((dmixed.read(), width), (dqkv.read(), 3 * width));
        gemm::cuda::weight_gradient(machine, dw, Some(db), partial.again(), x, dy)?;
        let (dscale, dshift) = pair(gradients, Part::Norm1Scale);
        let norm = (saved.normal1.read(), saved.rstd1.read());
        layer_norm::cuda::backward(
            machine,
            dx.again(),
            Some(rounded.again()),
            dscale,
            dshift,
            partial.again(),
            normed.read(),
            norm,
            scale,
        )
    }
}

/// Of a block's gradients: a part and the one that follows it, which is a weight and its bias, or a scale and its shift.
fn pair<'a>(gradients: &'a mut [ViewMut<f32>], first: Part) -> (ViewMut<'a, f32>, ViewMut<'a, f32>) {
    let (a, b) = gradients[first as usize..first as usize + 2].split_at_mut(1);
    (a[0].again(), b[0].again())
}
