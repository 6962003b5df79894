//! A folder as CLIP_benchmark's webdataset exporter writes it, for evaluation:
//!
//! ```text
//! classnames.txt                             one class a line, by label
//! zeroshot_classification_templates.txt      one prompt a line, {c} where the class name goes
//! dataset_type.txt                           classification, multilabel or retrieval
//! test/nshards.txt                           how many shards there are
//! test/0.tar, test/1.tar, ...                KEY.webp (or png, jpg), KEY.cls; for retrieval KEY.txt, a caption a line;
//!                                            of an image of several classes KEY.npy, a number a class
//! ```
//!
//! The two lists are there for classification alone. The folder may be behind a URL; of a data set of the Hugging Face hub
//! `.../tree/main` is read as `.../resolve/main`.

use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::source::webdataset::WebDataset;
use crate::data::source::{Indexed, Order, Source, Ticket};
use crate::data::storage::{Location, Progress, Storage, StorageError};
use crate::data::text::text_file;
use crate::data::{CaptionUse, Cursor, DataError, WebDatasetConfig};
use crate::data::{LoadError, Raw};

/// A folder of CLIP_benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClipBenchmarkConfig {
    /// The folder with `classnames.txt` and a sub-folder a split, or the URL of one.
    pub path: PathBuf,
    /// The sub-folder with the shards.
    #[serde(default = "split")]
    pub split: String,
}

fn split() -> String {
    "test".into()
}

impl ClipBenchmarkConfig {
    /// The split of images that are classified, `test`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        ClipBenchmarkConfig { path: path.into(), split: split() }
    }

    /// Task of the folder.
    ///
    /// # Errors
    /// `dataset_type.txt` says something else, or cannot be read.
    pub fn kind(&self, storage: &Storage) -> Result<Kind, DataError> {
        Folder::new(self, storage).kind()
    }

    /// The number of shards of the split; none where nobody says.
    ///
    /// # Errors
    /// `nshards.txt` holds no number, or cannot be read.
    pub fn shards(&self, storage: &Storage) -> Result<Option<u64>, DataError> {
        Folder::new(self, storage).shards(&self.split)
    }
}

/// Task of a folder of CLIP_benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An image has a class.
    Classification,
    /// An image has several classes, or none.
    MultiLabel,
    /// An image has captions.
    Retrieval,
}

/// Longest list that is read, bytes.
const LONGEST_LIST: u64 = 16 << 20;

/// The folder's own files, wherever they are.
pub(crate) struct Folder<'a> {
    root: String,
    storage: &'a Storage,
}

impl<'a> Folder<'a> {
    pub fn new(config: &ClipBenchmarkConfig, storage: &'a Storage) -> Self {
        let root = config.path.display().to_string();
        let root = root.trim_end_matches('/');
        // A page of the hub, and the files behind it.
        let root = match root.contains("huggingface.co/datasets/") {
            true => root.replacen("/tree/", "/resolve/", 1),
            false => root.to_owned(),
        };
        Folder { root, storage }
    }

