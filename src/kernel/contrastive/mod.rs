//! The symmetric contrastive loss of N pairs of unit vectors (Radford et al., arXiv 2103.00020, figure 3), in
//! tiles: no N x N matrix is ever held.
//!
//! `logits = scale * images texts^T`; the loss is half of
//! `mean_i(lse_j logits_ij - logits_ii) + mean_j(lse_i logits_ij - logits_jj)`.
//!
//! First pass: the log-sum-exp of every row and every column, streaming over tiles with a running maximum.
//! Second pass: tiles once more, turned into gradients `g_ij = scale / 2N * (p_ij + q_ij - 2 [i = j])` of the
//! cosines, p and q the softmax over the row and the column, and multiplied with the other side. Rows and
//! columns are treated alike, so each side is one stream over the other: 12 N^2 width operations.
//! All in f32, sums over rows in f64.

pub mod cuda;
pub mod host;
pub mod reference;
pub mod rows;
pub mod tiles;

use super::gemm::epilogue::{Add, Grid, Write};
use super::gemm::small::{self, right_words};
use super::gemm::Left;
use super::isa::dispatch;
use super::lanes::Lanes;
use super::math::exp;
use super::Cpu;

/// The loss and its gradient with respect to the scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loss {
    pub loss: f64,
    /// Of the factor itself, not of its logarithm.
    pub dscale: f64,
}

/// Vectors of one side and the log-sum-exp of their logits with all of the other.
#[derive(Clone, Copy)]
struct Side<'a> {
    z: &'a [f32],
    lse: &'a [f32],
}

/// Texts of a tile.
pub const COLUMNS: usize = 256;

/// Images of a tile: few enough that there is work for every thread, independent of their number.
fn rows_of(n: usize) -> usize {
    (n / 16).next_multiple_of(6).clamp(24, 384)
}

/// The loss alone. `images` and `texts` are [n, width] unit vectors, pair i being row i of both.
pub fn loss(cpu: &Cpu, images: &[f32], texts: &[f32], scale: f32, width: usize) -> f64 {
    assert_eq!(images.len(), texts.len(), "as many texts as images");
    let n = images.len() / width;
    let mut lse = vec![0.0; n];
    let mut loss = 0.0;
    for (a, b) in [(images, texts), (texts, images)] {
        log_sum_exp(cpu, &mut lse, a, b, scale, width);
        loss += lse.iter().map(|&x| x as f64).sum::<f64>();
    }
    (loss - 2.0 * scale as f64 * diagonal(images, texts)) / (2 * n) as f64
}

/// The loss; `dimages` and `dtexts`, [n, width], = its gradients.
pub fn loss_and_gradients(
    cpu: &Cpu,
    dimages: &mut [f32],
    dtexts: &mut [f32],
    images: &[f32],
    texts: &[f32],
    scale: f32,
    width: usize,
) -> Loss {
    assert_eq!(images.len(), texts.len(), "as many texts as images");
    assert!(dimages.len() == images.len() && dtexts.len() == texts.len(), "a gradient for every value");
    let n = images.len() / width;
    let (mut by_image, mut by_text) = (vec![0.0; n], vec![0.0; n]);
    log_sum_exp(cpu, &mut by_image, images, texts, scale, width);
    log_sum_exp(cpu, &mut by_text, texts, images, scale, width);
    let sum: f64 = by_image.iter().zip(&by_text).map(|(&a, &b)| a as f64 + b as f64).sum();
    let images = Side { z: images, lse: &by_image };
    let texts = Side { z: texts, lse: &by_text };
    let dscale = gradient(cpu, dimages, images, texts, scale, width);
    gradient(cpu, dtexts, texts, images, scale, width);
    Loss { loss: (sum - 2.0 * scale as f64 * diagonal(images.z, texts.z)) / (2 * n) as f64, dscale }
}

/// Sum of the cosines of the pairs.
fn diagonal(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| a as f64 * b as f64).sum()
}

/// lse[i] = log sum over j of exp(scale * a_i . b_j).
fn log_sum_exp(cpu: &Cpu, lse: &mut [f32], a: &[f32], b: &[f32], scale: f32, width: usize) {
    let n = lse.len();
    let rows = rows_of(n);
    let words = rows * COLUMNS + right_words(width, COLUMNS, 1);
    cpu.threads.each(lse.chunks_mut(rows).zip(a.chunks(rows * width)), |slot, (lse, a)| {
        let mut scratch = cpu.own(slot);
        let (cosines, packed) = scratch.room::<u32>(words).split_at_mut(rows * COLUMNS);
        let cosines: &mut [f32] = bytemuck::cast_slice_mut(cosines);
        let mut largest = vec![f32::NEG_INFINITY; lse.len()];
        let mut sums = vec![0.0f64; lse.len()];
        dispatch!(cpu.isa, l => {
            for b in b.chunks(COLUMNS * width) {
                let columns = b.len() / width;
                tile(l, cosines, packed, a, b, width);
                for ((row, largest), sum) in cosines.chunks(COLUMNS).zip(&mut largest).zip(&mut sums) {
                    add_exponentials(l, largest, sum, &row[..columns], scale);
                }
            }
        });
        for ((lse, largest), sum) in lse.iter_mut().zip(&largest).zip(&sums) {
            *lse = (*largest as f64 + sum.ln()) as f32;
        }
    });
}

