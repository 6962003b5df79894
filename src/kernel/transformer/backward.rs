use super::activations::gradient;
use super::layout::pair;
use super::{Activations, Block, Keep, Part, Shape, Stack};
use crate::kernel::attention;
use crate::kernel::element::Element;
use crate::kernel::gemm::epilogue::{ActivateBackward, Grid, Write};
use crate::kernel::gemm::{weight_gradient, Left};
use crate::kernel::layer_norm::{self, Saved};
use crate::kernel::patches;
use crate::kernel::Cpu;

impl<E: Element> Stack<'_, E> {
    /// Turns the gradient of the output in `activations.dx()` into that of the tokens, in place; adds the
    /// gradients of all parameters to `gradients`, one slice an entry of the layout. Uses up what the forward
    /// pass saved.
    pub fn backward(&self, cpu: &Cpu, activations: &mut Activations<E>, gradients: &mut [&mut [f32]]) {
        assert_eq!(gradients.len(), self.shape.depth * Part::ALL.len(), "gradients of a stack");
        let Activations { x, dx, rounded, .. } = activations;
        patches::from_floats(cpu, rounded, gradient(x, dx));
        let stream = activations.x.len();
        for (i, block) in self.blocks.iter().enumerate().rev() {
            let anew = activations.keep == Keep::Inputs;
            if anew {
                activations.x.copy_from_slice(&activations.inputs[i * stream..][..stream]);
                block.forward(cpu, &self.shape, activations, 0);
            }
            let slot = if anew { 0 } else { i };
            block.backward(cpu, &self.shape, activations, slot, gradients, i);
        }
    }
}

impl<E: Element> Block<'_, E> {
    fn backward(
        &self,
        cpu: &Cpu,
        shape: &Shape,
        activations: &mut Activations<E>,
        slot: usize,
        gradients: &mut [&mut [f32]],
        index: usize,
    ) {
        let Activations { batch, tokens, x, dx, saved, rounded, wide, .. } = activations;
        let (dx, saved) = (gradient(x, dx), &mut saved[slot]);
        let (rows, width, hidden) = (*batch * *tokens, shape.width, shape.hidden);
        let Block { norm1, qkv, out, norm2, up, down } = self;

        let dhidden = &mut wide[..rows * hidden];
        let to = ActivateBackward {
            before: Grid::new(&mut saved.hidden, hidden),
            gradient: Grid::new(dhidden, hidden),
            activation: shape.activation,
        };
        down.weight.backward(cpu, &to, Left::whole(rounded, width), rows);
        let (dw, db) = pair(gradients, index, Part::DownWeight);
        let x = Left::Columns { data: &saved.hidden, stride: hidden };
        weight_gradient(cpu, dw, Some(db), x, (rounded, width), (rows, hidden, width));

        let (normed, rest) = saved.hidden.split_at_mut(rows * width);
        let (dmixed, mixed) = rest.split_at_mut(rows * width);
        let mixed = &mut mixed[..rows * width];
        let to = Write { to: Grid::new(normed, width), bias: None };
        up.weight.backward(cpu, &to, Left::whole(dhidden, hidden), rows);
        let (dw, db) = pair(gradients, index, Part::UpWeight);
        let x = Left::ScaledColumns {
            data: &saved.normal2,
            stride: width,
            scale: norm2.scale,
            shift: norm2.shift,
        };
        weight_gradient(cpu, dw, Some(db), x, (dhidden, hidden), (rows, width, hidden));
        let (dscale, dshift) = pair(gradients, index, Part::Norm2Scale);
        let norm = Saved { normal: &saved.normal2, rstd: &saved.rstd2 };
        layer_norm::backward(cpu, dx, Some(rounded), dscale, dshift, normed, norm, norm2.scale);

        let to = Write { to: Grid::new(dmixed, width), bias: None };
        out.weight.backward(cpu, &to, Left::whole(rounded, width), rows);
        let dqkv = &mut wide[..rows * 3 * width];
        let attention = shape.attention(*batch, *tokens);
        attention::backward(cpu, dqkv, mixed, dmixed, &saved.qkv, &saved.lse, attention);
        let (dw, db) = pair(gradients, index, Part::OutWeight);
        let x = Left::Columns { data: mixed, stride: width };
        weight_gradient(cpu, dw, Some(db), x, (rounded, width), (rows, width, width));

        let to = Write { to: Grid::new(normed, width), bias: None };
        qkv.weight.backward(cpu, &to, Left::whole(dqkv, 3 * width), rows);
        let (dw, db) = pair(gradients, index, Part::QkvWeight);
        let x = Left::ScaledColumns {
            data: &saved.normal1,
            stride: width,
            scale: norm1.scale,
            shift: norm1.shift,
        };
        weight_gradient(cpu, dw, Some(db), x, (dqkv, 3 * width), (rows, width, 3 * width));
        let (dscale, dshift) = pair(gradients, index, Part::Norm1Scale);
        let norm = Saved { normal: &saved.normal1, rstd: &saved.rstd1 };
        layer_norm::backward(cpu, dx, Some(rounded), dscale, dshift, normed, norm, norm1.scale);
    }
}
