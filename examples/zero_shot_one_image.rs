//! Asks a trained model what an image shows.
//!
//!     cargo run --release --example zero_shot_one_image -- runs/quickstart image.png "red circle" "blue star"

use std::error::Error;

use flip::trained::Trained;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, image, texts @ ..] = arguments.as_slice() else {
        return Err("expected: MODEL IMAGE TEXT [TEXT ...]".into());
    };
    let trained = Trained::open(model)?;
    let image = trained.embed_image(image)?;
    for (text, share) in texts.iter().zip(trained.classify(&image, texts)?) {
        println!("{:5.1} %  {text}", 100.0 * share);
    }
    Ok(())
}
