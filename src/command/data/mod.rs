//! `flip data`: looking at data, counting and timing it, making shards of it.

pub mod bench;
pub mod index;
pub mod inspect;
mod loose;
pub mod mask;
pub mod pack;

pub use inspect::{inspect, InspectArgs};

use std::io::Write;

use clap::Subcommand;

use super::{Failure, Outcome};
use crate::log::Progress;

#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Read every sample of webdataset shards and say what a training run would load and skip.
    Inspect(InspectArgs),
    /// Count the samples of shards, and write an index of them for runs of many machines.
    Index(index::IndexArgs),
    /// Time how fast shards are read, decoded, cropped and tokenized, beside decoding alone.
    Bench(bench::BenchArgs),
    /// Make shards of a folder of images and captions, or of a table.
    Pack(pack::PackArgs),
    /// Draw what each strategy of masking leaves of a few images.
    Mask(mask::MaskArgs),
}

pub fn run(command: &DataCommand, out: &mut dyn Write) -> Result<Outcome, Failure> {
    match command {
        DataCommand::Inspect(args) => inspect(args, &Progress::new(), out),
        DataCommand::Index(args) => index::index(args, &Progress::new(), out),
        DataCommand::Bench(args) => bench::bench(args, out),
        DataCommand::Pack(args) => pack::pack(args, &Progress::new(), out),
        DataCommand::Mask(args) => mask::mask(args, out),
    }
}
