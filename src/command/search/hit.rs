//! An image that was found, as it is told.

use serde::Serialize;

use crate::data::decode::{image_file, ImageLimits};
use crate::data::Image;
use crate::report::fitted;
use crate::search::{Collection, Found, Index};

/// An image that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hit {
    /// Its row in the index.
    pub id: usize,
    /// Cosine with the query.
    pub score: f32,
    /// Its file: the image itself or its shard.
    pub file: String,
    /// Its key in the shard.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// Its first caption.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub caption: String,
}

impl Hit {
    pub fn of(found: Found, index: &Index, collection: &Collection) -> Hit {
        let entry = index.entry(found.row);
        Hit {
            id: found.row,
            score: found.score,
            file: collection.name(entry.place),
            key: entry.key.clone(),
            caption: entry.caption.clone(),
        }
    }

    /// File and key.
    pub fn name(&self) -> String {
        match self.key.is_empty() {
            true => self.file.clone(),
            false => format!("{}: {}", self.file, self.key),
        }
    }
}

/// A small JPEG of an image; none where it is none.
pub fn small(image: Image, longest: u32) -> Option<Vec<u8>> {
    let (size, pixels) = match image {
        Image::Encoded(bytes) => {
            let decoded = image_file::decode(&bytes, ImageLimits::default()).ok()?;
            ((decoded.width, decoded.height), decoded.pixels)
        }
        Image::Rgb { width, height, pixels } => ((width, height), pixels),
    };
    fitted(size, pixels, longest).ok()
}
