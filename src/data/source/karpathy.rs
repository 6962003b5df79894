//! COCO and Flickr30k in the splits of Karpathy and Fei-Fei (arXiv 1412.2306): `dataset_coco.json` or
//! `dataset_flickr30k.json`, and the folder with the images. Every image has about five captions.

use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::decode::LONGEST_IMAGE;
use crate::data::source::permutation::Permutations;
use crate::data::source::{Order, Source, Ticket};
use crate::data::storage::disk::Base;
use crate::data::storage::Location;
use crate::data::text::text_file;
use crate::data::{Cursor, DataError, Storage};
use crate::data::{Image, LoadError, Raw};

/// A split of COCO or Flickr30k.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KarpathyConfig {
    /// `dataset_coco.json` or `dataset_flickr30k.json`.
    pub annotations: PathBuf,
    /// The folder of the images; for COCO the one with `train2014` and `val2014` inside.
    #[serde(alias = "pictures")]
    #[schemars(extend("formerName" = "pictures"))]
    pub images: PathBuf,
    /// The part of the set.
    pub split: KarpathySplit,
}

/// Images of one purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KarpathySplit {
    /// `train`, and of COCO `restval` too, as is usual.
    Train,
    /// `val`
    Validation,
    /// `test`: 5,000 images of COCO, 1,000 of Flickr30k.
    Test,
}

impl KarpathySplit {
    fn names(self) -> &'static [&'static str] {
        match self {
            KarpathySplit::Train => &["train", "restval"],
            KarpathySplit::Validation => &["val"],
            KarpathySplit::Test => &["test"],
        }
    }
}

/// The little of the file that is needed.
#[derive(Deserialize)]
struct Annotations {
    images: Vec<AnnotatedImage>,
}

#[derive(Deserialize)]
struct AnnotatedImage {
    /// Sub-folder; COCO has it.
    #[serde(default)]
    filepath: String,
    filename: String,
    split: String,
    sentences: Vec<Sentence>,
}

#[derive(Deserialize)]
struct Sentence {
    raw: String,
}

/// The source, in the order of the file.
pub struct Karpathy {
    annotations: PathBuf,
    /// File and captions.
    images: Vec<(PathBuf, Vec<String>)>,
    permutations: Permutations,
    /// The folder of the images.
    base: Base,
    storage: Arc<Storage>,
}

impl Karpathy {
    /// Reads the annotations; no image is opened.
    ///
    /// # Errors
    /// The file is not there or is something else, or has no image of the split.
    pub fn open(config: &KarpathyConfig, storage: Arc<Storage>) -> Result<Self, DataError> {
        let path = &config.annotations;
        let text = text_file::read(path)?;
        let wrong = |detail: String| DataError::Invalid(format!("{}: {detail}", path.display()));
        let annotations: Annotations = serde_json::from_str(&text).map_err(|error| {
            wrong(format!(
                "{error}; expected {{\"images\": [{{\"filename\", \"split\", \"sentences\": [{{\"raw\"}}]}}]}}"
            ))
        })?;
        let total = annotations.images.len();
        let mut images = Vec::new();
        for image in annotations.images {
            if !config.split.names().contains(&image.split.as_str()) {
                continue;
            }
            let relative = PathBuf::from(&image.filepath).join(&image.filename);
            let inside = relative.components().all(|part| matches!(part, std::path::Component::Normal(_)));
            if !inside {
                return Err(wrong(format!("image {} lies outside of the folder", relative.display())));
            }
            let captions: Vec<String> = image.sentences.iter().map(|s| s.raw.trim().to_owned()).collect();
            let captions: Vec<String> = captions.into_iter().filter(|caption| !caption.is_empty()).collect();
            if captions.is_empty() {
                return Err(wrong(format!("image {} has no caption", relative.display())));
            }
            images.push((config.images.join(relative), captions));
        }
        match images.first() {
            None => {
                let names = config.split.names().join("\" or \"");
                Err(wrong(format!("none of its {total} images has the split \"{names}\"")))
            }
            Some((first, _)) if !first.exists() => Err(DataError::Invalid(format!(
                "{} is not there; is {} the folder of the images?",
                first.display(),
                config.images.display()
            ))),
            Some(_) => {
                let folder = &config.images;
                let base = Base::of(folder);
                let base = base.map_err(|source| DataError::Io { path: folder.clone(), source })?;
                let permutations = Permutations::default();
                Ok(Karpathy { annotations: path.clone(), images, permutations, base, storage })
            }
        }
    }
}

