//! Samples as sources have them.

use crate::data::Defect;

/// An image as a source has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// A file: JPEG, PNG, WebP, GIF or BMP, told by content.
    Encoded(Vec<u8>),
    /// [height, width, 3] bytes.
    Rgb { width: u32, height: u32, pixels: Vec<u8> },
}

/// A sample as a source has it, before cropping and tokenizing.
#[derive(Debug, Clone, PartialEq)]
pub struct Raw {
    pub key: String,
    pub image: Image,
    /// At least one, where they are needed.
    pub captions: Vec<String>,
    /// The sample's json, where it has one; or why it cannot be read, for who asks for it.
    pub meta: Result<Option<serde_json::Value>, Defect>,
    /// The class, where the source itself knows it (folders, scenes, `.cls` members).
    pub label: Option<i64>,
}
