//! Similarities of many embeddings with many others, a tile at a time, on the kernels of the CPU.
//!
//! A product of two rows is the same number in whatever tile it is computed and whatever is beside it, so
//! equal embeddings have equal similarities and ties are real ties.

use crate::kernel::gemm::epilogue::{Grid, Write};
use crate::kernel::gemm::{product, Left, Right};
use crate::kernel::isa::Isa;
use crate::kernel::Cpu;

use super::EvaluatorError;

/// Rows of a tile: enough to make packing the columns cheap.
pub(super) const TILE_ROWS: usize = 512;
/// Columns of a tile: 2 MiB of similarities with the rows.
pub(super) const TILE_COLUMNS: usize = 1024;

/// The processor, for products of embeddings.
#[derive(Debug)]
pub(super) struct Products {
    pub cpu: Cpu,
    tile: Vec<f32>,
    /// Numbers of the last product.
    len: usize,
}

impl Products {
    /// On all cores.
    pub fn new() -> Result<Self, EvaluatorError> {
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let isa = Isa::detect().map_err(EvaluatorError::Kernel)?;
        let cpu = Cpu::new(isa, threads).map_err(EvaluatorError::Kernel)?;
        Ok(Products { cpu, tile: Vec::new(), len: 0 })
    }

    /// [rows, columns] dot products of `left` [rows, dim] with `right` [columns, dim].
    pub fn of(&mut self, left: &[f32], right: &[f32], dim: usize) -> &[f32] {
        self.plus(left, right, dim, None)
    }

    /// The same, plus a number for every column.
    pub fn plus(&mut self, left: &[f32], right: &[f32], dim: usize, bias: Option<&[f32]>) -> &[f32] {
        let (rows, columns) = (left.len() / dim, right.len() / dim);
        // What was there is overwritten.
        self.tile.resize((rows * columns).max(self.tile.len()), 0.0);
        let to = Write { to: Grid::new(&mut self.tile[..rows * columns], columns), bias };
        let right = Right::Columns { data: right, stride: dim };
        product(&self.cpu, &to, Left::whole(left, dim), right, (rows, dim, columns));
        self.len = rows * columns;
        self.last()
    }

    /// The products that were computed last.
    pub fn last(&self) -> &[f32] {
        &self.tile[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::super::similarity::dot;
    use super::*;

    #[test]
    fn a_product_does_not_depend_on_its_tile() {
        let dim = 37;
        let row = |i: usize| (0..dim).map(move |d| ((i * 31 + d * 17) % 23) as f32 / 7.0 - 1.3);
        let left: Vec<f32> = (0..29).flat_map(row).collect();
        let right: Vec<f32> = (5..82).flat_map(row).collect();
        let mut products = Products::new().unwrap();
        let whole = products.of(&left, &right, dim).to_vec();
        for (i, image) in left.chunks(dim).enumerate() {
            for first in [0, 1, 16, 50] {
                let some = products.of(image, &right[first * dim..], dim).to_vec();
                assert_eq!(some, whole[i * 77 + first..(i + 1) * 77], "row {i} from column {first}");
            }
            for (j, text) in right.chunks(dim).enumerate() {
                assert!((whole[i * 77 + j] - dot(image, text)).abs() < 1e-4);
            }
        }
    }
}