impl Source for Karpathy {
    fn samples(&self) -> Option<u64> {
        Some(self.images.len() as u64)
    }

    /// The annotations, which name the images.
    fn files(&self) -> Vec<Location> {
        vec![Location::File(self.annotations.clone())]
    }

    fn ticket(&self, cursor: Cursor, order: Order) -> Result<Option<Ticket>, DataError> {
        Ok(self.permutations.ticket(order, cursor, self.images.len() as u64))
    }

    fn load(&self, ticket: &Ticket) -> Result<Raw, LoadError> {
        let (path, captions) = &self.images[ticket.item.1 as usize];
        let location = Location::File(path.clone());
        let bytes = self.storage.read(&location, LONGEST_IMAGE, || self.base.is_there());
        let bytes = bytes.map_err(|error| self.storage.cause(error).of(|| location.to_string()))?;
        Ok(Raw {
            key: path.display().to_string(),
            image: Image::Encoded(bytes),
            captions: captions.clone(),
            meta: Ok(None),
            label: None,
            label_set: None,
        })
    }

    fn name(&self) -> String {
        self.annotations.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const COCO: &str = r#"{"dataset": "coco", "images": [
        {"filepath": "val2014", "filename": "1.jpg", "imgid": 0, "split": "test", "sentids": [4, 5],
         "sentences": [{"raw": " A man.", "tokens": ["a", "man"]}, {"raw": "A person", "tokens": []}, {"raw": " "}]},
        {"filepath": "train2014", "filename": "2.jpg", "split": "restval", "sentences": [{"raw": "A dog"}]},
        {"filename": "3.jpg", "split": "train", "sentences": [{"raw": "A cat"}]}]}"#;

    fn open(text: &str, split: KarpathySplit, files: &[&str]) -> Result<Vec<Raw>, String> {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        let annotations = folder.path().join("dataset.json");
        fs::write(&annotations, text).unwrap();
        let config = KarpathyConfig { annotations, images: folder.path().into(), split };
        let source = Karpathy::open(&config, Arc::default()).map_err(|error| error.to_string())?;
        let mut cursor = Cursor::default();
        let mut all = Vec::new();
        while let Some(ticket) = source.ticket(cursor, Order::Stored).unwrap() {
            all.push(source.load(&ticket).map_err(|error| error.skip().unwrap().detail)?);
            cursor = ticket.after;
        }
        Ok(all)
    }

    #[test]
    fn a_split_has_its_images_with_all_their_captions() {
        let test = open(COCO, KarpathySplit::Test, &["val2014/1.jpg"]).unwrap();
        assert_eq!(test.len(), 1);
        assert_eq!(test[0].captions, ["A man.", "A person"]);
        let marked = open(&format!("\u{feff}{COCO}"), KarpathySplit::Test, &["val2014/1.jpg"]).unwrap();
        assert_eq!(marked[0].captions, test[0].captions);
        assert_eq!(test[0].image, Image::Encoded(b"val2014/1.jpg".to_vec()));
        let train = open(COCO, KarpathySplit::Train, &["train2014/2.jpg", "3.jpg"]).unwrap();
        assert_eq!(train.iter().map(|raw| raw.captions[0].as_str()).collect::<Vec<_>>(), ["A dog", "A cat"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let message = |text: &str, split| open(text, split, &[]).unwrap_err();
        assert!(
            message(COCO, KarpathySplit::Validation).contains("none of its 3 images has the split \"val\"")
        );
        assert!(message(COCO, KarpathySplit::Test).contains("1.jpg is not there; is"));
        assert!(message("{}", KarpathySplit::Test).contains("missing field `images`"));
        let outside = COCO.replace("1.jpg", "../1.jpg");
        assert!(message(&outside, KarpathySplit::Test).contains("lies outside of the folder"));
        let mute = COCO.replace(" A man.", "").replace("A person", "");
        assert!(message(&mute, KarpathySplit::Test).contains("has no caption"));
    }
}
