//! `flip data inspect`: what a training run would load from shards, and what it would skip.

use std::io::{self, Write};

use crate::command::{Failure, Outcome};
use crate::data::inspection::{self, Inspection, SampleReport, Spread};
use crate::data::DataError;

/// Reads every sample of the shards and reports: a table for people, or one JSON object
/// `{"shards": [...], "samples": [...]}`, its samples in the order of the archives.
pub fn inspect(pattern: &str, json: bool, samples: bool, out: &mut dyn Write) -> Result<Outcome, Failure> {
    let ended = if json { print_json(pattern, samples, out) } else { print_table(pattern, samples, out) };
    match ended {
        Ok(()) => Ok(Outcome::Done),
        Err(error @ (DataError::NoShards { .. } | DataError::Invalid(_))) => {
            Err(Failure::Usage(error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Samples are written as they come, so that a set of any size can be listed.
fn print_json(pattern: &str, samples: bool, out: &mut dyn Write) -> Result<(), DataError> {
    let mut first = true;
    let inspection = inspection::inspect(pattern, |sample| {
        if !samples {
            return Ok(());
        }
        let before = if first { "{\"samples\":[\n" } else { ",\n" };
        first = false;
        write!(out, "{before}{}", serde_json::json!(sample)).map_err(unwritten)
    })?;
    let before = match (samples, first) {
        (false, _) => "{",
        (true, true) => "{\"samples\":[],",
        (true, false) => "\n],",
    };
    let shards: Vec<String> =
        inspection.shards.iter().map(|shard| serde_json::json!(shard).to_string()).collect();
    writeln!(out, "{before}\"shards\":[\n{}\n]}}", shards.join(",\n")).map_err(unwritten)
}

fn print_table(pattern: &str, samples: bool, out: &mut dyn Write) -> Result<(), DataError> {
    let inspection = inspection::inspect(pattern, |sample| {
        if samples {
            writeln!(out, "{}", line(&sample)).map_err(unwritten)?;
        }
        Ok(())
    })?;
    table(&inspection, out).map_err(unwritten)
}

/// A sample in a line; names and captions come from anywhere, so what could steer a terminal is escaped.
fn line(sample: &SampleReport) -> String {
    let name = format!("{} {}", sample.shard.escape_debug(), sample.key.escape_debug());
    match (sample.reason, sample.width, sample.height) {
        (None, Some(width), Some(height)) => {
            format!("load {name} {width}x{height} {:?}", sample.caption.as_deref().unwrap_or_default())
        }
        (reason, ..) => format!("skip {name} {}", reason.unwrap_or_default()),
    }
}

fn table(inspection: &Inspection, out: &mut dyn Write) -> io::Result<()> {
    let shards = &inspection.shards;
    let names: Vec<String> = shards.iter().map(|shard| shard.file.escape_debug().to_string()).collect();
    let wide = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max("shard".len());
    writeln!(out, "{:wide$}  {:>8}  {:>8}  damage", "shard", "loaded", "skipped")?;
    for (name, shard) in names.iter().zip(shards) {
        let damage = shard.reason.unwrap_or("-");
        writeln!(out, "{name:wide$}  {:>8}  {:>8}  {damage}", shard.loaded, shard.skipped)?;
    }
    let loaded = inspection.loaded();
    let skipped: u64 = shards.iter().map(|shard| shard.skipped).sum();
    let damaged = shards.iter().filter(|shard| shard.damaged).count();
    writeln!(out, "{:wide$}  {loaded:>8}  {skipped:>8}  {damaged} of {} shards", "all", shards.len())?;

    writeln!(
        out,
        "\nshards    {} bytes, all {}",
        spread(inspection.bytes, shards.len() as u64),
        inspection.bytes.sum
    )?;
    if loaded > 0 {
        writeln!(out, "widths    {} pixels", spread(inspection.width, loaded))?;
        writeln!(out, "heights   {} pixels", spread(inspection.height, loaded))?;
        writeln!(out, "captions  {} characters", spread(inspection.caption, loaded))?;
    }
    if inspection.skipped.total() > 0 {
        writeln!(out, "\nskipped")?;
        for (reason, count) in &inspection.skipped.counts {
            writeln!(out, "{count:>8}  {reason}")?;
        }
        writeln!(out, "\nthe first of them")?;
        for skip in &inspection.skipped.first {
            let sample = skip.sample.escape_debug();
            writeln!(out, "  {sample}: {}: {}", skip.reason, skip.detail.escape_debug())?;
        }
    }
    Ok(())
}

/// `12 to 34, mean 20`
fn spread(of: Spread, count: u64) -> String {
    format!("{} to {}, mean {}", of.smallest, of.largest, of.sum / count.max(1))
}

fn unwritten(source: io::Error) -> DataError {
    DataError::Io { path: "standard output".into(), source }
}
