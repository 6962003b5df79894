//! What every source of pairs has in common.

use super::Cursor;

/// The order in which a source hands out its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// A permutation per epoch, drawn from this seed: shards shuffled, then samples within each window.
    Shuffled { seed: u64 },
    /// As stored.
    Stored,
}

/// One sample, named but not yet loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    pub epoch: u64,
    /// Position in the order of the epoch; random choices for the sample derive from it.
    pub index: u64,
    /// The source's own name for it: (shard, sample in the shard), or (0, sample).
    pub item: (u64, u64),
    /// The cursor just past it.
    pub after: Cursor,
}

/// A picture as a source has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Picture {
    /// A file: JPEG, PNG, WebP, GIF or BMP, told by content.
    Encoded(Vec<u8>),
    /// [height, width, 3] bytes.
    Rgb { width: u32, height: u32, pixels: Vec<u8> },
}

/// A sample as a source has it, before cropping and tokenizing.
#[derive(Debug, Clone, PartialEq)]
pub struct Raw {
    pub key: String,
    pub picture: Picture,
    /// At least one.
    pub captions: Vec<String>,
    /// The sample's json, where it has a valid one.
    pub meta: Option<serde_json::Value>,
    /// The class, where the source itself knows it (folders, scenes, `.cls` members).
    pub label: Option<i64>,
}

/// Why a sample was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// What is counted: `image_decode`, `caption_missing`, `shard_truncated`, ...
    pub reason: &'static str,
    /// Shard and key, for messages.
    pub sample: String,
    pub detail: String,
}

/// A source of image-text pairs. The order is decided sequentially and cheaply by `ticket`; the work of
/// `load` runs on many threads.
pub trait Source: Send + Sync {
    /// Samples of one pass, broken ones included; `None` where endless.
    fn samples(&self) -> Option<u64>;

    /// The sample at `cursor`; `None` at the end of the cursor's epoch.
    fn ticket(&self, cursor: Cursor, order: Order) -> Result<Option<Ticket>, super::DataError>;

    /// Reads one sample.
    fn load(&self, ticket: &Ticket) -> Result<Raw, Skip>;

    /// Names of the classes that `Raw::label` counts, where the source knows them.
    fn classes(&self) -> Vec<String> {
        Vec::new()
    }
}
