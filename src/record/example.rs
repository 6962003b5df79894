//! Evaluated images with what was found for them: `examples/*.json`.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{read_if_there, RecordError};
use crate::whole_file;

/// The examples of one evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Examples {
    /// Index of the evaluating stage in the recipe.
    pub stage: usize,
    /// Kind of evaluator: `zero_shot`, `retrieval`, ...
    pub kind: String,
    /// Name given in the recipe.
    pub dataset: String,
    /// The question, for example the task or the split.
    #[serde(default)]
    pub task: String,
    /// Images as `data:` URLs.
    pub examples: Vec<Example<String>>,
}

/// An image, and the nearest texts and images to it and to its caption. `I` is the image: pixels where it is made, a `data:`
/// URL in the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example<I> {
    /// The image that is asked about.
    #[serde(alias = "picture")]
    pub image: I,
    /// Its caption, or its class.
    pub caption: String,
    /// The texts nearest to the image, best first.
    pub texts: Vec<Answer<String>>,
    /// The images nearest to the caption, best first.
    #[serde(default = "Vec::new", alias = "pictures")]
    pub images: Vec<Answer<I>>,
}

/// One of the nearest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer<T> {
    /// A text or an image.
    pub what: T,
    /// Cosine.
    pub similarity: f32,
    /// True if it belongs to the image or caption that was asked about.
    pub right: bool,
}

impl<I> Example<I> {
    /// The same with every image in another form.
    ///
    /// # Errors
    /// The first of `convert`.
    pub fn try_map<J, E>(self, mut convert: impl FnMut(I) -> Result<J, E>) -> Result<Example<J>, E> {
        let image = convert(self.image)?;
        let answer =
            |Answer { what, similarity, right }| convert(what).map(|what| Answer { what, similarity, right });
        let images = self.images.into_iter().map(answer).collect::<Result<_, E>>()?;
        Ok(Example { image, caption: self.caption, texts: self.texts, images })
    }
}

impl Examples {
    /// Writes them as JSON; the folder is created where needed.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, path: &Path) -> Result<(), RecordError> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(RecordError::io("create", folder))?;
        }
        let text = serde_json::to_vec(self).map_err(|source| content(path, source))?;
        whole_file::replace(path, &text).map_err(RecordError::io("write", path))
    }

    /// Those of a folder, in the order of stages; none where there is no folder.
    ///
    /// # Errors
    /// A file cannot be read, or holds something else.
    pub fn read_all(folder: &Path) -> Result<Vec<Examples>, RecordError> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(RecordError::io("list", folder)(error)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(RecordError::io("list", folder))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                paths.push(path);
            }
        }
        paths.sort();
        let mut all: Vec<Examples> = Vec::new();
        for path in paths {
            let Some(text) = read_if_there(&path)? else { continue };
            all.push(serde_json::from_slice(&text).map_err(|source| content(&path, source))?);
        }
        all.sort_by_key(|examples| examples.stage);
        Ok(all)
    }
}

fn content(path: &Path, source: serde_json::Error) -> RecordError {
    RecordError::Content {
        path: path.to_path_buf(),
        expected: "list of examples that an evaluation writes",
        advice: "Put it back, or delete it: the report is made without it then",
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer<T>(what: T) -> Answer<T> {
        Answer { what, similarity: 0.5, right: true }
    }

    #[test]
    fn examples_of_earlier_versions_are_read() {
        let there = tempfile::tempdir().unwrap();
        let path = there.path().join("stage1-0.json");
        let before = r#"{"stage":1,"kind":"retrieval","dataset":"held out","task":"",
            "examples":[{"picture":"data:image/png;base64,AA==","caption":"a red circle",
                "texts":[{"what":"a red circle","similarity":0.5,"right":true}],
                "pictures":[{"what":"data:image/png;base64,BB==","similarity":0.5,"right":true}]}]}"#;
        fs::write(&path, before).unwrap();
        let read = Examples::read_all(there.path()).unwrap();
        let example = Example {
            image: "data:image/png;base64,AA==".to_owned(),
            caption: "a red circle".into(),
            texts: vec![answer("a red circle".to_owned())],
            images: vec![answer("data:image/png;base64,BB==".to_owned())],
        };
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].examples, [example]);
        // Written again, it is read again.
        read[0].write(&path).unwrap();
        assert_eq!(Examples::read_all(there.path()).unwrap(), read);
        fs::write(&path, "{}").unwrap();
        let message = Examples::read_all(there.path()).unwrap_err().to_string();
        assert!(message.contains("stage1-0.json is not the list of examples"), "{message}");
    }

    #[test]
    fn images_are_converted_and_the_rest_stays() {
        let example = Example { image: 1, caption: "c".into(), texts: Vec::new(), images: vec![answer(2)] };
        let doubled: Example<String> = example.try_map(|n| Ok::<_, ()>((2 * n).to_string())).unwrap();
        assert_eq!((doubled.image.as_str(), doubled.images[0].what.as_str()), ("2", "4"));
        assert!(doubled.try_map(|n| if n == "4" { Err(()) } else { Ok(n) }).is_err());
    }
}