    /// Path or URL of a file of the folder.
    fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.root)
    }

    /// What it is about.
    ///
    /// # Errors
    /// `dataset_type.txt` says something else, or cannot be read.
    pub fn kind(&self) -> Result<Kind, DataError> {
        let name = "dataset_type.txt";
        match self.text(name)?.unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "" | "classification" => Ok(Kind::Classification),
            "multilabel" => Ok(Kind::MultiLabel),
            "retrieval" => Ok(Kind::Retrieval),
            other => Err(DataError::Invalid(format!(
                "{}: {other:?}; expected classification, multilabel or retrieval",
                self.file(name)
            ))),
        }
    }

    /// The number of shards of a split; none where nobody says.
    ///
    /// # Errors
    /// `nshards.txt` holds no number, or cannot be read.
    pub fn shards(&self, split: &str) -> Result<Option<u64>, DataError> {
        let name = format!("{split}/nshards.txt");
        let Some(text) = self.text(&name)? else { return Ok(None) };
        let wrong =
            || DataError::Invalid(format!("{}: expected a number of shards, got {text:?}", self.file(&name)));
        text.trim().parse().map(Some).map_err(|_| wrong())
    }

    /// The lines of a file, without blank ones at its end; none where there is no file.
    fn lines(&self, name: &str) -> Result<Vec<String>, DataError> {
        let text = self.text(name)?.unwrap_or_default();
        let lines: Vec<String> = text.trim_end().lines().map(|line| line.trim().to_owned()).collect();
        match lines.iter().position(String::is_empty) {
            None => Ok(lines),
            Some(at) => Err(DataError::Invalid(format!(
                "{}: line {} is blank; expected one entry a line",
                self.file(name),
                at + 1
            ))),
        }
    }

    fn text(&self, name: &str) -> Result<Option<String>, DataError> {
        let file = self.file(name);
        let location = Location::parse(&file).map_err(DataError::Invalid)?;
        let Location::File(path) = &location else {
            let bytes = match self.storage.read(&location, LONGEST_LIST, || false) {
                Err(StorageError::Absent { .. }) => return Ok(None),
                bytes => bytes?,
            };
            return text_file::text(&bytes, &location).map(Some);
        };
        match text_file::read(path) {
            Ok(text) => Ok(Some(text)),
            Err(DataError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The source. A sample without a caption gets the name of its class for one.
pub struct ClipBenchmark {
    shards: WebDataset,
    kind: Kind,
    classes: Vec<String>,
    templates: Vec<String>,
}

impl ClipBenchmark {
    /// Reads the lists and finds the shards.
    ///
    /// # Errors
    /// There is no shard, or fewer than `nshards.txt` says.
    pub fn open(config: &ClipBenchmarkConfig, storage: Arc<Storage>) -> Result<Self, DataError> {
        let folder = Folder::new(config, &storage);
        let split = &config.split;
        let pattern = match folder.shards(split)? {
            Some(0) | None if folder.root.contains("://") => {
                return Err(DataError::Invalid(format!(
                    "{}: not there; expected the number of shards, as CLIP_benchmark's folders have it",
                    folder.file(&format!("{split}/nshards.txt"))
                )))
            }
            Some(0) | None => folder.file(&format!("{split}/*.tar")),
            Some(shards) => {
                let shard = |shard: u64| folder.file(&format!("{split}/{shard}.tar"));
                let absent = |path: &String| !path.contains("://") && !std::path::Path::new(path).exists();
                if let Some(path) = (0..shards).map(shard).find(absent) {
                    return Err(DataError::Invalid(format!(
                        "{path} is missing; {} says that there are {shards} shards. Download the rest of the data",
                        folder.file(&format!("{split}/nshards.txt"))
                    )));
                }
                match shards {
                    1 => shard(0),
                    shards => folder.file(&format!("{split}/{{0..{}}}.tar", shards - 1)),
                }
            }
        };
        let kind = folder.kind()?;
        let classes = folder.lines("classnames.txt")?;
        let templates = folder
            .lines("zeroshot_classification_templates.txt")?
            .into_iter()
            .map(|template| template.replace("{c}", "{}"))
            .collect();
        let shards = WebDataset::open_in(&WebDatasetConfig::new(pattern.as_str()), storage.clone())?;
        Ok(ClipBenchmark { shards: shards.captions(CaptionUse::Optional), kind, classes, templates })
    }

    /// The same folder, of which captions are not read where they are not needed.
    pub fn captions(self, captions: CaptionUse) -> Self {
        match captions {
            CaptionUse::Unused => ClipBenchmark { shards: self.shards.captions(captions), ..self },
            // Classes have captions all the same.
            CaptionUse::Needed | CaptionUse::Optional => self,
        }
    }
}

impl Source for ClipBenchmark {
    fn samples(&self) -> Option<u64> {
        self.shards.samples()
    }

    fn files(&self) -> Vec<Location> {
        self.shards.files()
    }

    fn takes_turns(&self) -> bool {
        self.shards.takes_turns()
    }

    fn indexed(&self) -> Vec<&dyn Indexed> {
        self.shards.indexed()
    }

    fn ticket(&self, cursor: Cursor, order: Order) -> Result<Option<Ticket>, DataError> {
        self.shards.ticket(cursor, order)
    }

    fn load(&self, ticket: &Ticket) -> Result<Raw, LoadError> {
        let mut raw = self.shards.load(ticket)?;
        if self.kind == Kind::MultiLabel {
            raw.label_set = Some(self.shards.load_label_set(ticket)?);
        }
        if raw.captions.is_empty() {
            let label = raw.label.and_then(|label| usize::try_from(label).ok());
            let class = label.and_then(|label| self.classes.get(label));
            raw.captions.push(class.cloned().unwrap_or_default());
        }
        Ok(raw)
    }

    fn name(&self) -> String {
        self.shards.name()
    }

    fn sample_name(&self, ticket: &Ticket, key: &str) -> String {
        self.shards.sample_name(ticket, key)
    }

    fn shards(&self) -> Vec<String> {
        self.shards.shards()
    }

    fn shard_of(&self, ticket: &Ticket) -> Option<String> {
        self.shards.shard_of(ticket)
    }

    fn occurrence(&self, ticket: &Ticket) -> u32 {
        self.shards.occurrence(ticket)
    }

    fn max_pixels(&self) -> u64 {
        self.shards.max_pixels()
    }

    fn progress(&self) -> Option<Arc<Progress>> {
        self.shards.progress()
    }

    fn classes(&self) -> Vec<String> {
        self.classes.clone()
    }

    fn templates(&self) -> Vec<String> {
        self.templates.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)], shards: &[(&str, &[(&str, &str)])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("test")).unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        for (name, members) in shards {
            let mut builder = tar::Builder::new(std::fs::File::create(folder.path().join(name)).unwrap());
            for (member, text) in *members {
                let mut header = tar::Header::new_ustar();
                header.set_size(text.len() as u64);
                builder.append_data(&mut header, member, text.as_bytes()).unwrap();
            }
            builder.finish().unwrap();
        }
        folder
    }

    fn open(folder: &tempfile::TempDir) -> Result<ClipBenchmark, DataError> {
        ClipBenchmark::open(
            &ClipBenchmarkConfig { path: folder.path().into(), split: split() },
            Arc::default(),
        )
    }

    fn samples(source: &ClipBenchmark) -> Vec<(Option<i64>, Vec<String>)> {
        let (mut cursor, mut all) = (Cursor::default(), Vec::new());
        while let Some(ticket) = source.ticket(cursor, Order::Stored).unwrap() {
            let raw = source.load(&ticket).unwrap();
            all.push((raw.label, raw.captions));
            cursor = ticket.after;
        }
        all
    }

    #[test]
    fn a_folder_knows_classes_templates_and_labels() {
        let folder = folder(
            &[
                ("classnames.txt", "\u{feff}cat\r\ngreat white shark\r\n"),
                ("zeroshot_classification_templates.txt", "\u{feff}a photo of a {c}.\nthe {c}.\n\n"),
                ("test/nshards.txt", "2\n"),
            ],
            &[
                ("test/0.tar", &[("s0.cls", "1"), ("s0.webp", "x"), ("s1.cls", "0\n"), ("s1.webp", "y")]),
                ("test/1.tar", &[("s2.webp", "z"), ("s2.cls", "7")]),
            ],
        );
        let source = open(&folder).unwrap();
        assert_eq!(source.classes(), ["cat", "great white shark"]);
        assert_eq!(source.templates(), ["a photo of a {}.", "the {}."]);
        let expected = [
            (Some(1), vec!["great white shark".to_owned()]),
            (Some(0), vec!["cat".to_owned()]),
            (Some(7), vec![String::new()]),
        ];
        assert_eq!(samples(&source), expected);
    }

    #[test]
    fn retrieval_shards_have_captions_and_no_classes() {
        let folder = folder(&[], &[("test/0.tar", &[("s0.jpg", "x"), ("s0.txt", "a cat\na grey cat\n")])]);
        let source = open(&folder).unwrap();
        assert!(source.classes().is_empty() && source.templates().is_empty());
        assert_eq!(samples(&source), [(None, vec!["a cat\na grey cat".to_owned()])]);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let message = |folder: &tempfile::TempDir| open(folder).err().expect("refused").to_string();
        let few = folder(&[("test/nshards.txt", "3")], &[("test/0.tar", &[]), ("test/2.tar", &[])]);
        assert!(
            message(&few).contains("1.tar is missing") && message(&few).contains("3 shards"),
            "{}",
            message(&few)
        );
        let odd = folder(&[("test/nshards.txt", "three")], &[("test/0.tar", &[])]);
        assert!(message(&odd).contains("nshards.txt: expected a number of shards, got \"three\""));
        let none = folder(&[], &[]);
        assert!(message(&none).contains("*.tar matches no shard"), "{}", message(&none));
        let gap = folder(&[("classnames.txt", "cat\n\ndog\n")], &[("test/0.tar", &[])]);
        assert!(message(&gap).contains("classnames.txt: line 2 is blank"), "{}", message(&gap));
    }
}
