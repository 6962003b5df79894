//! LayerNorm over the width of a token: `normal = (x - mean) * rstd`, `y = normal * scale + shift` with
//! `rstd = 1 / sqrt(variance + eps)` and the biased variance, taken in two passes.
//!
//! | slice | shape |
//! |---|---|
//! | `x`, `dx` | [rows, width] f32: the residual stream and its gradient |
//! | `y`, `dy` | [rows, width] |
//! | `normal` | [rows, width]; saved |
//! | `rstd` | `[rows]` f32; saved |
//! | `scale`, `shift`, `dscale`, `dshift` | `[width]` f32 |
//!
//! Every gradient is `+=`: that of `x` joins the one that flows around the block.

pub mod cuda;
pub mod reference;

use super::element::{convert, Element};
use super::isa::dispatch;
use super::lanes::Lanes;
use super::Cpu;

/// Rows that one thread takes at a time, and that partial parameter gradients are summed over.
const BLOCK: usize = 32;

/// Values that the forward pass saves for the backward pass.
#[derive(Debug, Clone, Copy)]
pub struct Saved<'a, E> {
    pub normal: &'a [E],
    pub rstd: &'a [f32],
}

/// y, normal, rstd = layer_norm(x).
#[allow(clippy::too_many_arguments)]
pub fn forward<Y: Element, E: Element>(
    cpu: &Cpu,
    y: &mut [Y],
    normal: &mut [E],
    rstd: &mut [f32],
    x: &[f32],
    scale: &[f32],
    shift: &[f32],
    eps: f32,
) {
    let width = scale.len();
    assert!(shift.len() == width && x.len() == rstd.len() * width, "a LayerNorm of width {width}");
    assert!(y.len() == x.len() && normal.len() == x.len(), "outputs of a LayerNorm");
    let pieces = y
        .chunks_mut(BLOCK * width)
        .zip(normal.chunks_mut(BLOCK * width))
        .zip(rstd.chunks_mut(BLOCK).zip(x.chunks(BLOCK * width)));
    cpu.threads.each(pieces, |_, ((y, normal), (rstd, x))| {
        dispatch!(cpu.isa, l => {
            let rows = y.chunks_mut(width).zip(normal.chunks_mut(width)).zip(x.chunks(width)).zip(rstd);
            for (((y, normal), x), rstd) in rows {
                *rstd = forward_row(l, y, normal, x, scale, shift, eps);
            }
        })
    });
}

/// One row; returns rstd.
#[inline(always)]
fn forward_row<L: Lanes, Y: Element, E: Element>(
    l: L,
    y: &mut [Y],
    normal: &mut [E],
    x: &[f32],
    scale: &[f32],
    shift: &[f32],
    eps: f32,
) -> f32 {
    let width = x.len();
    let mut sum = [l.zero(); 2];
    for i in (0..width).step_by(2 * L::N) {
        sum[0] = l.add(sum[0], l.load(&x[i..]));
        sum[1] = l.add(sum[1], l.load(&x[(i + L::N).min(width)..]));
    }
    let mean = l.splat(l.sum(l.add(sum[0], sum[1])) / width as f32);
    let mut squares = l.zero();
    let whole = width - width % L::N;
    for i in (0..whole).step_by(L::N) {
        let d = l.sub(l.load(&x[i..]), mean);
        squares = l.fma(d, d, squares);
    }
    let mut variance = l.sum(squares);
    let mut first = [0.0];
    l.store(mean, &mut first);
    variance += x[whole..].iter().map(|x| (x - first[0]) * (x - first[0])).sum::<f32>();
    let rstd = 1.0 / (variance / width as f32 + eps).sqrt();
    let factor = l.splat(rstd);
    for i in (0..width).step_by(L::N) {
        let n = l.mul(l.sub(l.load(&x[i..]), mean), factor);
        E::store(l, n, &mut normal[i..]);
        Y::store(l, l.fma(n, l.load(&scale[i..]), l.load(&shift[i..])), &mut y[i..]);
    }
    rstd
}

/// dx, dscale, dshift += gradients for the gradient `dy`; `rounded`, where there is one, = dx in the type
/// that products take.
#[allow(clippy::too_many_arguments)]
pub fn backward<E: Element>(
    cpu: &Cpu,
    dx: &mut [f32],
    rounded: Option<&mut [E]>,
    dscale: &mut [f32],
    dshift: &mut [f32],
    dy: &[E],
    saved: Saved<E>,
    scale: &[f32],
) {
    let width = scale.len();
    let blocks = dx.len().div_ceil(BLOCK * width);
    assert!(dy.len() == dx.len() && saved.normal.len() == dx.len(), "gradients of a LayerNorm");
    assert!(saved.rstd.len() * width == dx.len(), "statistics of a LayerNorm");
    let mut partial = cpu.left.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let partial = partial.room::<f32>(blocks * 2 * width);
    let mut rounded = rounded.map(|rounded| rounded.chunks_mut(BLOCK * width));
    let pieces: Vec<_> = dx
        .chunks_mut(BLOCK * width)
        .zip(partial.chunks_mut(2 * width))
        .zip(dy.chunks(BLOCK * width).zip(saved.normal.chunks(BLOCK * width)).zip(saved.rstd.chunks(BLOCK)))
        .map(|piece| (piece, rounded.as_mut().and_then(|rounded| rounded.next())))
        .collect();
    cpu.threads.each(pieces, |_, (((dx, partial), ((dy, normal), rstd)), mut rounded)| {
        partial.fill(0.0);
        let (dscale, dshift) = partial.split_at_mut(width);
        dispatch!(cpu.isa, l => {
            for (r, dx) in dx.chunks_mut(width).enumerate() {
                let row = r * width..(r + 1) * width;
                backward_row(l, dx, dscale, dshift, &dy[row.clone()], &normal[row.clone()], rstd[r], scale);
                if let Some(rounded) = rounded.as_deref_mut() {
                    convert(l, &mut rounded[row], dx);
                }
            }
        })
    });
    for partial in partial.chunks(2 * width) {
        for (sum, x) in dscale.iter_mut().zip(partial) {
            *sum += x;
        }
        for (sum, x) in dshift.iter_mut().zip(&partial[width..]) {
            *sum += x;
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn backward_row<L: Lanes, E: Element>(
    l: L,
    dx: &mut [f32],
    dscale: &mut [f32],
    dshift: &mut [f32],
    dy: &[E],
    normal: &[E],
    rstd: f32,
    scale: &[f32],
) {
    let width = dx.len();
    let (mut sum, mut dot) = (l.zero(), l.zero());
    for i in (0..width).step_by(L::N) {
        let (dy, n) = (E::load(l, &dy[i..]), E::load(l, &normal[i..]));
        let g = l.mul(dy, l.load(&scale[i..]));
        sum = l.add(sum, g);
        dot = l.fma(g, n, dot);
        l.store(l.fma(dy, n, l.load(&dscale[i..])), &mut dscale[i..]);
        l.store(l.add(l.load(&dshift[i..]), dy), &mut dshift[i..]);
    }
    let sum = l.splat(-l.sum(sum) / width as f32);
    let dot = l.splat(-l.sum(dot) / width as f32);
    let rstd = l.splat(rstd);
    for i in (0..width).step_by(L::N) {
        let (dy, n) = (E::load(l, &dy[i..]), E::load(l, &normal[i..]));
        let centred = l.fma(dy, l.load(&scale[i..]), l.fma(n, dot, sum));
        l.store(l.fma(centred, rstd, l.load(&dx[i..])), &mut dx[i..]);
    }
}
