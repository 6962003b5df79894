//! The stack in double precision, composed of the references of its parts.

use super::{Layout, Part, Shape};
use crate::kernel::{attention, layer_norm};

/// Output for tokens `x` of [batch * tokens, width], and, for the gradient `dout` of the output, the
/// gradients of the tokens and of all parameters.
pub fn forward_and_backward(
    shape: &Shape,
    parameters: &[f64],
    x: &[f64],
    dout: &[f64],
    batch: usize,
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let layout = Layout::new(shape);
    let (width, hidden) = (shape.width, shape.hidden);
    let rows = x.len() / width;
    let eps = shape.norm_eps as f64;
    let attention = shape.attention(batch, rows / batch);
    let part = |block, part| &parameters[layout.range(block, part)];

    let mut x = x.to_vec();
    let mut saved = Vec::new();
    for i in 0..shape.depth {
        let before = x.clone();
        let normed1 =
            layer_norm::reference::forward(&x, part(i, Part::Norm1Scale), part(i, Part::Norm1Shift), eps);
        let qkv = linear(&normed1, part(i, Part::QkvWeight), part(i, Part::QkvBias));
        let mixed = attention::reference::forward(&qkv, attention);
        add(&mut x, &linear(&mixed, part(i, Part::OutWeight), part(i, Part::OutBias)));
        let between = x.clone();
        let normed2 =
            layer_norm::reference::forward(&x, part(i, Part::Norm2Scale), part(i, Part::Norm2Shift), eps);
        let up = linear(&normed2, part(i, Part::UpWeight), part(i, Part::UpBias));
        let active: Vec<f64> = up.iter().map(|&x| shape.activation.value_and_slope(x).0).collect();
        add(&mut x, &linear(&active, part(i, Part::DownWeight), part(i, Part::DownBias)));
        saved.push((before, normed1, qkv, mixed, between, normed2, up, active));
    }

    let mut dx = dout.to_vec();
    let mut gradients = vec![0.0; parameters.len()];
    for i in (0..shape.depth).rev() {
        let (before, normed1, qkv, mixed, between, normed2, up, active) = &saved[i];
        let mut put = |part, values: &[f64]| gradients[layout.range(i, part)].copy_from_slice(values);
        let (mut dup, dw, db) = linear_backward(&dx, active, part(i, Part::DownWeight), hidden);
        put(Part::DownWeight, &dw);
        put(Part::DownBias, &db);
        dup.iter_mut().zip(up).for_each(|(d, &x)| *d *= shape.activation.value_and_slope(x).1);
        let (dnormed, dw, db) = linear_backward(&dup, normed2, part(i, Part::UpWeight), width);
        put(Part::UpWeight, &dw);
        put(Part::UpBias, &db);
        let (d, ds, db) = layer_norm::reference::backward(&dnormed, between, part(i, Part::Norm2Scale), eps);
        put(Part::Norm2Scale, &ds);
        put(Part::Norm2Shift, &db);
        add(&mut dx, &d);
        let (dmixed, dw, db) = linear_backward(&dx, mixed, part(i, Part::OutWeight), width);
        put(Part::OutWeight, &dw);
        put(Part::OutBias, &db);
        let dqkv = attention::reference::backward(&dmixed, qkv, attention);
        let (dnormed, dw, db) = linear_backward(&dqkv, normed1, part(i, Part::QkvWeight), width);
        put(Part::QkvWeight, &dw);
        put(Part::QkvBias, &db);
        let (d, ds, db) = layer_norm::reference::backward(&dnormed, before, part(i, Part::Norm1Scale), eps);
        put(Part::Norm1Scale, &ds);
        put(Part::Norm1Shift, &db);
        add(&mut dx, &d);
    }
    (x, dx, gradients)
}

fn add(to: &mut [f64], x: &[f64]) {
    to.iter_mut().zip(x).for_each(|(to, x)| *to += x);
}

fn linear(x: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
    let n = bias.len();
    let mut y = Vec::new();
    for x in x.chunks(weight.len() / n) {
        let mut row = bias.to_vec();
        for (x, weight) in x.iter().zip(weight.chunks(n)) {
            row.iter_mut().zip(weight).for_each(|(y, w)| *y += x * w);
        }
        y.extend(row);
    }
    y
}

/// (dx, dweight, dbias).
fn linear_backward(dy: &[f64], x: &[f64], weight: &[f64], k: usize) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let n = weight.len() / k;
    let (mut dx, mut dw, mut db) = (Vec::new(), vec![0.0; weight.len()], vec![0.0; n]);
    for (x, dy) in x.chunks(k).zip(dy.chunks(n)) {
        for ((x, weight), dw) in x.iter().zip(weight.chunks(n)).zip(dw.chunks_mut(n)) {
            dx.push(weight.iter().zip(dy).map(|(w, d)| w * d).sum());
            dw.iter_mut().zip(dy).for_each(|(dw, d)| *dw += x * d);
        }
        add(&mut db, dy);
    }
    (dx, dw, db)
}
