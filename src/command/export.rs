//! `flip export`: the model of a run as a folder that other tools load.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::import::failure;
use super::model_card::ModelCard;
use super::{Failure, Outcome};
use crate::exchange::{self, Format, Outgoing};
use crate::report::EvalRow;
use crate::trained::Weights;

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Folder of the run; its newest checkpoint is exported.
    run: PathBuf,
    /// Which tool shall load it.
    #[arg(long, value_enum)]
    to: To,
    /// Folder to make.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Formats that are written.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum To {
    /// Loads with open_clip.create_model_and_transforms('local-dir:DIR').
    OpenClip,
    /// Loads with transformers' CLIPModel.from_pretrained('DIR').
    Transformers,
}

pub fn export(args: &ExportArgs) -> Result<Outcome, Failure> {
    let format = match args.to {
        To::OpenClip => Format::OpenClip,
        To::Transformers => Format::Transformers,
    };
    let weights = Weights::open(&args.run)?;
    let tokenizer = Some(args.run.join("tokenizer.json")).filter(|path| path.is_file());
    let name = args.out.file_name().map_or("model".into(), |name| name.to_string_lossy());
    let card = ModelCard {
        name: &name,
        format,
        config: &weights.config,
        samples: weights.samples,
        recipe: std::fs::read_to_string(args.run.join("recipe.ron")).ok(),
        results: EvalRow::read(&args.run.join("eval.json"))?,
    };
    let card = card.to_string();
    let outgoing = Outgoing {
        config: &weights.config,
        tensors: &weights.tensors,
        tokenizer: tokenizer.as_deref(),
        card: Some(&card),
    };
    let exported = exchange::export(&outgoing, format, &args.out).map_err(failure)?;
    println!("{} for {format}, from {}", exported.folder.display(), weights.checkpoint.display());
    for note in &exported.notes {
        println!("note: {note}");
    }
    Ok(Outcome::Done)
}
