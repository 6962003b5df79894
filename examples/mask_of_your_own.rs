//! A mask strategy in a few lines: score the patches, and those with the lowest scores are kept.
//!
//!     cargo run --release --example mask_of_your_own
//!
//! To use it from recipes, add a variant to `flip::mask::ImageMask` and a line to its `strategy`.

use flip::mask::{draw_images, ImageMask, ImageStrategy, Kept, Ratio};
use rand::{Rng, RngCore};

/// Keeps a band of patches across the image, at a random angle.
struct Band {
    ratio: Ratio,
}

impl ImageStrategy for Band {
    fn kept(&self, patches: usize) -> usize {
        self.ratio.kept(patches)
    }

    fn score(&self, scores: &mut [f32], grid: usize, rng: &mut dyn RngCore) {
        let (sin, cos) = rng.gen_range(0.0..std::f32::consts::PI).sin_cos();
        let middle = (grid as f32 - 1.0) / 2.0;
        for (patch, score) in scores.iter_mut().enumerate() {
            let (row, column) = ((patch / grid) as f32, (patch % grid) as f32);
            *score = ((row - middle) * cos - (column - middle) * sin).abs();
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (grid, seed) = (14, 0);
    let half = Ratio::try_from(0.5)?;
    let three_quarters = Ratio::try_from(0.75)?;
    show("Band, half dropped", &draw_images(&Band { ratio: half }, grid, 4, seed, 0, 0), grid);
    for mask in [
        ImageMask::Random(half),
        ImageMask::Random(three_quarters),
        ImageMask::Centred { ratio: three_quarters, strength: 0.5.try_into()? },
        ImageMask::Grid(three_quarters),
        ImageMask::Block(three_quarters),
    ] {
        show(&format!("{mask:?}"), &mask.draw(grid, 4, seed, 0, 0), grid);
    }
    Ok(())
}

/// Prints the masks of a batch side by side: `##` is kept.
fn show(title: &str, mask: &Kept, grid: usize) {
    println!("{title}: {} of {} patches", mask.kept, mask.of);
    let images: Vec<Vec<bool>> = mask
        .ids
        .chunks_exact(mask.kept)
        .map(|row| {
            let mut seen = vec![false; mask.of];
            row.iter().for_each(|&id| seen[id as usize] = true);
            seen
        })
        .collect();
    for row in 0..grid {
        for seen in &images {
            let line: String =
                (0..grid).map(|column| if seen[row * grid + column] { "##" } else { " ." }).collect();
            print!("{line}   ");
        }
        println!();
    }
    println!();
}
