//! Format of a checkpoint, and the tokenizer beside it.

use std::path::{Path, PathBuf};

use super::error::ExchangeError;
use super::format::Format;
use super::{file_start, flip_t5x, open_clip, transformers};
use crate::data::text::TokenizerConfig;

/// Place of a checkpoint.
pub(super) struct Place {
    pub format: Format,
    /// The folder with the configuration.
    pub folder: PathBuf,
    /// The file of weights, where the caller named one.
    pub weights: Option<PathBuf>,
}

impl Place {
    /// An error about tensors, with the other configuration of the folder, where there is one.
    pub fn other_config(&self, error: ExchangeError) -> ExchangeError {
        let (other, format, flag) = match self.format {
            Format::OpenClip => (transformers::CONFIG, Format::Transformers, "transformers"),
            Format::Transformers => (open_clip::CONFIG, Format::OpenClip, "open-clip"),
            _ => return error,
        };
        match &error {
            ExchangeError::Tensors { .. } if self.folder.join(other).is_file() => {
                ExchangeError::OtherConfig { source: Box::new(error), other, format, flag }
            }
            _ => error,
        }
    }
}

/// Looks at the files of a folder, or of the folder of a file. `named`: the architecture is open_clip's, by its name.
pub(super) fn place(source: &Path, format: Option<Format>, named: bool) -> Result<Place, ExchangeError> {
    let nothing = |reason: &str| {
        let reason = reason.to_string();
        Err(ExchangeError::NoCheckpoint { path: source.to_path_buf(), reason })
    };
    let weights = source.is_file().then(|| source.to_path_buf());
    let folder = match (&weights, source.parent()) {
        (None, _) => source.to_path_buf(),
        (Some(_), Some(parent)) => parent.to_path_buf(),
        (Some(_), None) => PathBuf::new(),
    };
    if !folder.is_dir() && !folder.as_os_str().is_empty() {
        return nothing("there is no such file or folder");
    }
    let format = match format {
        Some(format) => format,
        None if named => Format::OpenClip,
        None if folder.join(open_clip::CONFIG).is_file() => Format::OpenClip,
        None if folder.join(transformers::CONFIG).is_file() => Format::Transformers,
        None if flip_t5x::is_checkpoint(&folder) => Format::FlipT5x,
        None if weights.as_deref().is_some_and(file_start::is_pickled) => Format::OpenClip,
        None => {
            return nothing(
                "expected a folder with open_clip_config.json (open_clip), with config.json (transformers), or with \
                 checkpoint_<step>/checkpoint (FLIP); of other weights of open_clip, name the architecture: \
                 --model ViT-B-32",
            )
        }
    };
    // The index of a t5x checkpoint is a file too, but its folder is the checkpoint.
    let weights = weights.filter(|_| format != Format::FlipT5x);
    Ok(Place { format, folder, weights })
}

/// The tokenizer in a folder, by the names that other tools give its files.
pub(super) fn tokenizer(folder: &Path) -> Option<TokenizerConfig> {
    let file = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
    if let Some(path) = file("tokenizer.json") {
        return Some(TokenizerConfig::Json(path));
    }
    if file("vocab.json").is_some() && file("merges.txt").is_some() {
        return Some(TokenizerConfig::ClipBpe(folder.to_path_buf()));
    }
    let original = file("bpe_simple_vocab_16e6.txt.gz").map(TokenizerConfig::ClipBpe);
    original.or_else(|| file("vocab.txt").map(TokenizerConfig::WordPiece))
}
