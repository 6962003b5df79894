//! The loss of some rows of a batch against all others, which come by in tiles: what [`super::loss_and_gradients`] computes,
//! in pieces. The same tiles in the same order give the same bits, however many rows are here.

use super::{add_exponentials, cosine_gradients, rows_of, tile, Side, COLUMNS};
use crate::kernel::gemm::epilogue::{Add, Grid};
use crate::kernel::gemm::small::{self, right_words};
use crate::kernel::gemm::Left;
use crate::kernel::isa::dispatch;
use crate::kernel::Cpu;

/// The log-sum-exp of the logits of some rows, in the making.
#[derive(Debug)]
pub struct LogSumExp<'a> {
    /// [rows, width].
    rows: &'a [f32],
    width: usize,
    scale: f32,
    largest: Vec<f32>,
    sums: Vec<f64>,
}

impl<'a> LogSumExp<'a> {
    pub fn new(rows: &'a [f32], width: usize, scale: f32) -> Self {
        let n = rows.len() / width;
        LogSumExp { rows, width, scale, largest: vec![f32::NEG_INFINITY; n], sums: vec![0.0; n] }
    }

    /// Adds a tile of the other side, [at most COLUMNS, width].
    pub fn add(&mut self, cpu: &Cpu, b: &[f32]) {
        let (width, scale, columns) = (self.width, self.scale, b.len() / self.width);
        assert!(columns <= COLUMNS, "a tile of {columns}");
        let rows = rows_of(self.largest.len());
        let words = rows * COLUMNS + right_words(width, COLUMNS, 1);
        let pieces = self.largest.chunks_mut(rows).zip(self.sums.chunks_mut(rows));
        cpu.threads.each(pieces.zip(self.rows.chunks(rows * width)), |slot, ((largest, sums), a)| {
            let mut scratch = cpu.own(slot);
            let (cosines, packed) = scratch.room::<u32>(words).split_at_mut(rows * COLUMNS);
            let cosines: &mut [f32] = bytemuck::cast_slice_mut(cosines);
            dispatch!(cpu.isa, l => {
                tile(l, cosines, packed, a, b, width);
                for ((row, largest), sum) in cosines.chunks(COLUMNS).zip(largest).zip(sums) {
                    add_exponentials(l, largest, sum, &row[..columns], scale);
                }
            });
        });
    }

    /// A number for each row, after the last tile.
    pub fn finish(self) -> Vec<f32> {
        self.largest
            .iter()
            .zip(&self.sums)
            .map(|(largest, sum)| (*largest as f64 + sum.ln()) as f32)
            .collect()
    }
}

/// The gradients of some rows, in the making.
#[derive(Debug)]
pub struct Gradients<'a> {
    rows: &'a [f32],
    lse: &'a [f32],
    /// Place of the first row in the batch.
    first: usize,
    width: usize,
    scale: f32,
    /// Pairs in all.
    pairs: usize,
    /// [rows, width]: of the vectors.
    pub of_rows: Vec<f32>,
    /// The contribution of each row to the gradient of the scale.
    pub of_scale: Vec<f64>,
}

impl<'a> Gradients<'a> {
    /// Of `rows` [n, width] with the log-sum-exp of each, which stand at `first` of `pairs` rows.
    pub fn new(
        rows: &'a [f32],
        lse: &'a [f32],
        (first, pairs): (usize, usize),
        width: usize,
        scale: f32,
    ) -> Self {
        assert_eq!(rows.len(), lse.len() * width, "a number a row");
        let (of_rows, of_scale) = (vec![0.0; rows.len()], vec![0.0; lse.len()]);
        Gradients { rows, lse, first, width, scale, pairs, of_rows, of_scale }
    }

