use super::{Activations, Block, Keep, Shape, Stack};
use crate::kernel::attention;
use crate::kernel::element::Element;
use crate::kernel::gemm::epilogue::{Activate, Add, Grid, Write};
use crate::kernel::gemm::Left;
use crate::kernel::layer_norm;
use crate::kernel::Cpu;

impl<E: Element> Stack<'_, E> {
    /// Runs all blocks over `activations.x`, in place.
    pub fn forward(&self, cpu: &Cpu, activations: &mut Activations<E>) {
        let stream = activations.x.len();
        for (i, block) in self.blocks.iter().enumerate() {
            if activations.keep == Keep::Inputs {
                activations.inputs[i * stream..][..stream].copy_from_slice(&activations.x);
            }
            let slot = if activations.keep == Keep::Everything { i } else { 0 };
            block.forward(cpu, &self.shape, activations, slot);
        }
    }
}

impl<E: Element> Block<'_, E> {
    /// One block; what it saves goes to `saved[slot]`.
    pub(super) fn forward(&self, cpu: &Cpu, shape: &Shape, activations: &mut Activations<E>, slot: usize) {
        let Activations { batch, tokens, x, saved, rounded, normed, wide, .. } = activations;
        let saved = &mut saved[slot];
        let normed = if normed.is_empty() { rounded } else { normed };
        let (rows, width, hidden) = (*batch * *tokens, shape.width, shape.hidden);

        let Block { norm1, qkv, out, norm2, up, down } = self;
        let (scale, shift) = (norm1.scale, norm1.shift);
        layer_norm::forward(
            cpu,
            normed,
            &mut saved.normal1,
            &mut saved.rstd1,
            x,
            scale,
            shift,
            shape.norm_eps,
        );
        let to = Write { to: Grid::new(&mut saved.qkv, 3 * width), bias: Some(qkv.bias) };
        qkv.weight.forward(cpu, &to, Left::whole(normed, width), rows);
        let (attention, mixed) = (shape.attention(*batch, *tokens), &mut wide[..rows * width]);
        attention::forward(cpu, mixed, &mut saved.lse, &saved.qkv, attention);
        let to = Add { to: Grid::new(x, width), bias: Some(out.bias) };
        out.weight.forward(cpu, &to, Left::whole(mixed, width), rows);

        let (scale, shift) = (norm2.scale, norm2.shift);
        layer_norm::forward(
            cpu,
            normed,
            &mut saved.normal2,
            &mut saved.rstd2,
            x,
            scale,
            shift,
            shape.norm_eps,
        );
        let wide = &mut wide[..rows * hidden];
        let to = Activate {
            before: Grid::new(&mut saved.hidden, hidden),
            after: Grid::new(wide, hidden),
            bias: up.bias,
            activation: shape.activation,
        };
        up.weight.forward(cpu, &to, Left::whole(normed, width), rows);
        let to = Add { to: Grid::new(x, width), bias: Some(down.bias) };
        down.weight.forward(cpu, &to, Left::whole(wide, hidden), rows);
    }
}
