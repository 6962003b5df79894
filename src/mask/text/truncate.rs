use rand::RngCore;

use super::TextStrategy;
use crate::mask::Ratio;

/// The end of the caption goes: equal scores keep what comes first.
#[derive(Debug, Clone, Copy)]
pub struct Truncate {
    /// Fraction of positions dropped.
    pub ratio: Ratio,
}

impl TextStrategy for Truncate {
    fn kept(&self, context: usize) -> usize {
        self.ratio.kept(context)
    }

    fn score(&self, _scores: &mut [f32], _caption: &[u32], _rng: &mut dyn RngCore) {}
}
