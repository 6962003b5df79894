use super::super::Keep;
use super::{Activations, Block, Norm, Stack};
use crate::kernel::cuda::copies::Copies;
use crate::kernel::cuda::{Machine, MachineError};
use crate::kernel::{attention, gemm, layer_norm};

impl Stack {
    /// Runs all blocks over `activations.x`, in place.
    pub fn forward<M: Machine>(
        &self,
        machine: &M,
        copies: &Copies<M>,
        activations: &mut Activations,
    ) -> Result<(), MachineError> {
        let stream = activations.x.len();
        for i in 0..self.shape.depth {
            if activations.keep == Keep::Inputs {
                let input = activations.inputs.part(i * stream, stream);
                machine.copy(input, activations.x.read())?;
            }
            let slot = if activations.keep == Keep::Everything { i } else { 0 };
            let block = self.block(machine, copies, i);
            self.block_forward(machine, block, activations, slot)?;
        }
        Ok(())
    }

    /// One block; what it saves goes to `saved[slot]`.
    pub(super) fn block_forward<M: Machine>(
        &self,
        machine: &M,
        block: Block,
        activations: &mut Activations,
        slot: usize,
    ) -> Result<(), MachineError> {
        let shape = &self.shape;
        let Activations { batch, tokens, x, saved, normed, wide, .. } = activations;
        let saved = &mut saved[slot];
        let rows = *batch * *tokens;
        let Block { norm1, qkv, out, norm2, up, down } = block;

        let Norm { scale, shift } = norm1;
        let (normal, rstd) = (saved.normal1.again(), saved.rstd1.again());
        layer_norm::cuda::forward(
            machine,
            normed.again(),
            normal,
            rstd,
            x.read(),
            scale,
            shift,
            shape.norm_eps,
        )?;
        gemm::cuda::forward_bias(machine, saved.qkv.again(), normed.read(), qkv.weight, qkv.bias)?;
        let attention = shape.attention(*batch, *tokens);
        let (mixed, lse) = (saved.mixed.again(), saved.lse.again());
        attention::cuda::forward(machine, mixed, lse, saved.qkv.read(), attention)?;
        gemm::cuda::add(machine, x.again(), saved.mixed.read(), out.weight, out.bias)?;

        let Norm { scale, shift } = norm2;
        let (normal, rstd) = (saved.normal2.again(), saved.rstd2.again());
        layer_norm::cuda::forward(
            machine,
            normed.again(),
            normal,
            rstd,
            x.read(),
            scale,
            shift,
            shape.norm_eps,
        )?;
        let mut after = wide.part(0, rows * shape.hidden);
        let to = (after.again(), saved.hidden.again());
        gemm::cuda::activate(machine, to, normed.read(), up.weight, up.bias, shape.activation)?;
        gemm::cuda::add(machine, x.again(), after.read(), down.weight, down.bias)
    }
}
