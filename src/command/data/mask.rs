//! `flip data mask`: what each strategy of masking leaves of a few images.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::command::number::whole;
use crate::command::{Failure, Outcome};
use crate::data::decode::{CropDecoder, Draw, Transform, View};
use crate::data::load::LimitsConfig;
use crate::data::source::scenes::Scenes;
use crate::data::source::webdataset::WebDataset;
use crate::data::source::{Order, Source};
use crate::data::LoadError;
use crate::data::{Cursor, ScenesConfig, ScenesLevel, ScenesSplit, WebDatasetConfig};
use crate::mask::{ImageMask, Ratio, Strength};
use crate::report;
use crate::whole_file;

/// Look of a removed patch.
const REMOVED: u8 = 128;

#[derive(Debug, Args)]
pub struct MaskArgs {
    /// Shards to take images from [default: built-in ones].
    pattern: Option<String>,
    /// The PNG to write.
    #[arg(long, default_value = "masks.png")]
    out: PathBuf,
    /// Share of the patches dropped.
    #[arg(long, default_value_t = 0.5)]
    ratio: f64,
    /// Side of the images, pixels, 1 to 4096.
    #[arg(long, default_value_t = 224, value_parser = whole(1..=4096))]
    size: usize,
    /// Side of a patch, pixels, 1 to 4096.
    #[arg(long, default_value_t = 16, value_parser = whole(1..=4096))]
    patch: usize,
    /// Number of images, 1 to 64.
    #[arg(long, default_value_t = 4, value_parser = whole(1..=64))]
    images: usize,
}

/// Writes a row for each image: whole, then as each strategy leaves it.
pub fn mask(args: &MaskArgs, out: &mut dyn Write) -> Result<Outcome, Failure> {
    if !args.size.is_multiple_of(args.patch) {
        return Err(Failure::Usage("--size must be a multiple of --patch".into()));
    }
    let ratio = Ratio::try_from(args.ratio).map_err(|error| Failure::Usage(format!("--ratio: {error}")))?;
    let strength = Strength::try_from(0.5).map_err(Failure::Usage)?;
    let strategies = [
        ("whole", ImageMask::Keep),
        ("Random", ImageMask::Random(ratio)),
        ("Centred, strength 0.5", ImageMask::Centred { ratio, strength }),
        ("Grid", ImageMask::Grid(ratio)),
        ("Block", ImageMask::Block(ratio)),
    ];
    let source: Arc<dyn Source> = match &args.pattern {
        Some(pattern) => Arc::new(WebDataset::open(&WebDatasetConfig::new(pattern.as_str()))?),
        None => {
            let config = ScenesConfig {
                size: args.size.max(8),
                split: ScenesSplit::Train,
                level: ScenesLevel::Plain,
                samples: None,
            };
            Arc::new(Scenes::new(&config, 0)?)
        }
    };
    let mut decoder = CropDecoder::default();
    let transform = Transform::centre(args.size);
    let (mut rows, mut cursor) = (Vec::new(), Cursor::default());
    let grid = args.size / args.patch;
    while rows.len() < args.images * strategies.len() {
        let Some(ticket) = source.ticket(cursor, Order::Stored)? else { break };
        cursor = ticket.after;
        let raw = match source.load(&ticket) {
            Ok(raw) => Some(raw),
            Err(LoadError::Skip(_)) => None,
            Err(LoadError::Failed(error)) => return Err(error.into()),
        };
        let limits = LimitsConfig::default().of_images(source.max_pixels());
        let square = raw.and_then(|raw| {
            decoder.decode_crop(raw.image, limits, &transform, View::Whole, Draw::default()).ok()
        });
        let Some(square) = square else { continue };
        for (_, mask) in &strategies {
            let kept = mask.draw(grid, 1, 0, ticket.epoch, ticket.index).ids;
            rows.push(masked(&square, args.size, args.patch, &kept));
        }
    }
    let png = report::sheet(&rows, args.size, strategies.len())?;
    whole_file::replace(&args.out, &png)
        .map_err(|error| Failure::Usage(format!("{}: {error}", args.out.display())))?;
    let names: Vec<&str> = strategies.iter().map(|(name, _)| *name).collect();
    writeln!(out, "{}: from left to right {}", args.out.display(), names.join("; "))?;
    Ok(Outcome::Done)
}

/// An image without its removed patches.
fn masked(square: &[u8], size: usize, patch: usize, kept: &[u32]) -> Vec<u8> {
    let grid = size / patch;
    let mut seen = vec![false; grid * grid];
    kept.iter().for_each(|&id| seen[id as usize] = true);
    let mut pixels = square.to_vec();
    for (i, pixel) in pixels.chunks_exact_mut(3).enumerate() {
        let (x, y) = (i % size, i / size);
        if !seen[y / patch * grid + x / patch] {
            pixel.fill(REMOVED);
        }
    }
    pixels
}
