//! Positions of image patches. The model knows them over its own grid; a stage that trains at another
//! image size has another grid over the same image, and the centre of its patch i lies at
//! (i + 1/2) G/g - 1/2 on the model's grid of G.

use dfdx::prelude::Dtype;

use crate::mask::Kept;
use crate::parameter::rounded;

/// Coordinate of patch `i` of a side of `grid` patches, in patches of a side of `model_grid`.
fn coordinate(i: usize, grid: usize, model_grid: usize) -> f64 {
    (i as f64 + 0.5) * model_grid as f64 / grid as f64 - 0.5
}

/// Fixed two-dimensional sin-cos positions of the kept patches, [batch * kept, width]: sines then cosines
/// of the column, then of the row, at frequencies 10000^(-i/Q), i < Q = width / 4.
pub(crate) fn sin_cos<E: Dtype>(kept: &Kept, grid: usize, model_grid: usize, width: usize) -> Vec<E> {
    let quarter = width / 4;
    let along_a_side: Vec<Vec<E>> = (0..grid)
        .map(|i| {
            let at = coordinate(i, grid, model_grid);
            let angle = |k: usize| at * 10000f64.powf(-(k as f64) / quarter as f64);
            let sines = (0..quarter).map(|k| angle(k).sin());
            sines.chain((0..quarter).map(|k| angle(k).cos())).map(rounded).collect()
        })
        .collect();
    let mut rows = Vec::with_capacity(kept.ids.len() * width);
    for &id in &kept.ids {
        rows.extend_from_slice(&along_a_side[id as usize % grid]);
        rows.extend_from_slice(&along_a_side[id as usize / grid]);
    }
    rows
}

/// The fixed positions of a whole grid as a learned table would hold them, [1 + grid^2, width]: zeros for the
/// class token, then a row a patch.
pub fn sin_cos_table(grid: usize, width: usize) -> Vec<f32> {
    let mut table = vec![0.0; width];
    table.extend(sin_cos::<f32>(&Kept::all(1, grid * grid), grid, grid, width));
    table
}

/// The matrix that reads learned positions of a grid of `model_grid` at a grid of `grid` by bilinear
/// interpolation, [prefix + grid^2, prefix + model_grid^2]; the rows before the patches', the class token's, pass through.
pub(crate) fn resampling<E: Dtype>(grid: usize, model_grid: usize, prefix: usize) -> Vec<E> {
    let neighbours: Vec<[(usize, f64); 2]> = (0..grid)
        .map(|i| {
            let at = coordinate(i, grid, model_grid).clamp(0.0, (model_grid - 1) as f64);
            let low = at.floor() as usize;
            let share = at - low as f64;
            [(low, 1.0 - share), ((low + 1).min(model_grid - 1), share)]
        })
        .collect();
    let columns = prefix + model_grid * model_grid;
    let mut matrix = vec![0.0; (prefix + grid * grid) * columns];
    (0..prefix).for_each(|row| matrix[row * (columns + 1)] = 1.0);
    for (r, rows) in neighbours.iter().enumerate() {
        for (c, cols) in neighbours.iter().enumerate() {
            for &(y, v) in rows {
                for &(x, h) in cols {
                    matrix[(prefix + r * grid + c) * columns + prefix + y * model_grid + x] += v * h;
                }
            }
        }
    }
    matrix.into_iter().map(rounded).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_column_comes_first() {
        // Patch (row 0, column 1) of a 2 x 2 grid, width 4: one frequency, which is 1.
        let kept = Kept { ids: vec![1], batch: 1, kept: 1, of: 4 };
        assert_eq!(sin_cos::<f64>(&kept, 2, 2, 4), [1f64.sin(), 1f64.cos(), 0.0, 1.0]);
    }

    #[test]
    fn half_the_patches_see_positions_between_those_of_the_model() {
        let kept = Kept { ids: vec![0], batch: 1, kept: 1, of: 1 };
        assert_eq!(sin_cos::<f64>(&kept, 1, 2, 4), [0.5f64.sin(), 0.5f64.cos(), 0.5f64.sin(), 0.5f64.cos()]);
        assert_eq!(resampling::<f64>(1, 2, 1), [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.25, 0.25, 0.25, 0.25]);
    }

    #[test]
    fn the_same_grid_is_left_alone() {
        let matrix = resampling::<f64>(3, 3, 1);
        let identity = (0..100).map(|i| if i % 11 == 0 { 1.0 } else { 0.0 });
        assert!(matrix.into_iter().eq(identity));
    }

    #[test]
    fn a_finer_grid_stays_inside_the_model_s() {
        let matrix = resampling::<f64>(4, 2, 1);
        assert!(matrix.chunks(5).all(|row| (row.iter().sum::<f64>() - 1.0).abs() < 1e-12));
        assert_eq!(matrix[5..10], [0.0, 1.0, 0.0, 0.0, 0.0]);
        // Without a class token its row and column are not there.
        let patches: Vec<f64> = matrix[5..].chunks(5).flat_map(|row| row[1..].to_vec()).collect();
        assert_eq!(resampling::<f64>(4, 2, 0), patches);
    }
}
