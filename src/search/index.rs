//! The embeddings of a collection of images.

use serde::{Deserialize, Serialize};

use super::collection::{IndexedFile, Place};

/// An image of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, u32, String, String)", into = "(u32, u32, String, String)")]
pub struct Entry {
    /// Its place in the files of the index.
    pub place: Place,
    /// Its key in its shard; empty for an image file.
    pub key: String,
    /// Its first caption; empty where there is none.
    pub caption: String,
}

impl From<(u32, u32, String, String)> for Entry {
    fn from((file, number, key, caption): (u32, u32, String, String)) -> Self {
        Entry { place: Place { file, number }, key, caption }
    }
}

impl From<Entry> for (u32, u32, String, String) {
    fn from(entry: Entry) -> Self {
        (entry.place.file, entry.place.number, entry.key, entry.caption)
    }
}

/// All of an index but the embeddings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Contents {
    /// [`Trained::hash`](crate::trained::Trained::hash) of the model.
    pub model: String,
    /// Numbers of an embedding.
    pub width: usize,
    pub files: Vec<IndexedFile>,
    /// In the order of the files.
    pub entries: Vec<Entry>,
    /// (file, number) of images that were read and are none; they are not tried again while their file is the same.
    pub broken: Vec<(u32, u32)>,
}

/// The embeddings of a collection of images, of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Index {
    pub(super) contents: Contents,
    /// [images, width] of unit length.
    pub(super) rows: Vec<f32>,
}

impl Index {
    /// Images.
    pub fn len(&self) -> usize {
        self.contents.entries.len()
    }

    /// True if it has no image.
    pub fn is_empty(&self) -> bool {
        self.contents.entries.is_empty()
    }

    /// Images that were left out: they are broken.
    pub fn left_out(&self) -> usize {
        self.contents.broken.len()
    }

    /// Numbers of an embedding.
    pub fn width(&self) -> usize {
        self.contents.width
    }

    /// An image.
    pub fn entry(&self, row: usize) -> &Entry {
        &self.contents.entries[row]
    }

    /// Place of an image in its collection.
    pub fn place(&self, row: usize) -> Place {
        self.entry(row).place
    }

    /// Embedding of an image, `[width]`.
    pub fn embedding(&self, row: usize) -> &[f32] {
        &self.rows[row * self.width()..][..self.width()]
    }

    /// Embeddings [images, width].
    pub fn embeddings(&self) -> &[f32] {
        &self.rows
    }
}
