//! What the built-in scenes look like and how fast they are made.
//!
//!     cargo run --release --example scenes_sheet -- sheet.png [SIDE] [LEVEL]
//!
//! LEVEL is Plain, Clutter, Relations or Counts. The upper rows are for training, the last three are held out.

use std::time::Instant;

use flip::data::source::scenes::Scenes;
use flip::data::source::Source;
use flip::data::Image;
use flip::data::{ScenesConfig, ScenesLevel, ScenesSplit};
use image::{imageops, RgbImage};

const COLUMNS: u32 = 16;
const ROWS: u32 = 9;
/// Each image is shown this many times as large.
const ZOOM: u32 = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_else(|| "scenes.png".into());
    let size = arguments.next().map_or(Ok(32), |side| side.parse())?;
    let level = match arguments.next().as_deref() {
        None | Some("Plain") => ScenesLevel::Plain,
        Some("Clutter") => ScenesLevel::Clutter,
        Some("Relations") => ScenesLevel::Relations,
        Some("Counts") => ScenesLevel::Counts,
        Some(other) => return Err(format!("there is no level {other}").into()),
    };
    let side = size as u32 * ZOOM + 4;
    let mut sheet = RgbImage::new(COLUMNS * side, ROWS * side);
    for (split, rows) in [(ScenesSplit::Train, 0..ROWS - 3), (ScenesSplit::HeldOut, ROWS - 3..ROWS)] {
        let scenes = Scenes::new(&ScenesConfig { size, split, level, samples: None }, 0)?;
        println!("{split:?}: {} classes", scenes.classes().len());
        for (number, place) in rows.flat_map(|row| (0..COLUMNS).map(move |column| (column, row))).enumerate()
        {
            let (_, raw) = scenes.sample(number as u64);
            if number < 16 {
                println!("  {number}: {}", raw.captions.join(" | "));
            }
            let Image::Rgb { width, height, pixels } = raw.image else { continue };
            let image = RgbImage::from_raw(width, height, pixels).ok_or("an image of another size")?;
            let large = imageops::resize(&image, width * ZOOM, height * ZOOM, imageops::Nearest);
            imageops::replace(&mut sheet, &large, i64::from(place.0 * side), i64::from(place.1 * side));
        }
        let (start, images) = (Instant::now(), 20_000);
        let captions: usize = (0..images).map(|number| scenes.sample(number).1.captions.len()).sum();
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "  {:.0} images of {size} px a second, {:.2} captions each",
            images as f64 / seconds,
            captions as f64 / images as f64
        );
    }
    sheet.save(&path)?;
    println!("wrote {path}");
    Ok(())
}
