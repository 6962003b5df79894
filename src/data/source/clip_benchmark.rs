//! A folder as CLIP_benchmark's webdataset exporter writes it, for evaluation:
//!
//! ```text
//! classnames.txt                             one class a line, by label
//! zeroshot_classification_templates.txt      one prompt a line, {c} where the class name goes
//! test/nshards.txt                           how many shards there are
//! test/0.tar, test/1.tar, ...                KEY.webp (or png, jpg), KEY.cls; for retrieval KEY.txt, a caption a line
//! ```
//!
//! The two lists are there for classification alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::source::webdataset::WebDataset;
use crate::data::source::{Indexed, Order, Source, Ticket};
use crate::data::storage::{Location, Progress, Storage};
use crate::data::text::text_file;
use crate::data::{CaptionUse, Cursor, DataError, WebDatasetConfig};
use crate::data::{LoadError, Raw};

/// A folder of CLIP_benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClipBenchmarkConfig {
    /// The folder with `classnames.txt` and a sub-folder a split.
    pub path: PathBuf,
    /// The sub-folder with the shards.
    #[serde(default = "split")]
    pub split: String,
}

fn split() -> String {
    "test".into()
}

/// The source. A sample without a caption gets the name of its class for one.
pub struct ClipBenchmark {
    shards: WebDataset,
    classes: Vec<String>,
    templates: Vec<String>,
}

impl ClipBenchmark {
    /// Reads the lists and finds the shards.
    ///
    /// # Errors
    /// There is no shard, or fewer than `nshards.txt` says.
    pub fn open(config: &ClipBenchmarkConfig, storage: Arc<Storage>) -> Result<Self, DataError> {
        let folder = config.path.join(&config.split);
        let pattern = match count(&folder.join("nshards.txt"))? {
            Some(0) | None => folder.join("*.tar"),
            Some(1) => folder.join("0.tar"),
            Some(shards) => {
                let absent =
                    (0..shards).map(|shard| folder.join(format!("{shard}.tar"))).find(|path| !path.exists());
                if let Some(path) = absent {
                    return Err(DataError::Invalid(format!(
                        "{} is missing; {} says that there are {shards} shards. Download the rest of the data",
                        path.display(),
                        folder.join("nshards.txt").display()
                    )));
                }
                folder.join(format!("{{0..{}}}.tar", shards - 1))
            }
        };
        let shards =
            WebDataset::open_in(&WebDatasetConfig::new(pattern.display().to_string().as_str()), storage)?;
        let classes = lines(&config.path.join("classnames.txt"))?;
        let templates = lines(&config.path.join("zeroshot_classification_templates.txt"))?
            .into_iter()
            .map(|template| template.replace("{c}", "{}"))
            .collect();
        Ok(ClipBenchmark { shards: shards.captions(CaptionUse::Optional), classes, templates })
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

/// The number in a file; none where there is no file.
fn count(path: &Path) -> Result<Option<u64>, DataError> {
    let Some(text) = text(path)? else { return Ok(None) };
    let wrong =
        || DataError::Invalid(format!("{}: expected a number of shards, got {text:?}", path.display()));
    text.trim().parse().map(Some).map_err(|_| wrong())
}

/// The lines of a file, without blank ones at its end; none where there is no file.
fn lines(path: &Path) -> Result<Vec<String>, DataError> {
    let text = text(path)?.unwrap_or_default();
    let lines: Vec<String> = text.trim_end().lines().map(|line| line.trim().to_owned()).collect();
    match lines.iter().position(String::is_empty) {
        None => Ok(lines),
        Some(at) => Err(DataError::Invalid(format!(
            "{}: line {} is blank; expected one entry a line",
            path.display(),
            at + 1
        ))),
    }
}

fn text(path: &Path) -> Result<Option<String>, DataError> {
    match text_file::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(DataError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
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
