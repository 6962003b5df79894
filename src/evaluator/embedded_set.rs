//! A data set whose images were embedded once, for as many evaluators as like: they get batches without pixels.

use serde::{Deserialize, Serialize};

use crate::data::{Batch, Cursor, DataError};

/// A sample without its image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmbeddedSample {
    /// Name of the sample, for messages.
    pub key: String,
    /// Its class, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<i64>,
    /// Its classes, where it may have several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_set: Option<Vec<u32>>,
    /// Its captions, where they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub captions: Vec<String>,
    /// Identity of the image, where several samples may have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<u64>,
}

/// Embedded images, in the order of their source.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EmbeddedSet {
    /// `[n]`
    pub samples: Vec<EmbeddedSample>,
    /// [n, embed_dim] unit embeddings.
    pub rows: Vec<f32>,
    /// [n, width] features before the projection; empty where nobody asked for them.
    pub features: Vec<f32>,
    /// Samples that were left out, in words; empty where none was.
    pub left_out: String,
}

impl EmbeddedSet {
    /// Takes the images of a batch with their embeddings and features.
    pub fn take(&mut self, batch: &Batch, rows: &[f32], features: &[f32]) {
        let captions = |row: usize| batch.captions.get(row).cloned().unwrap_or_default();
        self.samples.extend(batch.keys.iter().enumerate().map(|(row, key)| EmbeddedSample {
            key: key.clone(),
            label: batch.labels.get(row).copied().flatten(),
            label_set: batch.label_sets.get(row).cloned().flatten(),
            captions: captions(row),
            image: batch.images.get(row).copied().flatten(),
        }));
        self.rows.extend(rows);
        self.features.extend(features);
    }

    /// Its samples in batches of at most `size`. The cursor of a batch says where it begins: at (`number`, first row).
    pub fn batches(&self, number: u64, size: usize) -> impl FnMut() -> Result<Option<Batch>, DataError> + '_ {
        let mut next = 0;
        move || {
            let some = &self.samples[next..(next + size).min(self.samples.len())];
            let batch = Batch {
                pixels: Vec::new(),
                size: 0,
                patches: Vec::new(),
                tokens: Vec::new(),
                lengths: Vec::new(),
                captions: some.iter().map(|sample| sample.captions.clone()).collect(),
                labels: some.iter().map(|sample| sample.label).collect(),
                label_sets: some.iter().map(|sample| sample.label_set.clone()).collect(),
                keys: some.iter().map(|sample| sample.key.clone()).collect(),
                images: some.iter().map(|sample| sample.image).collect(),
                numbers: (next as u64..).take(some.len()).collect(),
                cursors: Vec::new(),
                cursor: Cursor { epoch: number, position: next as u64, ..Cursor::default() },
            };
            next += some.len();
            Ok((!some.is_empty()).then_some(batch))
        }
    }

    /// The rows of a batch, of `width` numbers each, out of all `rows`.
    pub fn rows_of<'r>(rows: &'r [f32], width: usize, batch: &Batch) -> &'r [f32] {
        let first = batch.cursor.position as usize;
        &rows[first * width..(first + batch.keys.len()) * width]
    }
}
