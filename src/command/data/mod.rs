//! `flip data`: looking at data, timing it, making shards of it.

pub mod bench;
pub mod inspect;

pub use inspect::inspect;

use std::io::Write;

use clap::Subcommand;

use super::{Failure, Outcome};

#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Read every sample of webdataset shards and say what a training run would load and skip.
    Inspect {
        /// Shards, for example 'data/{00000..00041}.tar'.
        pattern: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// List every sample.
        #[arg(long)]
        samples: bool,
    },
    /// Time how fast shards are read, decoded, cropped and tokenized, beside decoding alone.
    Bench(bench::BenchArgs),
}

pub fn run(command: &DataCommand, out: &mut dyn Write) -> Result<Outcome, Failure> {
    match command {
        DataCommand::Inspect { pattern, json, samples } => inspect(pattern, *json, *samples, out),
        DataCommand::Bench(args) => bench::bench(args, out),
    }
}
