//! Zero-shot accuracy of a trained model on a folder with one sub-folder a class, from code. `flip evaluate MODEL --zero-shot
//! FOLDER` does the same, and more.
//!
//!     cargo run --release --example zero_shot_folder -- runs/quickstart folder "a photo of a {}"

use std::error::Error;

use flip::data::load::{LabelFrom, Loader, LoaderOptions};
use flip::data::{open_source, FolderConfig, SourceConfig};
use flip::trained::Trained;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, folder, prompt] = arguments.as_slice() else {
        return Err("expected: MODEL FOLDER PROMPT".into());
    };
    let trained = Trained::open(model)?;
    let source = open_source(&SourceConfig::Folder(FolderConfig { path: folder.into() }), 0)?;
    let prompts: Vec<String> = source.classes().iter().map(|class| prompt.replace("{}", class)).collect();
    let texts = trained.embed_texts(&prompts)?;
    let mut loader =
        Loader::start(LoaderOptions { label: LabelFrom::Source, ..trained.loader_options(source)? })?;
    let (mut right, mut n) = (0, 0);
    while let Some(batch) = loader.next()? {
        let images = trained.embed_images(&batch.pixels)?;
        for (image, label) in images.chunks_exact(trained.embed_dim()).zip(&batch.labels) {
            let cosine = |text: &[f32]| image.iter().zip(text).map(|(a, b)| a * b).sum::<f32>();
            let cosines = texts.chunks_exact(image.len()).map(cosine).enumerate();
            let best = cosines.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(class, _)| class as i64);
            n += 1;
            right += u64::from(best == *label);
        }
    }
    println!("{right} of {n} images: {:.2} %", 100.0 * right as f64 / n as f64);
    Ok(())
}
