//! Numbers of a mask that a recipe says.

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
    /// Number of `n` that stay: int(n * (1 - ratio)) in double precision, as the official code.
    pub fn kept(self, n: usize) -> usize {
        (n as f64 * (1.0 - self.0)) as usize
    }
}

/// Strength of the preference for the centre: finite, 0 or more.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "f64", into = "f64")]
#[schemars(extend("minimum" = 0.0))]
pub struct Strength(f64);

impl TryFrom<f64> for Strength {
    type Error = String;
    fn try_from(strength: f64) -> Result<Self, String> {
        if strength.is_finite() && strength >= 0.0 {
            Ok(Strength(strength))
        } else {
            Err(format!("expected a finite strength of 0 or more, got {strength}"))
        }
    }
}

impl From<Strength> for f64 {
    fn from(strength: Strength) -> f64 {
        strength.0
    }
}