    /// Adds a tile of the other side, [at most COLUMNS, width], with the log-sum-exp of each; it begins at row `from` of
    /// the batch.
    pub fn add(&mut self, cpu: &Cpu, b: &[f32], lses: &[f32], from: usize) {
        let (width, scale, pairs, first) = (self.width, self.scale, self.pairs, self.first);
        assert!(lses.len() <= COLUMNS && b.len() == lses.len() * width, "a tile of {}", lses.len());
        let rows = rows_of(self.lse.len());
        let right = right_words(width, COLUMNS, 1).max(right_words(COLUMNS, width, 1));
        let own = self.rows.chunks(rows * width).zip(self.lse.chunks(rows));
        let pieces = self.of_rows.chunks_mut(rows * width).zip(self.of_scale.chunks_mut(rows)).zip(own);
        cpu.threads.each(pieces.enumerate(), |slot, (piece, ((da, dscale), (z, lse)))| {
            let side = Side { z, lse };
            let mut scratch = cpu.own(slot);
            let (cosines, packed) = scratch.room::<u32>(rows * COLUMNS + right).split_at_mut(rows * COLUMNS);
            let cosines: &mut [f32] = bytemuck::cast_slice_mut(cosines);
            dispatch!(cpu.isa, l => {
                tile(l, cosines, packed, side.z, b, width);
                let lines = cosines.chunks_mut(COLUMNS).zip(side.lse).zip(dscale);
                for (i, ((row, &lse), dscale)) in lines.enumerate() {
                    let at = first + piece * rows + i;
                    let partner = at.checked_sub(from).filter(|&j| j < lses.len());
                    *dscale += cosine_gradients(l, &mut row[..lses.len()], lse, lses, partner, scale, pairs);
                }
                let left = Left::Rows { data: &*cosines, stride: COLUMNS };
                let left = small::left(l, &mut [], left, (side.lse.len(), lses.len()));
                let right = small::right_from_rows(l, packed, b, width, (lses.len(), width));
                let add = Add { to: Grid::new(da, width), bias: None };
                // SAFETY: the left side is of [rows, vectors of the tile]; da belongs to this thread.
                unsafe { small::multiply::<_, f32>(l, &add, left, right, side.lse.len()) };
            })
        });
    }
}

/// Sum of the cosines of pairs, [n, width] each.
pub fn diagonal(a: &[f32], b: &[f32]) -> f64 {
    super::diagonal(a, b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::contrastive::loss_and_gradients;
    use crate::kernel::isa::Isa;

    #[test]
    fn pieces_of_a_batch_give_the_bits_of_the_whole() {
        let (width, scale) = (40, 14.3f32);
        let unit = |seed: usize, n: usize| -> Vec<f32> {
            let mut z: Vec<f32> =
                (0..n * width).map(|i| (((i * 37 + seed * 101) % 997) as f32 * 0.77).sin()).collect();
            for row in z.chunks_mut(width) {
                let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
                row.iter_mut().for_each(|x| *x /= norm);
            }
            z
        };
        for threads in [1, 2] {
            let cpu = Cpu::new(Isa::detect().unwrap(), threads).unwrap();
            for n in [6, 128, 300, 700] {
                let (images, texts) = (unit(1, n), unit(2, n));
                let (mut dimages, mut dtexts) = (vec![0.0; n * width], vec![0.0; n * width]);
                let whole =
                    loss_and_gradients(&cpu, &mut dimages, &mut dtexts, &images, &texts, scale, width);
                for bounds in [vec![0, n], vec![0, n / 3, n], vec![0, 1, n / 2, n - 1, n]] {
                    let each = |a: &[f32], b: &[f32]| -> Vec<f32> {
                        let mut all = Vec::new();
                        for own in bounds.windows(2) {
                            let mut lse = LogSumExp::new(&a[own[0] * width..own[1] * width], width, scale);
                            b.chunks(COLUMNS * width).for_each(|b| lse.add(&cpu, b));
                            all.extend(lse.finish());
                        }
                        all
                    };
                    let (by_image, by_text) = (each(&images, &texts), each(&texts, &images));
                    let back = |a: &[f32], lse: &[f32], b: &[f32], lses: &[f32]| {
                        let (mut da, mut dscale) = (Vec::new(), 0.0);
                        for own in bounds.windows(2) {
                            let rows = &a[own[0] * width..own[1] * width];
                            let lse = &lse[own[0]..own[1]];
                            let mut gradients = Gradients::new(rows, lse, (own[0], n), width, scale);
                            for (t, (b, lses)) in
                                b.chunks(COLUMNS * width).zip(lses.chunks(COLUMNS)).enumerate()
                            {
                                gradients.add(&cpu, b, lses, t * COLUMNS);
                            }
                            da.extend(gradients.of_rows);
                            dscale += gradients.of_scale.iter().sum::<f64>();
                        }
                        (da, dscale)
                    };
                    let (da, dscale) = back(&images, &by_image, &texts, &by_text);
                    assert!(da == dimages, "{n} pairs in {bounds:?}: gradients of images");
                    assert!((dscale - whole.dscale).abs() <= 1e-12 * (1.0 + whole.dscale.abs()), "{dscale}");
                    assert!(back(&texts, &by_text, &images, &by_image).0 == dtexts, "{n} pairs: captions");
                    let sum: f64 = by_image.iter().zip(&by_text).map(|(&a, &b)| a as f64 + b as f64).sum();
                    let loss = (sum - 2.0 * scale as f64 * diagonal(&images, &texts)) / (2 * n) as f64;
                    assert_eq!(loss, whole.loss);
                }
            }
        }
    }
}
