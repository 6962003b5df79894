//! `flip embed`: pictures or texts to vectors.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use dfdx::tensor::Cpu;
use safetensors::tensor::{serialize_to_file, Dtype, TensorView};

use crate::data::limits::LimitsConfig;
use crate::data::loader::{LabelFrom, Loader, Passes, Plan};
use crate::data::source::{Order, Source};
use crate::data::transform::Transform;
use crate::data::webdataset::WebDataset;
use crate::data::WebDatasetConfig;
use crate::log::Progress;
use crate::trained::Trained;

use super::{Failure, Outcome};

/// Pictures or texts embedded at a time.
const BATCH: usize = 128;

#[derive(Debug, Args)]
pub struct EmbedArgs {
    /// Folder of the run.
    run: PathBuf,
    /// Webdataset shards of pictures, for example 'data/{00000..00041}.tar'.
    #[arg(long, value_name = "PATTERN", required_unless_present = "texts", conflicts_with = "texts")]
    images: Option<String>,
    /// A text file, one text a line.
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
    /// Where to write: a safetensors file with one tensor `embeddings` [n, embed_dim], and beside it the
    /// names of its rows, one JSON string a line, in a file ending in `.keys.jsonl`.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Embeddings and the name of each row.
#[derive(Default)]
struct Embedded {
    values: Vec<f32>,
    keys: Vec<String>,
}

pub fn embed(args: &EmbedArgs) -> Result<Outcome, Failure> {
    let trained = Trained::open(&args.run, &Cpu::default())?;
    let progress = Progress::new();
    let embedded = match (&args.images, &args.texts) {
        (Some(pattern), _) => embed_shards(&trained, pattern, &progress)?,
        (None, Some(path)) => embed_lines(&trained, path)?,
        (None, None) => return Err(Failure::Usage("give --images or --texts".into())),
    };
    write(&args.out, &embedded, trained.model.config().embed_dim)?;
    println!(
        "{} rows of {} in {}",
        embedded.keys.len(),
        trained.model.config().embed_dim,
        args.out.display()
    );
    Ok(Outcome::Done)
}

fn embed_shards(trained: &Trained<Cpu>, pattern: &str, progress: &Progress) -> Result<Embedded, Failure> {
    let source = Arc::new(WebDataset::open(&WebDatasetConfig::new(pattern))?);
    let bar = progress.bar("embed", source.samples().unwrap_or(0), "images");
    let mut loader = Loader::start(Plan {
        source,
        order: Order::Stored,
        passes: Passes::Once,
        start: Default::default(),
        batch: BATCH,
        keep_partial: true,
        transform: Transform::Evaluate { size: trained.model.config().image.size },
        patches: None,
        tokenizer: Arc::new(trained.tokenizer.clone()),
        context: trained.model.config().text.context,
        label: LabelFrom::None,
        filter: None,
        limits: LimitsConfig::default(),
        workers: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
        seed: 0,
    })?;
    let mut embedded = Embedded::default();
    while let Some(batch) = loader.next()? {
        embedded.values.extend(trained.embed_pictures(&batch.pixels)?);
        embedded.keys.extend(batch.keys);
        bar.update(embedded.keys.len() as u64, "");
    }
    bar.finish();
    Ok(embedded)
}

fn embed_lines(trained: &Trained<Cpu>, path: &Path) -> Result<Embedded, Failure> {
    let named = |error| Failure::Usage(format!("{}: {error}", path.display()));
    let lines = BufReader::new(File::open(path).map_err(named)?);
    let texts = lines.lines().collect::<Result<Vec<_>, _>>().map_err(named)?;
    let mut embedded = Embedded::default();
    for texts in texts.chunks(BATCH) {
        embedded.values.extend(trained.embed_texts(texts)?);
    }
    embedded.keys = texts;
    Ok(embedded)
}

fn write(path: &Path, embedded: &Embedded, width: usize) -> Result<(), Failure> {
    let bytes: &[u8] = bytemuck::cast_slice(&embedded.values);
    let view = TensorView::new(Dtype::F32, vec![embedded.keys.len(), width], bytes)?;
    let beside = path.with_extension("partial");
    serialize_to_file([("embeddings", view)], None, &beside)?;
    std::fs::rename(&beside, path)?;
    let mut names = BufWriter::new(File::create(path.with_extension("keys.jsonl"))?);
    for key in &embedded.keys {
        serde_json::to_writer(&mut names, key)?;
        names.write_all(b"\n")?;
    }
    names.flush()?;
    Ok(())
}
