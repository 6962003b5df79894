//! Format of a checkpoint, and the tokenizer beside it.

use std::path::{Path, PathBuf};

use super::error::ExchangeError;
use super::format::Format;
use super::{architectures, file_start, flip_t5x, open_clip, transformers};
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
    if !source.exists() || (!folder.is_dir() && !folder.as_os_str().is_empty()) {
        return nothing(&absent(source));
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

/// Advice where nothing lies at a path that names something elsewhere.
fn absent(source: &Path) -> String {
    let said = source.to_string_lossy();
    let download = |repository: &str| {
        format!(
            "nothing is downloaded here. Fetch the folder first (pip install huggingface_hub; hf download {repository} \
             --local-dir DIR), then: flip import DIR --out RUN"
        )
    };
    if let Some(repository) =
        said.strip_prefix("hf-hub:").or_else(|| said.strip_prefix("https://huggingface.co/"))
    {
        return download(repository.trim_end_matches('/'));
    }
    if architectures::of(&said).is_some() {
        return format!(
            "the name of an architecture of open_clip, not a checkpoint. open_clip.list_pretrained() lists the weights that \
             there are for it, most of them repositories on Hugging Face (hf download laion/CLIP-ViT-B-32-laion2B-s34B-b79K \
             --local-dir DIR; flip import DIR --out RUN); a file of weights alone comes in with: flip import FILE --model {said} \
             --out RUN"
        );
    }
    match said.split('/').collect::<Vec<_>>()[..] {
        [owner, name] if !owner.is_empty() && !owner.starts_with('.') && !name.is_empty() => {
            format!(
                "there is no such file or folder. If it is a repository on Hugging Face: {}",
                download(&said)
            )
        }
        _ => "there is no such file or folder".into(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_what_lies_elsewhere_say_how_to_get_it() {
        for (name, advice) in [
            ("hf-hub:laion/CLIP-ViT-B-32", "hf download laion/CLIP-ViT-B-32 --local-dir DIR"),
            ("https://huggingface.co/openai/clip/", "hf download openai/clip --local-dir DIR"),
            ("openai/clip-vit-base-patch32", "hf download openai/clip-vit-base-patch32 --local-dir"),
            ("ViT-B-32", "--model ViT-B-32"),
            ("no/such/folder", "there is no such file or folder"),
        ] {
            let Err(error) = place(Path::new(name), None, false) else { panic!("{name} is there") };
            assert!(error.to_string().contains(advice), "{error}");
        }
    }
}
