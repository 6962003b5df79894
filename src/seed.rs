//! Counter-based randomness: every draw is a function of (seed, purpose, two counters), so there is no
//! generator state to save and no dependence on thread timing or on where a run was resumed.

use rand_chacha::rand_core::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Purpose of a draw. Draws for different purposes are independent. The numbers are part of the
/// meaning of a seed: append, never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Initial parameters; counters: parameter index, 0.
    Init = 1,
    /// Order of shards and samples; counters: epoch, window.
    Order = 2,
    /// Crop and flip; counters: epoch, number of the sample (a ticket's index).
    Crop = 3,
    /// Image mask; counters: epoch, number of the sample.
    ImageMask = 4,
    /// Text mask; counters: step, row in the batch.
    TextMask = 5,
    /// A generated scene and its captions; counters: sample, split.
    Scene = 6,
    /// Choice among several captions; counters: epoch, number of the sample.
    Caption = 7,
    /// Random inputs of benchmarks.
    Bench = 8,
    /// Labelled images that an evaluator learns from or holds back; counters: draw, class or 0.
    Labelled = 9,
    /// Images shown of a set; counters: image, 0.
    Sheet = 10,
}

/// A generator for one draw. The stream is ChaCha8's, the same on every platform.
pub fn rng(seed: u64, purpose: Purpose, a: u64, b: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    for (slot, word) in key.chunks_exact_mut(8).zip([seed, purpose as u64, a, b]) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngCore;

    #[test]
    fn draws_depend_on_every_word_of_the_key() {
        let base = rng(1, Purpose::Crop, 2, 3).next_u64();
        assert_eq!(base, rng(1, Purpose::Crop, 2, 3).next_u64());
        for other in [
            rng(0, Purpose::Crop, 2, 3),
            rng(1, Purpose::Init, 2, 3),
            rng(1, Purpose::Crop, 0, 3),
            rng(1, Purpose::Crop, 2, 0),
        ] {
            let mut other = other;
            assert_ne!(base, other.next_u64());
        }
    }
}
