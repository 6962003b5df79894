//! Captions to token ids.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which tokenizer a model was trained with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum TokenizerConfig {
    /// Lower-case BERT WordPiece from a `vocab.txt`, without [CLS] and [SEP] (FLIP).
    WordPiece(PathBuf),
    /// A `tokenizer.json` of the Hugging Face `tokenizers` library.
    Json(PathBuf),
    /// CLIP's byte-pair encoding: a folder with `vocab.json` and `merges.txt`, or the original
    /// `bpe_simple_vocab_16e6.txt.gz`. Start and end tokens are added.
    ClipBpe(PathBuf),
    /// A lower-case WordPiece vocabulary trained on the run's own captions before the first step.
    Train(TrainTokenizerConfig),
}

/// Training a small vocabulary, so that nothing has to be downloaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainTokenizerConfig {
    /// Captions to learn from, taken from the start of the training source.
    #[schemars(range(min = 1))]
    pub captions: usize,
}
