//! Errors of opening a model, and of embedding with it.

use std::io;
use std::path::PathBuf;

use crate::checkpoint::CheckpointError;
use crate::data::{DataError, Defect};
use crate::exchange::ExchangeError;
use crate::model::ModelError;
use crate::recipe::ModelUnknown;

/// A model that cannot be used, or an input that it cannot embed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant is its documentation")]
pub enum TrainedError {
    #[error(transparent)]
    Architecture(#[from] ModelUnknown),
    #[error("{path}: these weights do not start the model of the recipe:\n{differences}")]
    OtherModel { path: PathBuf, differences: String },
    #[error(
        "the tokenizer of the recipe is not that of {path}: {difference}. Its token embedding is of its own tokenizer \
         only; write model.text.tokenizer: Json({path:?}), or leave out `model`"
    )]
    OtherTokenizer { path: PathBuf, difference: String },
    /// Its stage had no `ema`.
    #[error("{path} has no average of the weights: the stage that wrote it has no `ema`")]
    NoAverage {
        /// The checkpoint.
        path: PathBuf,
    },
    #[error("{path}: no usable checkpoint; is this the folder of a run (with recipe.ron and checkpoints/)?")]
    NoCheckpoint { path: PathBuf },
    #[error("the folder has no tokenizer.json, without which texts cannot be embedded; import it again with --tokenizer")]
    NoTokenizer,
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(
        "{path}: no model here; expected the folder of a run (recipe.ron, checkpoints/), of `flip import` (model.ron), one of \
         its checkpoints, or a checkpoint of another tool: a folder with open_clip_config.json or config.json. Of weights \
         alone make a run folder first: flip import {path} --model ViT-B-32 --out DIR"
    )]
    NoModel { path: PathBuf },
    #[error(transparent)]
    Foreign(#[from] ExchangeError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Tokenizer(#[from] DataError),
    #[error("{path}: {source}")]
    ImageFile { path: PathBuf, source: io::Error },
    #[error("{name}: {}; expected an image (JPEG, PNG, WebP, GIF or BMP)", .defect.detail)]
    Image { name: String, defect: Defect },
    #[error("expected images of {size} x {size} pixels, 3 bytes each, got {bytes} bytes, which are no whole number of them")]
    Pixels { size: usize, bytes: usize },
}
