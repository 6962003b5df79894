//! A folder with one sub-folder a class, images inside: for evaluation.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::source::permutation::Permutations;
use crate::data::source::{Order, Source, Ticket};
use crate::data::storage::disk::look;
use crate::data::storage::Location;
use crate::data::{Cursor, DataError, Storage};
use crate::data::{LoadError, Raw};

/// A folder with one sub-folder a class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FolderConfig {
    /// The folder.
    pub path: PathBuf,
}

/// Files that are taken for images; others are passed over.
const EXTENSIONS: [&str; 6] = ["jpg", "jpeg", "png", "webp", "gif", "bmp"];

/// The source. Classes are the sub-folders sorted by name, or as numbers where they are the numbers from 0 on
/// without a gap; the caption of an image is the name of its
/// class, with `_` and `-` read as spaces. A sub-folder without images is a class all the same.
#[derive(Debug)]
pub struct Folder {
    /// By label.
    classes: Vec<String>,
    /// Sorted by class, then by file name: (label, file).
    images: Vec<(usize, PathBuf)>,
    permutations: Permutations,
    storage: Arc<Storage>,
}

impl Folder {
    /// Lists the folder; no image is opened.
    pub fn open(config: &FolderConfig, storage: Arc<Storage>) -> Result<Self, DataError> {
        let folder = &config.path;
        let mut sub_folders = folders(folder)?;
        sort_numbered(&mut sub_folders);
        let mut images = Vec::new();
        for (label, sub_folder) in sub_folders.iter().enumerate() {
            images.extend(self::images(sub_folder)?.into_iter().map(|file| (label, file)));
        }
        if images.is_empty() {
            let found = match sub_folders.len() {
                0 => "no sub-folder".to_owned(),
                classes => format!("{classes} sub-folders without an image"),
            };
            return Err(DataError::Invalid(format!(
                "{}: found {found}; expected one sub-folder a class, with {} files inside",
                folder.display(),
                EXTENSIONS.join(", ")
            )));
        }
        let classes = sub_folders.iter().map(|path| name(path).replace(['_', '-'], " ")).collect();
        Ok(Folder { classes, images, permutations: Permutations::default(), storage })
    }
}

impl Source for Folder {
    fn samples(&self) -> Option<u64> {
        Some(self.images.len() as u64)
    }

    fn files(&self) -> Vec<Location> {
        self.images.iter().map(|(_, path)| Location::File(path.clone())).collect()
    }

    fn ticket(&self, cursor: Cursor, order: Order) -> Result<Option<Ticket>, DataError> {
        Ok(self.permutations.ticket(order, cursor, self.images.len() as u64))
    }

    fn load(&self, ticket: &Ticket) -> Result<Raw, LoadError> {
        let (label, path) = &self.images[ticket.item.1 as usize];
        Ok(Raw {
            key: path.display().to_string(),
            image: self.storage.image(path)?,
            captions: vec![self.classes[*label].clone()],
            meta: Ok(None),
            label: Some(*label as i64),
            label_set: None,
        })
    }

    fn classes(&self) -> Vec<String> {
        self.classes.clone()
    }
}

/// Sorts folders whose names are the numbers from 0 on as numbers: sorted by name, 10 would be class 2.
fn sort_numbered(folders: &mut [PathBuf]) {
    let numbers: Vec<u64> = folders.iter().filter_map(|path| number(&name(path))).collect();
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    if numbers.len() == folders.len() && sorted.iter().zip(0..).all(|(&number, at)| number == at) {
        folders.sort_by_key(|path| number(&name(path)));
    }
}

/// The number that a name is, written with digits alone.
fn number(name: &str) -> Option<u64> {
    name.bytes().all(|byte| byte.is_ascii_digit()).then(|| name.parse().ok())?
}

/// Entries of a folder, sorted by name; hidden ones are left out.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let failed = |source| DataError::Io { path: folder.into(), source };
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if !name(&path).starts_with('.') {
            entries.push(path);
        }
    }
    entries.sort();
    Ok(entries)
}

pub(crate) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The folders in a folder, sorted by name.
pub(crate) fn folders(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    such(list(folder)?, fs::Metadata::is_dir)
}

/// The images in a folder, sorted by name.
pub(crate) fn images(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let named_so = |path: &PathBuf| {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        EXTENSIONS.contains(&extension.as_str())
    };
    such(list(folder)?.into_iter().filter(named_so).collect(), fs::Metadata::is_file)
}

