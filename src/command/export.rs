//! `flip export`: the model of a run as a folder that other tools load.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::import::failure;
use super::model_card::ModelCard;
use super::{Failure, Outcome};
use crate::checkpoint::run_of;
use crate::command::number::whole;
use crate::exchange::{self, Format, Numbers, Outgoing, Stored};
use crate::record::RunPaths;
use crate::terminal::say;
use crate::trained::Weights;

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Folder of the run, whose newest checkpoint is exported; or one of its checkpoints.
    run: PathBuf,
    /// Tool that shall load it.
    #[arg(long, value_enum)]
    to: To,
    /// Folder to make.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The average of the weights that the stage kept (`ema`), instead of the weights.
    #[arg(long)]
    ema: bool,
    /// ONNX: MiB of weights up to which an encoder is one file, 0 to 2047, which is what the format can hold; more go
    /// into a file beside it [default: 1024].
    #[arg(long, value_name = "MIB", value_parser = whole(0..=2047))]
    inline_mib: Option<usize>,
    /// Type of the numbers of weights, but for ONNX, which has single precision [default: that of the checkpoint that was
    /// imported, where it was not trained since; else f32].
    #[arg(long, value_enum)]
    numbers: Option<Precision>,
}

/// Types of numbers that weights are written in.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Precision {
    F32,
    F16,
    Bf16,
}

/// Formats that are written.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum To {
    /// Loads with open_clip.create_model_and_transforms('local-dir:DIR').
    OpenClip,
    /// Loads with transformers' CLIPModel.from_pretrained('DIR').
    Transformers,
    /// image.onnx and text.onnx, of any batch size, for every ONNX runtime with operator set 17.
    Onnx,
}

pub fn export(args: &ExportArgs) -> Result<Outcome, Failure> {
    let format = match args.to {
        To::OpenClip => Format::OpenClip,
        To::Transformers => Format::Transformers,
        To::Onnx => Format::Onnx,
    };
    let weights = match args.ema {
        true => Weights::open_average(&args.run)?,
        false => Weights::open(&args.run)?,
    };
    let run = run_of(&args.run);
    let tokenizer = Some(RunPaths::new(run).tokenizer()).filter(|path| path.is_file());
    let name = args.out.file_name().map_or("model".into(), |name| name.to_string_lossy());
    let card = ModelCard::of(run, &weights, &name, Some(format))?.to_string();
    let stored = match args.numbers {
        None => weights.stored.clone(),
        Some(numbers) => {
            let numbers = match numbers {
                Precision::F32 => Numbers::F32,
                Precision::F16 => Numbers::F16,
                Precision::Bf16 => Numbers::Bf16,
            };
            Stored { vector_scale: weights.stored.vector_scale, ..Stored::all(numbers) }
        }
    };
    let outgoing = Outgoing {
        config: &weights.config,
        tensors: &weights.tensors,
        tokenizer: tokenizer.as_deref(),
        card: Some(&card),
        stored: Some(&stored),
        inline: args.inline_mib.map(|mib| mib << 20),
    };
    let exported = exchange::export(&outgoing, format, &args.out).map_err(failure)?;
    say!("{} for {format}, from {}", exported.folder.display(), weights.checkpoint.display());
    for note in &exported.notes {
        say!("note: {note}");
    }
    Ok(Outcome::Done)
}
