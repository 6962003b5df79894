//! The fields of the built-in source in a recipe.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Small images of coloured, textured, sized, placed shapes with varied English captions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScenesConfig {
    /// Side of an image, pixels; from the level `Clutter` on at least 32.
    #[schemars(range(min = 8, max = 4_096))]
    pub size: usize,
    /// The combinations of attributes that are shown.
    pub split: ScenesSplit,
    /// Richness of images and captions.
    #[serde(default)]
    pub level: ScenesLevel,
    /// Number of images, for an evaluation. Default: endless.
    #[serde(default)]
    pub samples: Option<std::num::NonZeroU64>,
}

/// Training never shows a held-out combination of attributes; evaluation shows nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ScenesSplit {
    /// Everything but what is held out.
    Train,
    /// What training never shows.
    HeldOut,
}

/// Richness of images and captions. In training every level from `Clutter` on shows, in equal
/// shares, what those from `Clutter` to itself show, and nothing of what any of them holds out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
pub enum ScenesLevel {
    /// One or two large shapes and nothing else. Held out: 48 of 144 combinations of shape and colour.
    #[default]
    Plain,
    /// One shape anywhere, among smaller ones that the caption does not tell. Held out: the same 48.
    Clutter,
    /// Two shapes and where one is from the other, perhaps with a smaller third. Held out: pairs that
    /// training never shows together; 96 classes, which differ by side and by whose colour is whose.
    Relations,
    /// Two to four shapes that are alike, alone or beside another one, among smaller ones. Held out: such
    /// pairs; 128 classes, which differ by number, side, and whose colour is whose.
    Counts,
}