/// Those of this kind. One that cannot be looked at is an error: left out, it would change the set.
fn such(paths: Vec<PathBuf>, kind: fn(&fs::Metadata) -> bool) -> Result<Vec<PathBuf>, DataError> {
    let mut such = Vec::new();
    for path in paths {
        match look(&path) {
            Ok(there) if there.as_ref().is_some_and(kind) => such.push(path),
            Ok(_) => {}
            Err(source) => return Err(DataError::Io { path, source }),
        }
    }
    Ok(such)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Image;

    /// A storage that asks once.
    fn quick() -> Arc<Storage> {
        let attempts = std::num::NonZeroU64::MIN;
        Arc::new(Storage::new(&crate::data::StorageConfig { attempts, ..Default::default() }))
    }

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("created");
            fs::write(path, file).expect("written");
        }
        folder
    }

    fn open(path: &Path) -> Result<Folder, DataError> {
        Folder::open(&FolderConfig { path: path.into() }, quick())
    }

    #[test]
    fn classes_and_images_come_sorted_with_labels_and_captions() {
        let folder = folder(&[
            "great_white-shark/b.JPG",
            "great_white-shark/a.png",
            "great_white-shark/notes.txt",
            "cat/1.webp",
            "cat/.hidden.png",
            "README.md",
            ".cache/x.png",
        ]);
        fs::create_dir(folder.path().join("dog")).expect("created");
        let source = open(folder.path()).expect("a folder of classes");
        assert_eq!(source.classes(), ["cat", "dog", "great white shark"]);
        assert_eq!(source.samples(), Some(3));
        let mut cursor = Cursor::default();
        let mut seen = Vec::new();
        while let Some(ticket) = source.ticket(cursor, Order::Stored).expect("a ticket") {
            let raw = source.load(&ticket).expect("an image");
            let Image::Encoded(bytes) = &raw.image else { panic!("expected a file") };
            seen.push((raw.label, raw.captions[0].clone(), String::from_utf8(bytes.clone()).expect("text")));
            cursor = ticket.after;
        }
        let expected = [
            (Some(0), "cat", "cat/1.webp"),
            (Some(2), "great white shark", "great_white-shark/a.png"),
            (Some(2), "great white shark", "great_white-shark/b.JPG"),
        ];
        let expected = expected.map(|(label, caption, file)| (label, caption.to_owned(), file.to_owned()));
        assert_eq!(seen, expected);
        assert_eq!(cursor, Cursor { position: 3, ..Cursor::default() });
    }

    #[test]
    fn folders_that_are_the_numbers_from_0_on_are_classes_in_that_order() {
        let classes = |names: &[String]| {
            let files: Vec<String> = names.iter().map(|name| format!("{name}/a.png")).collect();
            let folder = folder(&files.iter().map(String::as_str).collect::<Vec<_>>());
            open(folder.path()).expect("a folder of classes").classes()
        };
        let twelve: Vec<String> = (0..12).map(|class| class.to_string()).collect();
        assert_eq!(classes(&twelve), twelve);
        // Any others are sorted by name, as torchvision does.
        assert_eq!(classes(&twelve[1..])[..3], ["1", "10", "11"]);
        assert_eq!(classes(&["0".into(), "2".into(), "10".into()]), ["0", "10", "2"]);
        assert_eq!(classes(&["0".into(), "1x".into(), "10".into()]), ["0", "10", "1x"]);
    }

    #[test]
    fn a_missing_folder_and_one_without_images_are_named() {
        let empty = folder(&["readme.txt"]);
        let message = open(empty.path()).expect_err("no classes").to_string();
        assert!(message.contains("found no sub-folder; expected one sub-folder a class"), "{message}");
        let wordy = folder(&["cat/readme.txt"]);
        let message = open(wordy.path()).expect_err("no images").to_string();
        assert!(message.contains("found 1 sub-folders without an image"), "{message}");
        let missing = open(&empty.path().join("none")).expect_err("no folder").to_string();
        assert!(missing.contains("none: "), "{missing}");
    }

    #[test]
    fn an_image_that_vanished_is_an_error_that_names_it() {
        let folder = folder(&["cat/1.png"]);
        let source = open(folder.path()).expect("a folder of classes");
        fs::remove_file(folder.path().join("cat/1.png")).expect("removed");
        let ticket = source.ticket(Cursor::default(), Order::Stored).expect("a ticket").expect("a sample");
        let told = match source.load(&ticket).expect_err("gone") {
            LoadError::Failed(error) => error.to_string(),
            LoadError::Skip(skip) => panic!("{skip:?}"),
        };
        assert!(told.contains("1.png: No such file or directory"), "{told}");
    }
}
