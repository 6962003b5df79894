//! Batches of pairs.

use crate::data::source::Cursor;

/// Pairs ready for the encoders.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Stored bytes: [batch, size, size, 3], or [batch, kept, patch * patch * 3] where the options cuts patches.
    pub pixels: Vec<u8>,
    /// Side of the images.
    pub size: usize,
    /// [batch, kept]: which patches of each image `pixels` holds, counted row by row. Empty where the options
    /// takes whole images.
    pub patches: Vec<u32>,
    /// [batch, context] token ids of one caption each, padded.
    pub tokens: Vec<u32>,
    /// Real tokens of each caption, at most `context`.
    pub lengths: Vec<u32>,
    /// Every caption of each image, as text.
    pub captions: Vec<Vec<String>>,
    /// Class of each image, where the options asked for one and the sample has it.
    pub labels: Vec<Option<i64>>,
    /// Classes of each image that may show several, where the options asked for labels of the source and it has them.
    pub label_sets: Vec<Option<Vec<u32>>>,
    /// Name of each sample, for messages.
    pub keys: Vec<String>,
    /// Identity of each image, where the source may have several samples of one.
    pub images: Vec<Option<u64>>,
    /// Number of each sample in the order that the loader walks, counted from its start, broken ones and those of other
    /// shares included; where it has lanes, in the lane.
    pub numbers: Vec<u64>,
    /// The cursor just past the last sample; where the loader has lanes, of the first.
    pub cursor: Cursor,
    /// The cursor just past the last sample of each lane; one where the loader walks the whole order.
    pub cursors: Vec<Cursor>,
}
