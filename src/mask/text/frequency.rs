use rand::{Rng, RngCore};

use super::{TextStrategy, DROPPED_FIRST};
use crate::mask::Ratio;

/// Share of all tokens above which a token counts as frequent; t of CLIPF, which uses 1e-6.
const THRESHOLD: f64 = 1e-6;

/// Number of times that each token occurs in captions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenFrequencies {
    /// By token id.
    counts: Vec<u64>,
    total: u64,
}

impl TokenFrequencies {
    /// Counts the tokens of captions, each without its padding.
    pub fn count<C: AsRef<[u32]>>(captions: impl IntoIterator<Item = C>) -> Self {
        let mut frequencies = TokenFrequencies::default();
        for caption in captions {
            for &token in caption.as_ref() {
                let token = token as usize;
                if token >= frequencies.counts.len() {
                    frequencies.counts.resize(token + 1, 0);
                }
                frequencies.counts[token] += 1;
                frequencies.total += 1;
            }
        }
        frequencies
    }

    /// Share of all tokens that are this one; 0 for one that was never seen.
    pub fn share(&self, token: u32) -> f64 {
        match self.counts.get(token as usize) {
            None | Some(0) => 0.0,
            Some(&count) => count as f64 / self.total as f64,
        }
    }

    /// Probability of removing a token: 1 - sqrt(t / f) for a share f above t, else 0 (CLIPF, arXiv
    /// 2412.16148; the subsampling of frequent words of word2vec, arXiv 1310.4546 equation 5).
    pub fn removal(&self, token: u32) -> f64 {
        let share = self.share(token);
        if share > THRESHOLD {
            1.0 - (THRESHOLD / share).sqrt()
        } else {
            0.0
        }
    }
}

/// Padding goes first, then tokens by uniform noise plus their readiness to be removed, so that frequent
/// words go with a higher probability (CLIPF, arXiv 2412.16148, whose code ranks words by the same sum).
#[derive(Debug, Clone, Copy)]
pub struct Frequency<'a> {
    /// Fraction of positions dropped.
    pub ratio: Ratio,
    /// Of the training captions.
    pub frequencies: &'a TokenFrequencies,
}

impl TextStrategy for Frequency<'_> {
    fn kept(&self, context: usize) -> usize {
        self.ratio.kept(context)
    }

    fn score(&self, scores: &mut [f32], caption: &[u32], rng: &mut dyn RngCore) {
        let (real, padding) = scores.split_at_mut(caption.len());
        for (score, &token) in real.iter_mut().zip(caption) {
            *score = rng.gen::<f32>() + self.frequencies.removal(token) as f32;
        }
        padding.fill(DROPPED_FIRST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_removal_follow_the_counts() {
        let captions = [vec![1, 1, 1], vec![3]];
        let frequencies = TokenFrequencies::count(&captions);
        assert_eq!(frequencies.share(1), 0.75);
        assert_eq!(frequencies.share(2), 0.0);
        assert_eq!(frequencies.share(99), 0.0);
        assert_eq!(frequencies.removal(99), 0.0);
        assert!((frequencies.removal(3) - (1.0 - 0.002)).abs() < 1e-12);
        assert!(frequencies.removal(1) > frequencies.removal(3));
    }
}
