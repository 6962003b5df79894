//! The cosine of an image and a text, by a trained model: a run, or a folder of open_clip or Hugging Face.
//!
//!     cargo run --release --example embed_image_and_text -- runs/quickstart image.png "a red circle"

use std::error::Error;

use flip::trained::Trained;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, image, text] = arguments.as_slice() else {
        return Err("expected: MODEL IMAGE TEXT".into());
    };
    let trained = Trained::open(model)?;
    let (image, text) = (trained.embed_image(image)?, trained.embed_text(text)?);
    println!("{:.4}", image.iter().zip(&text).map(|(a, b)| a * b).sum::<f32>());
    Ok(())
}
