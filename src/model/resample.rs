//! Learned positions at another image size, as open_clip's `resize_pos_embed` does: PyTorch's
//! `interpolate(mode="bicubic", antialias=True, align_corners=False)`.

/// Support of the cubic kernel at scale 1, positions.
const SUPPORT: f64 = 2.0;
/// Keys' cubic with a = -1/2, which PyTorch takes where it antialiases.
const A: f64 = -0.5;

/// A table [prefix + from^2, width] read at a grid of `to`: [prefix + to^2, width]. The rows before the patches', the class
/// token's, stay.
pub(super) fn positions(table: &[f32], prefix: usize, from: usize, to: usize, width: usize) -> Vec<f32> {
    let taps = taps(from, to);
    // Along the columns first: [from, to, width].
    let mut across = vec![0.0f32; from * to * width];
    for row in 0..from {
        for (column, (start, weights)) in taps.iter().enumerate() {
            let out = &mut across[(row * to + column) * width..][..width];
            for (tap, weight) in weights.iter().enumerate() {
                add(out, &table[(prefix + row * from + start + tap) * width..][..width], *weight);
            }
        }
    }
    let mut resampled = table[..prefix * width].to_vec();
    resampled.resize((prefix + to * to) * width, 0.0);
    for (row, (start, weights)) in taps.iter().enumerate() {
        let out = &mut resampled[(prefix + row * to) * width..][..to * width];
        for (tap, weight) in weights.iter().enumerate() {
            add(out, &across[(start + tap) * to * width..][..to * width], *weight);
        }
    }
    resampled
}

fn add(out: &mut [f32], values: &[f32], weight: f32) {
    for (out, value) in out.iter_mut().zip(values) {
        *out += weight * value;
    }
}

/// For every place of the new side: the first place of the old one that counts, and the weights from there.
fn taps(from: usize, to: usize) -> Vec<(usize, Vec<f32>)> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let reach = SUPPORT * stretch;
    (0..to)
        .map(|place| {
            let centre = scale * (place as f64 + 0.5);
            let start = (centre - reach + 0.5).max(0.0) as usize;
            let end = ((centre + reach + 0.5) as usize).min(from);
            let weights: Vec<f64> =
                (start..end).map(|at| cubic((at as f64 - centre + 0.5) / stretch)).collect();
            let total: f64 = weights.iter().sum();
            (start, weights.iter().map(|weight| (weight / total) as f32).collect())
        })
        .collect()
}

fn cubic(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_grid_is_left_alone() {
        let table: Vec<f32> = (0..20).map(|i| (i * i) as f32).collect();
        assert_eq!(positions(&table, 1, 3, 3, 2), table);
    }

    /// torch 2.15: `F.interpolate(arange(9.).square().reshape(1, 1, 3, 3), size, mode="bicubic",
    /// antialias=True, align_corners=False)`.
    #[test]
    fn agrees_with_pytorch() {
        let table: Vec<f32> = [7.0].into_iter().chain((0..9).map(|i| (i * i) as f32)).collect();
        let check = |to: usize, expected: &[f32]| {
            let got = positions(&table, 1, 3, to, 1);
            assert_eq!(got[0], 7.0);
            assert_eq!(got.len(), 1 + expected.len());
            for (got, expected) in got[1..].iter().zip(expected) {
                assert!((got - expected).abs() < 2e-5, "{to}: {got} is not {expected}");
            }
        };
        check(2, TORCH_2);
        check(5, TORCH_5);
    }

    // As PyTorch printed them.
    const TORCH_2: &[f32] = &[2.871166, 8.197848, 30.284525, 47.044525];
    #[expect(clippy::excessive_precision)]
    const TORCH_5: &[f32] = &[
        -0.720541, -0.60138, -0.132075, 1.546185, 2.607334, 1.733737, 2.725885, 4.783582, 8.050234, 9.984369,
        8.471699, 11.052238, 16.0, 22.156717, 25.679245, 26.09026, 30.259193, 38.097019, 47.143799,
        52.254719, 37.022427, 42.064346, 51.490562, 62.125736, 68.109642,
    ];
}
