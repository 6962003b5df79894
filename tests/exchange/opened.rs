//! `Trained::open` on checkpoints of other tools as they lie there, and on what becomes of them.

use flip::trained::{Trained, TrainedError};
use tempfile::tempdir;

use crate::command::{flip, said, vocabulary};
use crate::support::*;

#[test]
fn a_checkpoint_of_open_clip_is_the_same_model_before_and_after_its_import() {
    let there = tempdir().unwrap();
    let (source, run) = (there.path().join("source"), there.path().join("run"));
    std::fs::create_dir(&source).unwrap();
    open_clip_folder(&source, |_| {});
    vocabulary(&source);
    said(flip(&[&"import", &source, &"--out", &run]));
    let (foreign, imported) = (Trained::open(&source).unwrap(), Trained::open(&run).unwrap());
    assert_eq!(foreign.hash().unwrap(), imported.hash().unwrap());
    assert_eq!(foreign.origin.as_deref(), Some("open_clip"));
    assert_eq!(imported.origin, foreign.origin);
    let texts = ["word1 word2", "word3"];
    assert_eq!(foreign.embed_texts(&texts).unwrap(), imported.embed_texts(&texts).unwrap());
    let photo = there.path().join("photo.png");
    image::RgbImage::from_fn(40, 30, |x, y| image::Rgb([x as u8 * 6, y as u8 * 8, 90])).save(&photo).unwrap();
    let embedded = foreign.embed_image(&photo).unwrap();
    assert_eq!(embedded.len(), foreign.embed_dim());
    assert_eq!(embedded, imported.embed_image(&photo).unwrap());
    let data = flip::data::Image::Encoded(std::fs::read(&photo).unwrap());
    assert_eq!(embedded, imported.embed_image_data(data).unwrap());

    // Another tokenizer is another model; so are other weights.
    std::fs::write(source.join("vocab.txt"), "[PAD]\n[UNK]\nword1\n").unwrap();
    assert_ne!(Trained::open(&source).unwrap().hash().unwrap(), foreign.hash().unwrap());
}

#[test]
fn what_is_no_model_or_no_image_is_named() {
    let there = tempdir().unwrap();
    let message = |path: &std::path::Path| Trained::open(path).err().expect("no model").to_string();
    assert!(message(&there.path().join("none")).contains("none: there is no such folder"));
    assert!(message(there.path()).contains("expected the folder of a run"), "{}", message(there.path()));
    open_clip_folder(there.path(), |_| {});
    let trained = Trained::open(there.path()).unwrap();
    assert!(matches!(trained.embed_text("word1"), Err(TrainedError::NoTokenizer)));
    let text = there.path().join("notes.txt");
    std::fs::write(&text, "no image").unwrap();
    let message = trained.embed_image(&text).unwrap_err().to_string();
    assert!(message.contains("notes.txt") && message.contains("expected an image"), "{message}");
    let message = trained.embed_image(there.path().join("none.png")).unwrap_err().to_string();
    assert!(message.contains("none.png: No such file"), "{message}");
    assert!(matches!(trained.embed_images(&[1, 2, 3]), Err(TrainedError::Pixels { bytes: 3, .. })));
}
