//! Resizing of an image of any shape to a square before an evaluation: the options of open_clip's `PreprocessCfg`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// From an image of any shape to the square that an encoder takes, where nothing is drawn at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Resizing {
    /// The side that is brought to the size, and what becomes of the other.
    pub mode: ResizeMode,
    /// Weights of neighbouring pixels.
    pub interpolation: Interpolation,
    /// Red, green and blue (0 to 255) of what an image does not fill, with `Longest`.
    pub fill: u8,
}

/// The side of an image that is brought to the size of the square.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ResizeMode {
    /// The short side; the centre of the long one is cut out.
    #[default]
    Shortest,
    /// The long side; the short one is filled up on both ends.
    Longest,
    /// Both sides, whatever the shape of the image.
    Squash,
}

/// Weights of neighbouring pixels when an image is resized; their reach grows when it shrinks, as Pillow's does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Interpolation {
    /// Catmull and Rom's cubic.
    #[default]
    Bicubic,
    /// A triangle.
    Bilinear,
}

impl Resizing {
    /// True for torchvision's `Resize` and `CenterCrop`, bicubic, which OpenAI and open_clip's plain models take.
    pub fn is_default(&self) -> bool {
        *self == Resizing::default()
    }
}
