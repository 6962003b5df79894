//! Samples as sources have them.

use crate::data::Defect;

/// An image as a source has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// A file: JPEG, PNG, WebP, GIF or BMP, detected by content.
    Encoded(Vec<u8>),
    /// [height, width, 3] bytes.
    Rgb {
        /// Width, pixels.
        width: u32,
        /// Height, pixels.
        height: u32,
        /// Rows from the top, three bytes a pixel.
        pixels: Vec<u8>,
    },
}

/// A sample as a source has it, before cropping and tokenizing.
#[derive(Debug, Clone, PartialEq)]
pub struct Raw {
    /// Key of the sample, unique within its shard or source.
    pub key: String,
    /// The image.
    pub image: Image,
    /// At least one, where they are needed.
    pub captions: Vec<String>,
    /// The sample's json, if it has one; a defect if it cannot be read, for whoever asks for it.
    pub meta: Result<Option<serde_json::Value>, Defect>,
    /// The class, where the source itself knows it (folders, scenes, `.cls` members).
    pub label: Option<i64>,
    /// The classes, of an image that may show several, where the source knows them (`.npy` members of CLIP_benchmark).
    pub label_set: Option<Vec<u32>>,
}
