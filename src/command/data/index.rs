//! `flip data index`: the bytes and samples of every shard, for runs of many machines.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use crate::command::{Failure, Outcome};
use crate::data::source::{counting, Files, ShardIndex};
use crate::data::storage::{Location, Storage};
use crate::data::DataError;
use crate::log::Progress;

#[derive(Debug, Clone, Args)]
pub struct IndexArgs {
    /// Shards, for example 'data/{00000..00041}.tar', a .txt file with one a line, or the JSON file of widsindex.
    pub pattern: String,
    /// File to write.
    #[arg(long, value_name = "JSON", default_value = "index.json")]
    pub out: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Counts the shards and writes their index: from the `*_stats.json` that img2dataset wrote beside them, else by their
/// headers. Of a wids JSON the numbers are taken over.
pub fn index(args: &IndexArgs, progress: &Progress, out: &mut dyn Write) -> Result<Outcome, Failure> {
    let index = made(args, progress).map_err(|error| match error {
        DataError::NoShards { .. } | DataError::Invalid(_) | DataError::OtherData(_) => {
            Failure::Usage(error.to_string())
        }
        error => error.into(),
    })?;
    index.write(&args.out).map_err(|source| DataError::Io { path: args.out.clone(), source })?;
    let (shards, samples, bytes) = (index.shards().len(), index.samples(), index.bytes());
    if args.json {
        let summary = serde_json::json!({
            "out": args.out, "hash": index.hash(), "shards": shards, "samples": samples, "bytes": bytes,
        });
        writeln!(out, "{summary}")?;
        return Ok(Outcome::Done);
    }
    let size = bytes.map_or(String::new(), |bytes| format!(", {:.1} MB", bytes as f64 / 1e6));
    writeln!(out, "{shards} shards, {samples} samples{size}; hash {}", &index.hash()[..12])?;
    let name = args.out.display();
    writeln!(
        out,
        "written to {name}; a recipe names it beside the shards: WebDataset(shards: ..., index: {name:?})"
    )?;
    Ok(Outcome::Done)
}

fn made(args: &IndexArgs, progress: &Progress) -> Result<ShardIndex, DataError> {
    if args.pattern.ends_with(".json") {
        return ShardIndex::read(args.pattern.as_ref());
    }
    let storage = Storage::default();
    let files: Vec<Location> = Files::from(args.pattern.as_str()).locate(&storage)?;
    let bar = progress.bar("index", files.len() as u64, "shards");
    let shards = counting::count(&files, &storage, |done| bar.update(done as u64, ""))?;
    bar.finish();
    Ok(ShardIndex::new(shards))
}