/// cosines [rows of a, COLUMNS] = a b^T.
#[inline(always)]
fn tile<L: Lanes>(l: L, cosines: &mut [f32], packed: &mut [u32], a: &[f32], b: &[f32], width: usize) {
    let (rows, columns) = (a.len() / width, b.len() / width);
    let left = small::left(l, &mut [], Left::Rows { data: a, stride: width }, (rows, width));
    let right = small::right_from_columns(l, packed, b, width, (width, columns));
    let write = Write { to: Grid::new(cosines, COLUMNS), bias: None };
    // SAFETY: a is of [rows, width]; the tile belongs to this thread.
    unsafe { small::multiply::<L, f32>(l, &write, left, right, rows) };
}

/// Adds a row of a tile to a running (largest, sum of exp(x - largest)).
#[inline(always)]
fn add_exponentials<L: Lanes>(l: L, largest: &mut f32, sum: &mut f64, cosines: &[f32], scale: f32) {
    let mut most = l.splat(f32::NEG_INFINITY);
    for j in (0..cosines.len()).step_by(L::N) {
        most = l.max(most, l.load_or(&cosines[j..], f32::NEG_INFINITY));
    }
    let most = l.largest(most) * scale;
    if most > *largest {
        *sum *= ((*largest - most) as f64).exp();
        *largest = most;
    }
    let (factor, minus) = (l.splat(scale), l.splat(-*largest));
    let mut added = l.zero();
    for j in (0..cosines.len()).step_by(L::N) {
        let x = l.load_or(&cosines[j..], f32::NEG_INFINITY);
        added = l.add(added, exp(l, l.fma(x, factor, minus)));
    }
    *sum += l.sum(added) as f64;
}

/// da [n, width] = gradient of the loss with respect to the vectors of side `a`; returns that with respect
/// to the scale.
fn gradient(cpu: &Cpu, da: &mut [f32], a: Side, b: Side, scale: f32, width: usize) -> f64 {
    let n = a.lse.len();
    let rows = rows_of(n);
    let right = right_words(width, COLUMNS, 1).max(right_words(COLUMNS, width, 1));
    let mut dscale = vec![0.0f64; n.div_ceil(rows)];
    let pieces =
        da.chunks_mut(rows * width).zip(a.z.chunks(rows * width).zip(a.lse.chunks(rows))).zip(&mut dscale);
    cpu.threads.each(pieces.enumerate(), |slot, (piece, ((da, (z, lse)), dscale))| {
        let mut scratch = cpu.own(slot);
        let (cosines, packed) = scratch.room::<u32>(rows * COLUMNS + right).split_at_mut(rows * COLUMNS);
        let cosines: &mut [f32] = bytemuck::cast_slice_mut(cosines);
        da.fill(0.0);
        dispatch!(cpu.isa, l => {
            for (t, (b, lses)) in b.z.chunks(COLUMNS * width).zip(b.lse.chunks(COLUMNS)).enumerate() {
                tile(l, cosines, packed, z, b, width);
                for (i, (row, &lse)) in cosines.chunks_mut(COLUMNS).zip(lse).enumerate() {
                    let partner = (piece * rows + i).checked_sub(t * COLUMNS).filter(|&j| j < lses.len());
                    *dscale += cosine_gradients(l, &mut row[..lses.len()], lse, lses, partner, scale, n);
                }
                let left = Left::Rows { data: &*cosines, stride: COLUMNS };
                let left = small::left(l, &mut [], left, (lse.len(), lses.len()));
                let right = small::right_from_rows(l, packed, b, width, (lses.len(), width));
                let add = Add { to: Grid::new(da, width), bias: None };
                // SAFETY: the left side is of [rows, texts of the tile]; da belongs to this thread.
                unsafe { small::multiply::<_, f32>(l, &add, left, right, lse.len()) };
            }
        })
    });
    dscale.iter().sum::<f64>()
}

/// Turns a row of cosines into their gradients; returns the gradient with respect to the scale.
#[inline(always)]
fn cosine_gradients<L: Lanes>(
    l: L,
    cosines: &mut [f32],
    lse: f32,
    lses: &[f32],
    partner: Option<usize>,
    scale: f32,
    n: usize,
) -> f64 {
    let weight = 0.5 / n as f32;
    let own = partner.map(|j| cosines[j]);
    let (factor, minus) = (l.splat(scale), l.splat(-lse));
    let mut dot = l.zero();
    for j in (0..cosines.len()).step_by(L::N) {
        let x = l.load(&cosines[j..]);
        let p = exp(l, l.fma(x, factor, minus));
        let q = exp(l, l.sub(l.mul(x, factor), l.load(&lses[j..])));
        let g = l.mul(l.add(p, q), l.splat(weight));
        dot = l.fma(g, x, dot);
        l.store(l.mul(g, factor), &mut cosines[j..]);
    }
    let mut dscale = l.sum(dot) as f64;
    if let (Some(j), Some(cosine)) = (partner, own) {
        cosines[j] -= 2.0 * weight * scale;
        dscale -= 2.0 * weight as f64 * cosine as f64;
    }
    dscale
}
