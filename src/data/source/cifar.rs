//! CIFAR-10 and CIFAR-100 as their authors publish them: binary files of labels and 32 x 32 images.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::source::permutation::Permutations;
use crate::data::source::{Order, Source, Ticket};
use crate::data::storage::disk::OpenFile;
use crate::data::storage::{Location, StorageError};
use crate::data::text::text_file;
use crate::data::{Cause, Defect, Image, LoadError, Raw};
use crate::data::{Cursor, DataError, Storage};

/// Side of an image, pixels.
const SIDE: usize = 32;
/// Bytes of an image: a plane of red, one of green, one of blue.
const IMAGE: u64 = 3 * (SIDE * SIDE) as u64;

/// CIFAR-10 or CIFAR-100, the "binary version", unpacked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CifarConfig {
    /// The folder of the `.bin` files: `cifar-10-batches-bin` or `cifar-100-binary`.
    pub path: PathBuf,
    /// Training or test images.
    #[serde(default)]
    pub split: CifarSplit,
    /// Of CIFAR-100: whether the labels are its 20 superclasses instead of its 100 classes.
    #[serde(default)]
    pub coarse: bool,
}

/// The part of the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum CifarSplit {
    /// 50,000 images.
    Train,
    /// 10,000 images.
    #[default]
    Test,
}

/// The source. The caption of an image is the name of its class, with `_` read as spaces.
#[derive(Debug)]
pub struct Cifar {
    files: Vec<CifarFile>,
    classes: Vec<String>,
    /// Bytes of labels before an image, and which of them counts.
    labels: (u64, u64),
    permutations: Permutations,
    storage: Arc<Storage>,
}

#[derive(Debug)]
struct CifarFile {
    path: PathBuf,
    file: OpenFile,
    /// Images.
    images: u64,
}

impl Cifar {
    /// Opens the files; no image is read.
    ///
    /// # Errors
    /// A file is missing, or its length is not that of whole records.
    pub fn open(config: &CifarConfig, storage: Arc<Storage>) -> Result<Self, DataError> {
        let folder = &config.path;
        let hundred = folder.join("fine_label_names.txt").exists();
        if config.coarse && !hundred {
            return Err(DataError::Invalid(format!(
                "{}: coarse: there are superclasses in CIFAR-100 alone, whose fine_label_names.txt is not here",
                folder.display()
            )));
        }
        let (names, labels) = match (hundred, config.coarse) {
            (false, _) => ("batches.meta.txt", (1, 0)),
            (true, true) => ("coarse_label_names.txt", (2, 0)),
            (true, false) => ("fine_label_names.txt", (2, 1)),
        };
        let batches: Vec<String> = match (hundred, config.split) {
            (false, CifarSplit::Train) => (1..=5).map(|i| format!("data_batch_{i}.bin")).collect(),
            (false, CifarSplit::Test) => vec!["test_batch.bin".into()],
            (true, CifarSplit::Train) => vec!["train.bin".into()],
            (true, CifarSplit::Test) => vec!["test.bin".into()],
        };
        let classes = read_names(&folder.join(names))?;
        let record = labels.0 + IMAGE;
        let files = batches.iter().map(|name| CifarFile::open(&folder.join(name), record));
        let files = files.collect::<Result<_, _>>()?;
        Ok(Cifar { files, classes, labels, permutations: Permutations::default(), storage })
    }

    /// Labels and image as they are stored.
    fn record(&self, file: &CifarFile, number: u64) -> Result<Vec<u8>, DataError> {
        let bytes = self.labels.0 + IMAGE;
        let mut record = vec![0; bytes as usize];
        let location = || Location::File(file.path.clone());
        self.storage.attempts().make(|| {
            file.file.read_exact_at(&mut record, number * bytes).map_err(|source| match source.kind() {
                io::ErrorKind::UnexpectedEof => {
                    StorageError::Changed { location: location(), detail: "it has become shorter".into() }
                }
                _ => StorageError::Io { location: location(), source },
            })
        })?;
        Ok(record)
    }

    /// The file of an image, and its number there.
    fn find(&self, mut image: u64) -> Option<(&CifarFile, u64)> {
        self.files.iter().find_map(|file| match image.checked_sub(file.images) {
            None => Some((file, image)),
            Some(rest) => {
                image = rest;
                None
            }
        })
    }
}

impl CifarFile {
    fn open(path: &Path, record: u64) -> Result<Self, DataError> {
        let failed = |source| DataError::Io { path: path.into(), source };
        let file = OpenFile::open(path).map_err(failed)?;
        let bytes = file.length().map_err(failed)?;
        if bytes == 0 || bytes % record != 0 {
            return Err(DataError::Invalid(format!(
                "{}: expected whole records of {record} bytes, got {bytes} bytes; is the download complete?",
                path.display()
            )));
        }
        Ok(CifarFile { path: path.into(), file, images: bytes / record })
    }
}

fn read_names(path: &Path) -> Result<Vec<String>, DataError> {
    let text = text_file::read(path)?;
    let names: Vec<String> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| line.replace('_', " "))
        .collect();
    match names.is_empty() {
        true => Err(DataError::Invalid(format!("{}: expected the name of a class a line", path.display()))),
        false => Ok(names),
    }
}

impl Source for Cifar {
    fn samples(&self) -> Option<u64> {
        Some(self.files.iter().map(|file| file.images).sum())
    }

    fn files(&self) -> Vec<Location> {
        self.files.iter().map(|file| Location::File(file.path.clone())).collect()
    }

