//! Pixels to patches: only kept ones are ever cut out, normalised and sent to the device.

use dfdx::prelude::Dtype;

use super::config::PixelNorm;
use super::input::PatchValues;
use crate::mask::Kept;
use crate::parameter::rounded;

/// Cuts the kept patches out of `pixels` [batch, size, size, 3]: [batch, kept, patch * patch * 3], each
/// flattened as (row, column, channel). `size` is a multiple of `patch`, and `kept` counts over its grid.
pub fn gather_patches<V: Copy>(pixels: &[V], size: usize, patch: usize, kept: &Kept) -> Vec<V> {
    let grid = size / patch;
    let (row, image) = (size * 3, size * size * 3);
    let mut patches = Vec::with_capacity(kept.ids.len() * patch * patch * 3);
    for (i, &id) in kept.ids.iter().enumerate() {
        let (down, right) = (id as usize / grid, id as usize % grid);
        let corner = (i / kept.kept) * image + down * patch * row + right * patch * 3;
        for line in 0..patch {
            let start = corner + line * row;
            patches.extend_from_slice(&pixels[start..start + patch * 3]);
        }
    }
    patches
}

/// The values the encoder multiplies: bytes as (v / 255 - mean) / std of their channel.
pub(crate) fn normalised<E: Dtype>(values: &PatchValues, norm: &PixelNorm) -> Vec<E> {
    match values {
        PatchValues::Floats(values) => values.iter().map(|&v| rounded(f64::from(v))).collect(),
        PatchValues::Bytes(bytes) => {
            let channel = |c: usize| -> Vec<E> {
                (0..256).map(|v| rounded((f64::from(v) / 255.0 - norm.mean[c]) / norm.std[c])).collect()
            };
            let table = [channel(0), channel(1), channel(2)];
            bytes
                .chunks_exact(3)
                .flat_map(|pixel| {
                    [table[0][pixel[0] as usize], table[1][pixel[1] as usize], table[2][pixel[2] as usize]]
                })
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_are_cut_in_the_order_they_are_kept() {
        // One 4 x 4 image whose value is (row, column, channel) as decimal digits.
        let pixels: Vec<u16> = (0..4)
            .flat_map(|r| (0..4).flat_map(move |c| (0..3).map(move |k| 100 * r + 10 * c + k)))
            .collect();
        let kept = Kept { ids: vec![3, 0], batch: 1, kept: 2, of: 4 };
        let patches = gather_patches(&pixels, 4, 2, &kept);
        assert_eq!(patches[..12], [220, 221, 222, 230, 231, 232, 320, 321, 322, 330, 331, 332]);
        assert_eq!(patches[12..], [0, 1, 2, 10, 11, 12, 100, 101, 102, 110, 111, 112]);
    }

    #[test]
    fn every_row_of_a_batch_is_cut_from_its_own_image() {
        let pixels: Vec<u8> = (0..2 * 4 * 4 * 3).map(|i| i as u8).collect();
        let kept = Kept { ids: vec![0, 1], batch: 2, kept: 1, of: 4 };
        let patches = gather_patches(&pixels, 4, 2, &kept);
        assert_eq!((patches[0], patches[12]), (0, 48 + 6));
    }

    #[test]
    fn bytes_are_normalised_by_channel() {
        let values: Vec<f64> = normalised(&PatchValues::Bytes(vec![0, 255, 128]), &PixelNorm::IMAGENET);
        assert_eq!(values[0], -0.485 / 0.229);
        assert_eq!(values[1], (1.0 - 0.456) / 0.224);
        assert_eq!(values[2], (128.0 / 255.0 - 0.406) / 0.225);
    }
}
