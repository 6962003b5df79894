//! Numbers as JSON has them: one that is not finite is null there, and NaN here.

use serde::{Deserialize, Deserializer};

/// NaN: the value of a number that a row does not have.
pub(super) fn nan<T: From<f32>>() -> T {
    f32::NAN.into()
}

/// A number, or NaN for null.
pub(super) fn or_nan<'de, T: Deserialize<'de> + From<f32>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_else(nan))
}
