//! The contrastive loss on a GPU. A product makes a tile of cosines, [rows of one side, columns of the other]; these
//! kernels take it in place, so that no N x N matrix is held: first the log-sum-exp of every row, over all tiles of its
//! columns; then, tile by tile once more, the gradients of the cosines, for a product with the other side.

use crate::kernel::cuda::{blocks, Gpu, GpuError, Launch, View, ViewMut};

const BLOCK: u32 = 256;

/// A tile of rows: running statistics. They begin as minus infinity and zero.
#[derive(Debug)]
pub struct Running<'a> {
    /// `[rows]`: the largest logit so far.
    pub largest: ViewMut<'a, f32>,
    /// `[rows]`: the sum of exponentials relative to it.
    pub sums: ViewMut<'a, f64>,
}

/// Adds a tile [rows, columns] of cosines to the statistics of its rows.
pub fn add<G: Gpu>(gpu: &G, running: &mut Running, cosines: View<f32>, scale: f32) -> Result<(), GpuError> {
    let rows = running.largest.len();
    let columns = cosines.len() / rows.max(1);
    assert!(running.sums.len() == rows && cosines.len() == rows * columns, "a tile of {rows} rows");
    let launch = Launch::new("contrastive", "contrastive_log_sum_exp", rows, BLOCK)
        .output(&mut running.largest)
        .output(&mut running.sums)
        .input(cosines)
        .size(columns)
        .number(scale);
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(launch) }
}

/// lse `[rows]` = the log-sum-exp of the rows of all tiles that were added.
pub fn finish<G: Gpu>(gpu: &G, mut lse: ViewMut<f32>, running: &Running) -> Result<(), GpuError> {
    let n = lse.len();
    assert!(running.largest.len() == n && running.sums.len() == n, "statistics of {n} rows");
    let launch = Launch::new("contrastive", "contrastive_finish", blocks(n, BLOCK), BLOCK)
        .output(&mut lse)
        .input(running.largest.view())
        .input(running.sums.view())
        .size(n);
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(launch) }
}

/// Place of a tile in the matrix of all pairs.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub row: usize,
    pub column: usize,
    /// Pairs in all.
    pub pairs: usize,
}

/// A tile [rows, columns] of cosines becomes their gradients, `scale / 2N * (p + q - 2 [i = j])`; dscale `[rows]` +=
/// what each row contributes to the gradient of the scale.
pub fn gradients<G: Gpu>(
    gpu: &G,
    mut cosines: ViewMut<f32>,
    mut dscale: ViewMut<f64>,
    (row_lse, column_lse): (View<f32>, View<f32>),
    place: Place,
    scale: f32,
) -> Result<(), GpuError> {
    let (rows, columns) = (row_lse.len(), column_lse.len());
    assert!(cosines.len() == rows * columns && dscale.len() == rows, "a tile of {rows} x {columns}");
    let mut launch = Launch::new("contrastive", "contrastive_gradients", rows, BLOCK)
        .output(&mut cosines)
        .output(&mut dscale)
        .input(row_lse)
        .input(column_lse)
        .size(columns);
    launch.arguments.push((place.row as i64 - place.column as i64) as u64);
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(launch.number(scale).number(0.5 / place.pairs as f32)) }
}

/// cosines `[rows]` = the products of row i of both sides, [rows, width].
pub fn diagonal<G: Gpu>(
    gpu: &G,
    mut cosines: ViewMut<f64>,
    a: View<f32>,
    b: View<f32>,
) -> Result<(), GpuError> {
    let rows = cosines.len();
    let width = a.len() / rows.max(1);
    assert!(a.len() == rows * width && b.len() == a.len(), "rows of one width");
    let launch = Launch::new("contrastive", "contrastive_diagonal", blocks(rows, BLOCK / 32), BLOCK)
        .output(&mut cosines)
        .input(a)
        .input(b);
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(launch.size(rows).size(width)) }
}

/// to += factor * from, the factor being one number in the GPU's memory: gradients of the loss, times the gradient
/// that it has itself.
pub fn add_scaled<G: Gpu>(
    gpu: &G,
    mut to: ViewMut<f32>,
    from: View<f32>,
    factor: View<f32>,
) -> Result<(), GpuError> {
    let n = to.len();
    assert!(from.len() == n && factor.len() == 1, "as many numbers, and one factor");
    let launch = Launch::new("contrastive", "contrastive_add_scaled", blocks(n, BLOCK), BLOCK)
        .output(&mut to)
        .input(from)
        .input(factor);
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(launch.size(n)) }
}
