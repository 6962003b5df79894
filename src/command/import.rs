//! `flip import`: a checkpoint of another tool as a run folder.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use ron::ser::PrettyConfig;
use serde_json::json;

use super::{Failure, Outcome};
use crate::checkpoint::{self, Name, TensorView};
use crate::command::number::whole;
use crate::data::text::TokenizerConfig;
use crate::exchange::{self, ExchangeError, Format, ImportOptions, Imported};
use crate::record::{Entry, RunFolder, RunPaths};
use crate::terminal::say;
use crate::train::run::MODEL;

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A folder or a file of weights (.safetensors, .pt, .bin) of open_clip, of transformers' CLIP, or of the official FLIP code.
    source: PathBuf,
    /// Folder of the run to make, with model.ron, tokenizer.json and a checkpoint.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Whose checkpoint it is [default: whatever its files are called like].
    #[arg(long, value_enum)]
    from: Option<Origin>,
    /// Architecture of open_clip, as ViT-B-32 or ViT-L-14-quickgelu, for weights without open_clip_config.json beside
    /// them [default: that of the configuration; of OpenAI's archives, that of the weights].
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Side of the images in pixels, where it shall be another; learned positions are resampled (bicubic,
    /// antialiased). 1 to 8192.
    #[arg(long, value_name = "PIXELS", value_parser = whole(1..=8192))]
    image_size: Option<usize>,
    /// A tokenizer.json, a vocab.txt, CLIP's bpe_simple_vocab_16e6.txt.gz, or a folder with vocab.json and
    /// merges.txt [default: what lies beside the weights].
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// Attention heads of the image encoder, for FLIP checkpoints of sizes that are not the paper's, 1 to 1024.
    #[arg(long, value_name = "N", value_parser = whole(1..=1024))]
    image_heads: Option<usize>,
    /// Attention heads of the text encoder, for FLIP checkpoints of sizes that are not the paper's, 1 to 1024.
    #[arg(long, value_name = "N", value_parser = whole(1..=1024))]
    text_heads: Option<usize>,
}

/// Formats that are read.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Origin {
    OpenClip,
    Transformers,
    Flip,
}

pub fn import(args: &ImportArgs) -> Result<Outcome, Failure> {
    let options = ImportOptions {
        format: args.from.map(|from| match from {
            Origin::OpenClip => Format::OpenClip,
            Origin::Transformers => Format::Transformers,
            Origin::Flip => Format::FlipT5x,
        }),
        model: args.model.clone(),
        image_size: args.image_size,
        tokenizer: args.tokenizer.as_deref().map(tokenizer_config).transpose()?,
        image_heads: args.image_heads,
        text_heads: args.text_heads,
    };
    free(&args.out)?;
    let mut imported = exchange::import(&args.source, &options).map_err(failure)?;
    let tokenizer = imported.open_tokenizer().map_err(failure)?;
    let folder =
        RunFolder::enter(&args.out, Entry::Start).map_err(|error| Failure::Usage(error.to_string()))?;
    if let Some(tokenizer) = &tokenizer {
        tokenizer.save(&folder.tokenizer())?;
        imported.config.text.tokenizer = TokenizerConfig::Json(folder.tokenizer());
    }
    write(&folder, &imported, &args.source)?;
    let counts = imported.config.parameter_counts();
    say!(
        "{} checkpoint: {} parameters (image {}, text {}), images of {} px, {} tokens, {}-wide embeddings",
        imported.format,
        counts.total(),
        counts.image,
        counts.text,
        imported.config.image.size,
        imported.config.text.context,
        imported.config.embed_dim
    );
    for note in &imported.notes {
        say!("note: {note}");
    }
    say!(
        "run folder  {0}\nin a recipe init: Checkpoint({0:?}), without a model of its own",
        folder.root().display().to_string()
    );
    Ok(Outcome::Done)
}

/// Refuses a folder that holds a run or a model, before the checkpoint is read.
fn free(out: &Path) -> Result<(), Failure> {
    let paths = RunPaths::new(out);
    if paths.holds_run() || paths.model().exists() {
        return Err(Failure::Usage(format!(
            "{} already holds a model or a run; give another folder with --out, or remove this one",
            out.display()
        )));
    }
    Ok(())
}

/// A checkpoint before the first step, and the architecture last: a folder with it is whole.
fn write(folder: &RunFolder, imported: &Imported, source: &Path) -> Result<(), Failure> {
    let tensors: Vec<TensorView> = imported.tensors.iter().map(TensorView::from).collect();
    let state = json!({
        "imported": {
            "format": imported.format.to_string(),
            "source": source,
            "stored": imported.stored,
        }
    });
    checkpoint::write(&folder.checkpoints(), Name { stage: 0, step: 0 }, &[(MODEL, tensors)], &state)?;
    let model = ron::ser::to_string_pretty(&imported.config, PrettyConfig::new().compact_arrays(true))?;
    folder.replace(&folder.model(), format!("{model}\n").as_bytes())?;
    Ok(())
}

/// Kind of tokenizer of a path, by its name.
fn tokenizer_config(path: &Path) -> Result<TokenizerConfig, Failure> {
    let owned = path.to_path_buf();
    match path.extension().and_then(|extension| extension.to_str()) {
        _ if path.is_dir() => Ok(TokenizerConfig::ClipBpe(owned)),
        Some("json") => Ok(TokenizerConfig::Json(owned)),
        Some("gz") => Ok(TokenizerConfig::ClipBpe(owned)),
        Some("txt") => Ok(TokenizerConfig::WordPiece(owned)),
        _ => Err(Failure::Usage(format!(
            "--tokenizer {}: expected a tokenizer.json, a vocab.txt, bpe_simple_vocab_16e6.txt.gz, or a folder with \
             vocab.json and merges.txt",
            path.display()
        ))),
    }
}

/// Errors that the caller can put right by other arguments, and the rest.
pub(super) fn failure(error: ExchangeError) -> Failure {
    match error {
        ExchangeError::NoCheckpoint { .. }
        | ExchangeError::Config { .. }
        | ExchangeError::Inexpressible { .. }
        | ExchangeError::OtherConfig { .. }
        | ExchangeError::OtherTokenizer { .. }
        | ExchangeError::ReadOnly(_)
        | ExchangeError::WriteOnly(_)
        | ExchangeError::Occupied { .. } => Failure::Usage(error.to_string()),
        other => Failure::Other(Box::new(other)),
    }
}