    fn ticket(&self, cursor: Cursor, order: Order) -> Result<Option<Ticket>, DataError> {
        let samples = self.files.iter().map(|file| file.images).sum();
        Ok(self.permutations.ticket(order, cursor, samples))
    }

    fn load(&self, ticket: &Ticket) -> Result<Raw, LoadError> {
        let gone = || DataError::Invalid(format!("image {} of {}", ticket.item.1, self.name()));
        let (file, number) = self.find(ticket.item.1).ok_or_else(gone)?;
        let key = format!("{}/{number}", file.path.file_stem().unwrap_or_default().to_string_lossy());
        let record = self.record(file, number)?;
        let label = usize::from(record[self.labels.1 as usize]);
        let class = self.classes.get(label).ok_or_else(|| {
            let detail = format!("label {label} is none of the {} classes", self.classes.len());
            let defect = Defect::new("label_out_of_range", detail);
            Cause::from(defect).of(|| format!("{}: image {number}", file.path.display()))
        })?;
        let planes = &record[self.labels.0 as usize..];
        let pixels =
            (0..SIDE * SIDE).flat_map(|at| (0..3).map(move |channel| planes[channel * SIDE * SIDE + at]));
        Ok(Raw {
            key,
            image: Image::Rgb { width: SIDE as u32, height: SIDE as u32, pixels: pixels.collect() },
            captions: vec![class.clone()],
            meta: Ok(None),
            label: Some(label as i64),
            label_set: None,
        })
    }

    fn name(&self) -> String {
        self.files.first().map_or_else(String::new, |file| file.path.display().to_string())
    }

    fn classes(&self) -> Vec<String> {
        self.classes.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records whose pixels tell their number and channel.
    fn records(labels: usize, numbers: std::ops::Range<u8>) -> Vec<u8> {
        numbers
            .flat_map(|number| {
                let mut record = vec![number % 4; labels];
                if labels == 2 {
                    record[0] = number % 2;
                }
                (0..3).for_each(|channel| record.extend(vec![10 * number + channel; SIDE * SIDE]));
                record
            })
            .collect()
    }

    fn config(path: &Path, split: CifarSplit, coarse: bool) -> CifarConfig {
        CifarConfig { path: path.into(), split, coarse }
    }

    fn all(source: &Cifar) -> Vec<Raw> {
        let mut cursor = Cursor::default();
        let mut raws = Vec::new();
        while let Some(ticket) = source.ticket(cursor, Order::Stored).unwrap() {
            raws.push(source.load(&ticket).unwrap());
            cursor = ticket.after;
        }
        raws
    }

    #[test]
    fn ten_classes_in_five_batches() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        write("batches.meta.txt", b"airplane\nautomobile\nbird\nsea_horse\n\n");
        for file in 1..=5 {
            write(&format!("data_batch_{file}.bin"), &records(1, 3 * file - 3..3 * file));
        }
        let source = Cifar::open(&config(folder.path(), CifarSplit::Train, false), Arc::default()).unwrap();
        assert_eq!(source.classes()[3], "sea horse");
        let raws = all(&source);
        assert_eq!(raws.len(), 15);
        assert_eq!((raws[7].key.as_str(), raws[7].label), ("data_batch_3/1", Some(3)));
        assert_eq!(raws[7].captions, ["sea horse"]);
        let Image::Rgb { width: 32, height: 32, pixels } = &raws[7].image else { panic!() };
        assert_eq!(pixels[..6], [70, 71, 72, 70, 71, 72]);
        let absent = Cifar::open(&config(folder.path(), CifarSplit::Test, false), Arc::default())
            .unwrap_err()
            .to_string();
        assert!(absent.contains("test_batch.bin: No such file"), "{absent}");
        write("test_batch.bin", &records(1, 0..2)[1..]);
        let short = Cifar::open(&config(folder.path(), CifarSplit::Test, false), Arc::default())
            .unwrap_err()
            .to_string();
        assert!(short.contains("whole records of 3073 bytes, got 6145 bytes"), "{short}");
        let coarse = Cifar::open(&config(folder.path(), CifarSplit::Train, true), Arc::default())
            .unwrap_err()
            .to_string();
        assert!(coarse.contains("CIFAR-100 alone"), "{coarse}");
    }

    #[test]
    fn a_hundred_classes_have_two_labels() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        write("fine_label_names.txt", b"a\nb\nc\n");
        write("coarse_label_names.txt", b"x\ny\n");
        write("test.bin", &records(2, 0..4));
        let labels = |coarse| {
            let source =
                Cifar::open(&config(folder.path(), CifarSplit::Test, coarse), Arc::default()).unwrap();
            let mut found = Vec::new();
            for position in 0..4 {
                let cursor = Cursor { position, ..Cursor::default() };
                let ticket = source.ticket(cursor, Order::Stored).unwrap().unwrap();
                let loaded = source.load(&ticket);
                let told = |error: LoadError| error.to_string();
                found.push(loaded.map(|raw| raw.label.unwrap()).map_err(told));
            }
            found
        };
        assert_eq!(labels(true), [Ok(0), Ok(1), Ok(0), Ok(1)]);
        let fine = labels(false);
        assert_eq!(fine[..3], [Ok(0), Ok(1), Ok(2)]);
        let error = fine[3].clone().unwrap_err();
        assert!(error.contains("test.bin: image 3") && error.contains("label 3 is none of the 3"), "{error}");
    }
}
