//! `flip tokenizer train`: a vocabulary from the captions of shards, for many runs to share.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Failure, Outcome};
use crate::command::number::whole;
use crate::data::load::first_captions;
use crate::data::source::webdataset::WebDataset;
use crate::data::text::Tokenizer;
use crate::data::WebDatasetConfig;
use crate::log::Progress;

#[derive(Debug, Subcommand)]
pub enum TokenizerCommand {
    /// Learn a lower-case WordPiece vocabulary from the captions of shards.
    Train(TrainArgs),
}

#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Shards, for example 'data/{00000..00041}.tar'.
    pattern: String,
    /// Most entries of the vocabulary, 1 to 1,048,576; the model's text.vocab_size.
    #[arg(long, default_value_t = 8_192, value_parser = whole(1..=1 << 20))]
    vocab_size: usize,
    /// Captions to learn from, taken from the start, 1 to 100,000,000.
    #[arg(long, default_value_t = 1_000_000, value_parser = whole(1..=100_000_000))]
    captions: usize,
    /// The file to write; a recipe names it as `tokenizer: Json("tokenizer.json")`.
    #[arg(long, default_value = "tokenizer.json")]
    out: PathBuf,
}

pub fn run(command: &TokenizerCommand, progress: &Progress, out: &mut dyn Write) -> Result<Outcome, Failure> {
    let TokenizerCommand::Train(args) = command;
    let bar = progress.bar("tokenizer", 2, "steps");
    let source = WebDataset::open(&WebDatasetConfig::new(args.pattern.as_str()))?;
    bar.update(0, "reading captions");
    let captions = first_captions(&source, args.captions)?;
    let read = captions.len();
    bar.update(1, "learning");
    let tokenizer = Tokenizer::train(captions.into_iter(), args.vocab_size)?;
    tokenizer.save(&args.out)?;
    bar.finish();
    let (out_path, tokens) = (args.out.display(), tokenizer.vocab_size());
    writeln!(
        out,
        "{out_path}: {tokens} tokens from {read} captions; set text.vocab_size to at least {tokens}"
    )?;
    Ok(Outcome::Done)
}
