//! `flip data inspect`: what a training run would load from shards, and what it would skip.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use rand::Rng;

use crate::command::{Failure, Outcome};
use crate::data::decode::image_file::Rgb;
use crate::data::decode::ImageLimits;
use crate::data::decode::{CropDecoder, Draw, Transform, View};
use crate::data::load::inspection;
use crate::data::load::inspection::{Inspection, SampleReport, Seen, Spread};
use crate::data::source::exclude::Entry;
use crate::data::DataError;
use crate::data::Image;
use crate::log::Progress;
use crate::report;
use crate::seed::{rng, Purpose};
use crate::whole_file;

/// Images of the contact sheet, their side in pixels, and how many stand in a row.
const SHOWN: usize = 48;
const SIDE: usize = 128;
const COLUMNS: usize = 8;

#[derive(Debug, Clone, Default, Args)]
pub struct InspectArgs {
    /// Shards, for example 'data/{00000..00041}.tar'.
    pub pattern: String,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// List every sample.
    #[arg(long)]
    pub samples: bool,
    /// Write a PNG of some of the images, drawn at random from all of them.
    #[arg(long, value_name = "PNG")]
    pub sheet: Option<PathBuf>,
    /// Write shard and key of every sample whose image repeats an earlier one, a JSON object a line:
    /// data.filter.exclude reads it.
    #[arg(long, value_name = "FILE")]
    pub duplicates: Option<PathBuf>,
}

