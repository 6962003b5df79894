//! Which patches and which tokens an encoder gets to see. The mask belongs to the stage, not to the
//! model; the ratio ends here: everything later sees only how many are kept, and which.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A fraction that is removed: 0 <= ratio < 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "f64", into = "f64")]
#[schemars(extend("minimum" = 0.0, "exclusiveMaximum" = 1.0))]
pub struct Ratio(f64);

impl TryFrom<f64> for Ratio {
    type Error = String;
    fn try_from(ratio: f64) -> Result<Self, String> {
        if (0.0..1.0).contains(&ratio) {
            Ok(Ratio(ratio))
        } else {
            Err(format!("expected 0 <= ratio < 1, got {ratio}"))
        }
    }
}

impl From<Ratio> for f64 {
    fn from(ratio: Ratio) -> f64 {
        ratio.0
    }
}

impl Ratio {
    /// How many of `n` stay: int(n * (1 - ratio)) in double precision, as the official code.
    pub fn kept(self, n: usize) -> usize {
        (n as f64 * (1.0 - self.0)) as usize
    }
}

/// How image patches are dropped.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum ImageMask {
    /// Every patch is encoded.
    #[default]
    Keep,
    /// Uniformly random patches are dropped (FLIP section 3).
    Random(Ratio),
    /// Random, but with a bias towards keeping the centre of the picture.
    Centred {
        /// Fraction of patches dropped.
        ratio: Ratio,
        /// How strong the bias is: added to the noise of a corner patch; 0 is `Random`.
        strength: f64,
    },
    /// The same number of patches is kept in every cell of a grid laid over the picture.
    Grid(Ratio),
    /// One rectangle of neighbouring patches is kept.
    Block(Ratio),
}

/// How caption tokens are dropped.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum TextMask {
    /// Every token is encoded.
    #[default]
    Keep,
    /// Uniformly random positions are dropped, padding included.
    Random(Ratio),
    /// Padding is dropped first, then random tokens (FLIP table 1c).
    Prioritised(Ratio),
    /// The end of the caption is dropped.
    Truncate(Ratio),
    /// One run of neighbouring tokens is kept, at a random place.
    Block(Ratio),
    /// Padding first, then frequent words with a higher probability (CLIPF, arXiv 2412.16148).
    Frequency(Ratio),
}

/// What is kept, for a whole batch: `ids[b * kept + k]` is the position of the k-th kept patch (or token)
/// of row b, 0 <= id < `of`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// [batch, kept], row-major.
    pub ids: Vec<u32>,
    pub batch: usize,
    pub kept: usize,
    pub of: usize,
}

impl Kept {
    /// Everything, in order.
    pub fn all(batch: usize, of: usize) -> Self {
        let ids = (0..batch).flat_map(|_| 0..of as u32).collect();
        Kept { ids, batch, kept: of, of }
    }
}
