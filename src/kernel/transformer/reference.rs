//! The stack in double precision, composed of the references of its parts.

use super::{Block, Linear, Scaled, Shape};
use crate::kernel::{attention, layer_norm};

/// Results of [`forward_and_backward`].
pub struct Reference {
    /// Output for the tokens.
    pub out: Vec<f64>,
    /// Gradient of the tokens.
    pub dx: Vec<f64>,
    /// Gradients of the parameters of each block.
    pub gradients: Vec<Block<Vec<f64>>>,
}

/// Values that a block leaves for its backward pass.
struct Saved {
    before: Vec<f64>,
    normed1: Vec<f64>,
    qkv: Vec<f64>,
    mixed: Vec<f64>,
    between: Vec<f64>,
    normed2: Vec<f64>,
    up: Vec<f64>,
    active: Vec<f64>,
}

/// The output for tokens `x` of [batch * tokens, width] and, for the gradient `dout` of the output, the gradients of the tokens
/// and of all parameters.
pub fn forward_and_backward(
    shape: &Shape,
    blocks: &[Block<Vec<f64>>],
    x: &[f64],
    dout: &[f64],
    batch: usize,
) -> Reference {
    let eps = shape.norm_eps as f64;
    let attention = shape.attention(batch, x.len() / shape.width / batch);
    let mut x = x.to_vec();
    let mut saved = Vec::new();
    for Block { norm1, qkv, out, norm2, up, down } in blocks {
        let before = x.clone();
        let normed1 = layer_norm::reference::forward(&x, &norm1.scale, &norm1.shift, eps);
        let qkv = forward(&normed1, qkv);
        let mixed = attention::reference::forward(&qkv, attention);
        add(&mut x, &forward(&mixed, out));
        let between = x.clone();
        let normed2 = layer_norm::reference::forward(&x, &norm2.scale, &norm2.shift, eps);
        let up = forward(&normed2, up);
        let active: Vec<f64> = up.iter().map(|&x| shape.activation.value_and_slope(x).0).collect();
        add(&mut x, &forward(&active, down));
        saved.push(Saved { before, normed1, qkv, mixed, between, normed2, up, active });
    }

    let mut dx = dout.to_vec();
    let mut gradients = Vec::new();
    for (block, saved) in blocks.iter().zip(&saved).rev() {
        let (mut dup, down) = backward(&dx, &saved.active, &block.down);
        dup.iter_mut().zip(&saved.up).for_each(|(d, &x)| *d *= shape.activation.value_and_slope(x).1);
        let (dnormed, up) = backward(&dup, &saved.normed2, &block.up);
        let norm2 = norm_backward(&mut dx, &dnormed, &saved.between, &block.norm2, eps);
        let (dmixed, out) = backward(&dx, &saved.mixed, &block.out);
        let dqkv = attention::reference::backward(&dmixed, &saved.qkv, attention);
        let (dnormed, qkv) = backward(&dqkv, &saved.normed1, &block.qkv);
        let norm1 = norm_backward(&mut dx, &dnormed, &saved.before, &block.norm1, eps);
        gradients.push(Block { norm1, qkv, out, norm2, up, down });
    }
    gradients.reverse();
    Reference { out: x, dx, gradients }
}

fn norm_backward(
    dx: &mut [f64],
    dnormed: &[f64],
    x: &[f64],
    norm: &Scaled<Vec<f64>>,
    eps: f64,
) -> Scaled<Vec<f64>> {
    let (d, scale, shift) = layer_norm::reference::backward(dnormed, x, &norm.scale, eps);
    add(dx, &d);
    Scaled { scale, shift }
}

fn add(to: &mut [f64], x: &[f64]) {
    to.iter_mut().zip(x).for_each(|(to, x)| *to += x);
}

/// y [rows, n] = x [rows, k] weight + bias.
fn forward(x: &[f64], Linear { weight, bias }: &Linear<Vec<f64>>) -> Vec<f64> {
    let n = bias.len();
    let mut y = Vec::new();
    for x in x.chunks(weight.len() / n) {
        let mut row = bias.clone();
        for (x, weight) in x.iter().zip(weight.chunks(n)) {
            row.iter_mut().zip(weight).for_each(|(y, w)| *y += x * w);
        }
        y.extend(row);
    }
    y
}

/// The gradient of x, and those of weight and bias.
fn backward(dy: &[f64], x: &[f64], of: &Linear<Vec<f64>>) -> (Vec<f64>, Linear<Vec<f64>>) {
    let n = of.bias.len();
    let (mut dx, mut weight, mut bias) = (Vec::new(), vec![0.0; of.weight.len()], vec![0.0; n]);
    for (x, dy) in x.chunks(weight.len() / n).zip(dy.chunks(n)) {
        for ((x, w), dw) in x.iter().zip(of.weight.chunks(n)).zip(weight.chunks_mut(n)) {
            dx.push(w.iter().zip(dy).map(|(w, d)| w * d).sum());
            dw.iter_mut().zip(dy).for_each(|(dw, d)| *dw += x * d);
        }
        add(&mut bias, dy);
    }
    (dx, Linear { weight, bias })
}