/// Reads every sample of the shards and reports: a table for people, or one JSON object
/// `{"shards": [...], "samples": [...], "summary": {...}}`, its samples in the order of the archives.
pub fn inspect(args: &InspectArgs, progress: &Progress, out: &mut dyn Write) -> Result<Outcome, Failure> {
    match inspect_all(args, progress, out) {
        Ok(()) => Ok(Outcome::Done),
        Err(error @ (DataError::NoShards { .. } | DataError::Invalid(_))) => {
            Err(Failure::Usage(error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

fn inspect_all(args: &InspectArgs, progress: &Progress, out: &mut dyn Write) -> Result<(), DataError> {
    let mut bar = None;
    let mut drawn = Drawn::default();
    let mut repeated = String::new();
    let mut first = true;
    let inspection = inspection::inspect(&args.pattern, |seen| {
        let (done, all) = seen.shards;
        bar.get_or_insert_with(|| progress.bar("inspect", all as u64, "shards")).update(done as u64, "");
        if let (Some(image), true) = (seen.image, args.sheet.is_some()) {
            drawn.offer(image);
        }
        if seen.repeats.is_some() {
            let SampleReport { key, occurrence, .. } = &seen.report;
            let entry = Entry { shard: seen.shard.to_string(), key: key.clone(), occurrence: *occurrence };
            repeated.push_str(&serde_json::json!(entry).to_string());
            repeated.push('\n');
        }
        // Samples are written as they come, so that a set of any size can be listed.
        if args.samples && args.json {
            let before = if first { "{\"samples\":[\n" } else { ",\n" };
            first = false;
            write!(out, "{before}{}", serde_json::json!(seen.report)).map_err(unwritten)?;
        } else if args.samples {
            writeln!(out, "{}", line(&seen)).map_err(unwritten)?;
        }
        Ok(())
    })?;
    if let Some(bar) = bar {
        bar.finish();
    }
    if args.json {
        let before = match (args.samples, first) {
            (false, _) => "{",
            (true, true) => "{\"samples\":[],",
            (true, false) => "\n],",
        };
        let shards: Vec<String> =
            inspection.shards.iter().map(|shard| serde_json::json!(shard).to_string()).collect();
        let summary = summary(&inspection);
        writeln!(out, "{before}\"shards\":[\n{}\n],\n\"summary\":{summary}}}", shards.join(",\n"))
            .map_err(unwritten)?;
    } else {
        table(&inspection, out).map_err(unwritten)?;
    }
    if let Some(path) = &args.duplicates {
        write_file(path, repeated.as_bytes())?;
    }
    match &args.sheet {
        Some(path) if !drawn.images.is_empty() => {
            let png = report::sheet(&drawn.images, SIDE, COLUMNS)
                .map_err(|error| DataError::Invalid(error.to_string()))?;
            write_file(path, &png)
        }
        _ => Ok(()),
    }
}

/// Some of all images, each as likely as any other: the same ones every time.
#[derive(Default)]
struct Drawn {
    images: Vec<Vec<u8>>,
    offered: u64,
    decoder: CropDecoder,
}

impl Drawn {
    fn offer(&mut self, image: &Rgb) {
        let slot = match self.images.len() {
            SHOWN => rng(0, Purpose::Sheet, self.offered, 0).gen_range(0..=self.offered) as usize,
            room => room,
        };
        self.offered += 1;
        if slot >= SHOWN {
            return;
        }
        let Rgb { width, height, pixels } = image.clone();
        let image = Image::Rgb { width, height, pixels };
        let transform = Transform::centre(SIDE);
        if let Ok(square) =
            self.decoder.decode_crop(image, ImageLimits::default(), &transform, View::Whole, Draw::default())
        {
            match self.images.get_mut(slot) {
                Some(before) => *before = square,
                None => self.images.push(square),
            }
        }
    }
}

fn summary(inspection: &Inspection) -> serde_json::Value {
    let seconds = inspection.took.as_secs_f64().max(1e-9);
    serde_json::json!({
        "loaded": inspection.loaded(),
        "skipped": inspection.skipped.counts,
        "formats": inspection.formats,
        "duplicates": inspection.duplicates,
        "shard_bytes": inspection.bytes,
        "width": inspection.width,
        "height": inspection.height,
        "caption_characters": inspection.caption,
        "seconds": inspection.took.as_secs_f64(),
        "images_per_s": inspection.loaded() as f64 / seconds,
        "mib_per_s": inspection.bytes.sum as f64 / seconds / (1 << 20) as f64,
    })
}

/// A sample in a line; names and captions come from anywhere, so what could steer a terminal is escaped.
fn line(seen: &Seen<'_>) -> String {
    let sample: &SampleReport = &seen.report;
    let name = format!("{} {}", sample.shard.escape_debug(), sample.key.escape_debug());
    let repeats = match &seen.repeats {
        Some(earlier) => format!(" repeats {}", earlier.escape_debug()),
        None => String::new(),
    };
    match (sample.reason, sample.width, sample.height) {
        (None, Some(width), Some(height)) => {
            let caption = sample.caption.as_deref().unwrap_or_default();
            format!("load {name} {width}x{height} {caption:?}{repeats}")
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

    writeln!(out, "\nshards      {} bytes, all {}", spread(inspection.bytes), inspection.bytes.sum)?;
    if loaded > 0 {
        let formats: Vec<String> =
            inspection.formats.iter().map(|(format, count)| format!("{count} {format}")).collect();
        writeln!(out, "formats     {}", formats.join(", "))?;
        writeln!(out, "widths      {} pixels", spread(inspection.width))?;
        writeln!(out, "heights     {} pixels", spread(inspection.height))?;
        writeln!(out, "captions    {} characters", spread(inspection.caption))?;
        writeln!(out, "duplicates  {} images repeat an earlier one", inspection.duplicates)?;
        let seconds = inspection.took.as_secs_f64().max(1e-9);
        let mib = inspection.bytes.sum as f64 / (1 << 20) as f64;
        writeln!(
            out,
            "read        {} images/s, {:.0} MiB/s",
            report::rate(loaded as f64 / seconds),
            mib / seconds
        )?;
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
fn spread(of: Spread) -> String {
    format!("{} to {}, mean {}", of.smallest, of.largest, of.sum / of.count.max(1))
}

fn unwritten(source: io::Error) -> DataError {
    DataError::Io { path: "standard output".into(), source }
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    whole_file::replace(path, bytes).map_err(|source| DataError::Io { path: path.into(), source })
}
