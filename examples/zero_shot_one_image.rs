//! Asks a trained model what an image shows.
//!
//!     cargo run --release --example zero_shot_one_image -- runs/quickstart image.png "red circle" "blue star"

use std::error::Error;
use std::path::Path;

use dfdx::tensor::Cpu;
use flip::data::decode::ImageLimits;
use flip::data::decode::{CropDecoder, Draw, Transform, View};
use flip::data::Image;
use flip::trained::Trained;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [run, image, texts @ ..] = arguments.as_slice() else {
        return Err("expected: RUN-FOLDER IMAGE TEXT [TEXT ...]".into());
    };
    let trained = Trained::open(Path::new(run), &Cpu::default())?;

    let image = Image::Encoded(std::fs::read(image)?);
    let transform = Transform::Evaluate { size: trained.model.config().image.size };
    let square = CropDecoder::default()
        .decode_crop(image, ImageLimits::default(), &transform, View::Whole, Draw::default())
        .map_err(|defect| defect.detail)?;

    let image = trained.embed_images(&square)?;
    let texts_embedded = trained.embed_texts(texts)?;
    let scale = trained.model.logit_scale().exp();
    let logits: Vec<f64> = texts_embedded
        .chunks_exact(image.len())
        .map(|text| scale * text.iter().zip(&image).map(|(a, b)| f64::from(a * b)).sum::<f64>())
        .collect();

    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logits.iter().map(|logit| (logit - most).exp()).sum();
    for (text, logit) in texts.iter().zip(&logits) {
        println!("{:5.1} %  {text}", 100.0 * (logit - most).exp() / total);
    }
    Ok(())
}
