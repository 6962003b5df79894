//! The masking routine of the official code (`random_mask` of its `models_flip.py`): the positions with
//! the smallest noise are kept.

/// The outcome of [`random_mask`] for a batch of rows of n positions, K of which are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct RandomMask {
    /// [batch, K] kept positions, by increasing noise: the first K of `ids_shuffle`.
    pub ids_keep: Vec<u32>,
    /// [batch, n] all positions, by increasing noise; equal noise keeps the lower position first.
    pub ids_shuffle: Vec<u32>,
    /// [batch, n] the inverse of `ids_shuffle`: where each position went.
    pub ids_restore: Vec<u32>,
    /// [batch, n] by position: 0 = kept, 1 = removed.
    pub mask: Vec<f32>,
}

/// Masks rows of `n` positions by their noise, as the official code.
///
/// `noise` is [batch, n]. `bias`, where given, is added to it: `[n]`, the same for every row, or
/// [batch, n]. `kept` is K, for a ratio [`Ratio::kept`](super::Ratio::kept) of n.
///
/// # Panics
/// If a length does not fit, or `kept` exceeds `n`.
pub fn random_mask(noise: &[f32], bias: Option<&[f32]>, batch: usize, n: usize, kept: usize) -> RandomMask {
    assert_eq!(noise.len(), batch * n, "noise must be [batch, n]");
    assert!(kept <= n, "cannot keep {kept} of {n} positions");
    let mut outcome = RandomMask {
        ids_keep: Vec::with_capacity(batch * kept),
        ids_shuffle: Vec::with_capacity(batch * n),
        ids_restore: vec![0; batch * n],
        mask: vec![1.0; batch * n],
    };
    let mut order = Ascending::default();
    let mut scores = vec![0.0; n];
    for row in 0..batch {
        let positions = row * n..(row + 1) * n;
        scores.copy_from_slice(&noise[positions.clone()]);
        if let Some(bias) = bias {
            let bias = if bias.len() == n { bias } else { &bias[positions.clone()] };
            scores.iter_mut().zip(bias).for_each(|(score, bias)| *score += bias);
        }
        let restore = &mut outcome.ids_restore[positions.clone()];
        let mask = &mut outcome.mask[positions];
        for (rank, id) in order.positions(&scores).enumerate() {
            outcome.ids_shuffle.push(id);
            restore[id as usize] = rank as u32;
            if rank < kept {
                outcome.ids_keep.push(id);
                mask[id as usize] = 0.0;
            }
        }
    }
    outcome
}

/// Stable ascending order of scores; lends its memory to one row after the other.
#[derive(Default)]
pub(super) struct Ascending {
    keys: Vec<u64>,
}

impl Ascending {
    /// Positions by increasing score, the lower position first among equals; NaN comes last.
    pub(super) fn positions(&mut self, scores: &[f32]) -> impl Iterator<Item = u32> + '_ {
        self.keys.clear();
        self.keys.extend(
            scores
                .iter()
                .enumerate()
                .map(|(position, &score)| u64::from(sortable(score)) << 32 | position as u64),
        );
        self.keys.sort_unstable();
        self.keys.iter().map(|&key| key as u32)
    }
}

/// A number that orders as the score does, so that (score, position) sorts as one integer.
fn sortable(score: f32) -> u32 {
    if score.is_nan() {
        return u32::MAX;
    }
    // The sum makes the two zeros one.
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 0 {
        bits | 1 << 31
    } else {
        !bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scores_keep_their_order_and_nan_comes_last() {
        let scores = [f32::NAN, 0.5, -0.0, 0.0, f32::NEG_INFINITY, -1.5, f32::INFINITY, 0.5];
        let order: Vec<u32> = Ascending::default().positions(&scores).collect();
        assert_eq!(order, [4, 5, 2, 3, 1, 7, 6, 0]);
    }

    #[test]
    fn a_bias_may_be_shared_or_one_a_row() {
        let noise = [0.1, 0.2, 0.3, 0.3, 0.2, 0.1];
        let shared = random_mask(&noise, Some(&[1.0, 0.0, 0.0]), 2, 3, 1);
        assert_eq!(shared.ids_keep, [1, 2]);
        let each = random_mask(&noise, Some(&[1.0, 0.0, 0.0, 0.0, 0.0, 1.0]), 2, 3, 2);
        assert_eq!(each.ids_keep, [1, 2, 1, 0]);
        assert_eq!(each.mask, [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
        assert_eq!(each.ids_restore, [2, 0, 1, 1, 0, 2]);
    }
}
