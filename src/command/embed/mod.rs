//! `flip embed`: images or texts to vectors. Memory holds a batch, and a killed command goes on where it was.

mod texts;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use crate::data::load::{Loader, LoaderOptions};
use crate::data::source::{images, Source};
use crate::data::DataError;
use crate::embeddings::{EmbeddingsError, Format, Opened, Output, Subject};
use crate::log::{Logging, Progress};
use crate::terminal::say;
use crate::trained::Trained;

use super::{Failure, Outcome};
use texts::{Fields, Texts};

/// Images or texts embedded at a time.
const BATCH: usize = 128;

#[derive(Debug, Args)]
#[command(after_help = "A command that was killed goes on where it was when it is given again.")]
pub struct EmbedArgs {
    /// Folder of the run, one of its checkpoints, or a checkpoint that `flip import` takes.
    run: PathBuf,
    /// Images: files, folders that are searched through, or shards, for example 'data/{00000..00041}.tar'.
    #[arg(
        long,
        value_name = "WHAT",
        num_args = 1..,
        required_unless_present = "texts",
        conflicts_with = "texts"
    )]
    images: Vec<String>,
    /// A text file, one text a line; in a .jsonl file, one JSON object or string a line.
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
    /// Field of a JSON object that holds the text.
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_field: String,
    /// Field of a JSON object that names its row [default: key; the text, where there is none].
    #[arg(long, value_name = "NAME", default_value = "key", hide_default_value = true)]
    key_field: String,
    /// File to write. NAME.safetensors (one tensor `embeddings` [n, embed_dim]) and NAME.npy have the names of their
    /// rows beside them, a JSON string a line, in NAME.keys.jsonl; NAME.parquet has the columns `key` and `embedding`.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The average of the weights that the stage kept (`ema`), instead of the weights.
    #[arg(long)]
    ema: bool,
    /// Delete what is there and begin again.
    #[arg(long)]
    restart: bool,
}

pub fn embed(args: &EmbedArgs) -> Result<Outcome, Failure> {
    let format = Format::of(&args.out).map_err(refused)?;
    let progress = Progress::new();
    let _logging = Logging::start(None, &progress)?;
    let trained = match args.ema {
        true => Trained::open_average(&args.run)?,
        false => Trained::open(&args.run)?,
    };
    let fields = Fields { text: args.text_field.clone(), key: args.key_field.clone() };
    let width = trained.embed_dim();
    let subject = Subject {
        checkpoint: trained.checkpoint.display().to_string(),
        sha256: trained.hash()?.into(),
        input: match &args.texts {
            Some(path) => json!({ "texts": path, "fields": fields }),
            None => json!({ "images": args.images }),
        },
        width,
    };
    // Named before anything is created.
    let source = match args.images.is_empty() {
        true => None,
        false => Some(images::open(&args.images).map_err(unusable)?.bare),
    };
    if let Some(path) = &args.texts {
        Texts::open(path, fields.clone(), Default::default())?;
    }
    let mut output = match Output::open(&args.out, format, &subject, args.restart).map_err(refused)? {
        Opened::Growing(output) => output,
        Opened::Complete => {
            say!("{} was complete but for its name", args.out.display());
            return Ok(Outcome::Done);
        }
    };
    if output.rows() > 0 {
        say!("going on behind row {}", output.rows());
    }
    let skipped = match (source, &args.texts) {
        (Some(source), _) => embed_images(&trained, source, &mut output, &progress)?,
        (None, Some(path)) => embed_texts(&trained, path, fields, &mut output, &progress)?,
        (None, None) => return Err(Failure::Usage("give --images or --texts".into())),
    };
    let rows = output.finish()?;
    say!("{rows} rows of {width} in {}", args.out.display());
    if let Some(skipped) = skipped {
        say!("left out: {skipped}");
    }
    Ok(Outcome::Done)
}

/// A mistake in the arguments: they name something that cannot be used.
pub(super) fn unusable(error: DataError) -> Failure {
    match error {
        DataError::Invalid(message) => Failure::Usage(message),
        other => other.into(),
    }
}

fn refused(error: EmbeddingsError) -> Failure {
    match error {
        EmbeddingsError::Refused(message) => Failure::Usage(message),
        other => other.into(),
    }
}

/// Embeds what follows the output's last row; returns what was left out.
fn embed_images(
    trained: &Trained,
    source: Arc<dyn Source>,
    output: &mut Output,
    progress: &Progress,
) -> Result<Option<String>, Failure> {
    let bar = progress.bar("embed", source.samples().unwrap_or(0), "images");
    bar.start_at(output.rows());
    let start = output.next()?.unwrap_or_default();
    let mut loader = Loader::start(LoaderOptions { start, ..trained.loader_options(source)? })?;
    while let Some(batch) = loader.next()? {
        let rows = trained.embed_images(&batch.pixels)?;
        output.append(&rows, &batch.keys, &batch.cursor)?;
        bar.update(output.rows(), "");
    }
    bar.finish();
    let skipped = loader.skipped();
    Ok((skipped.total() > 0).then(|| skipped.to_string()))
}

/// The same for the lines of a file.
fn embed_texts(
    trained: &Trained,
    path: &Path,
    fields: Fields,
    output: &mut Output,
    progress: &Progress,
) -> Result<Option<String>, Failure> {
    let mut texts = Texts::open(path, fields, output.next()?.unwrap_or_default())?;
    // How many lines there are is known at the end; how many bytes, now.
    let bar = progress.bar("embed", std::fs::metadata(path)?.len(), "bytes");
    bar.start_at(texts.place().byte);
    loop {
        let pairs = texts.next(BATCH)?;
        if pairs.is_empty() {
            break;
        }
        let (lines, keys): (Vec<String>, Vec<String>) = pairs.into_iter().unzip();
        output.append(&trained.embed_texts(&lines)?, &keys, &texts.place())?;
        bar.update(texts.place().byte, format!("{} texts", output.rows()));
    }
    bar.finish();
    let skipped = texts.place().skipped;
    Ok((skipped > 0).then(|| format!("{skipped} lines")))
}
