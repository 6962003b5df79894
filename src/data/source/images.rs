//! Images as a person names them: files, folders of files, or shards.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::data::source::webdataset::{WebDataset, WebDatasetConfig};
use crate::data::source::{pattern, Cursor, Order, Source, Ticket};
use crate::data::storage::{Location, Storage};
use crate::data::text::caption::{self, LONGEST_CAPTION};
use crate::data::text::CaptionUse;
use crate::data::{DataError, LoadError, Raw};

/// Files that are taken for images in a folder; a file that is named is taken for one in any case.
const EXTENSIONS: [&str; 6] = ["jpg", "jpeg", "png", "webp", "gif", "bmp"];
/// Endings of shards.
const SHARDS: [&str; 4] = [".tar", ".tar.gz", ".tgz", ".tar.zst"];

/// Images that were named, in the order given, folders sorted.
pub struct NamedImages {
    /// With captions where there are any: those of shards, and beside an image file those in the text file of its name.
    pub captioned: Arc<dyn Source>,
    /// Without captions.
    pub bare: Arc<dyn Source>,
    /// True if the [`files`](Source::files) of both are shards, false if they are the images themselves.
    pub are_shards: bool,
}

/// Finds what was named: either shards, or images and folders.
///
/// # Errors
/// Something that was named is not there, a folder has no image, or shards are mixed with images.
pub fn open(named: &[String]) -> Result<NamedImages, DataError> {
    let is_shards = |name: &&String| SHARDS.iter().any(|ending| name.ends_with(ending));
    let shards = named.iter().filter(is_shards).count();
    if shards == 0 {
        let mut files = Vec::new();
        for name in named {
            collect(name, &mut files)?;
        }
        let files = Arc::new(files);
        let images =
            |captions| Arc::new(Images { files: files.clone(), captions, storage: Storage::default() });
        let (captioned, bare) = (images(CaptionUse::Optional), images(CaptionUse::Unused));
        return Ok(NamedImages { captioned, bare, are_shards: false });
    }
    if shards < named.len() {
        return Err(DataError::Invalid("--images: give either images and folders, or shards".into()));
    }
    let config = WebDatasetConfig::new(named.to_vec());
    let open = |captions| Ok::<_, DataError>(Arc::new(WebDataset::open(&config)?.captions(captions)));
    Ok(NamedImages {
        captioned: open(CaptionUse::Optional)?,
        bare: open(CaptionUse::Unused)?,
        are_shards: true,
    })
}

/// The images that one name stands for.
fn collect(name: &str, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let path = Path::new(name);
    if path.is_dir() {
        let before = files.len();
        walk(path, files)?;
        return match files.len() - before {
            0 => Err(DataError::Invalid(format!(
                "--images {name}: no {} in this folder or in one below it",
                EXTENSIONS.join(", ")
            ))),
            _ => Ok(()),
        };
    }
    if path.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    let found = pattern::shards(name).map_err(|error| match error {
        DataError::NoShards { .. } => DataError::Invalid(format!("--images {name}: no such file or folder")),
        other => DataError::Invalid(format!("--images {other}")),
    })?;
    files.extend(found);
    Ok(())
}

/// Every image below a folder, sorted by name. Links to folders are not followed: they may lead in a circle.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let failed = |source| DataError::Io { path: folder.into(), source };
    let mut entries = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            entries.insert(entry.path(), entry.file_type().map_err(failed)?);
        }
    }
    for (path, kind) in entries {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        if kind.is_dir() {
            walk(&path, files)?;
        } else if EXTENSIONS.contains(&extension.as_str()) && path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

/// Image files.
#[derive(Debug)]
struct Images {
    files: Arc<Vec<PathBuf>>,
    captions: CaptionUse,
    storage: Storage,
}

impl Images {
    /// The text beside an image; none where it cannot be read.
    fn caption(&self, image: &Path) -> Option<String> {
        if self.captions == CaptionUse::Unused {
            return None;
        }
        let text = Location::File(image.with_extension("txt"));
        let bytes = self.storage.read(&text, LONGEST_CAPTION, || true).ok()?;
        caption::read(&bytes).ok()
    }
}

impl Source for Images {
    fn samples(&self) -> Option<u64> {
        Some(self.files.len() as u64)
    }

    fn files(&self) -> Vec<Location> {
        self.files.iter().cloned().map(Location::File).collect()
    }

    fn ticket(&self, cursor: Cursor, _order: Order) -> Result<Option<Ticket>, DataError> {
        let after = Cursor { position: cursor.position + 1, ..cursor };
        let there = cursor.position < self.files.len() as u64;
        let item = (0, cursor.position);
        Ok(there.then_some(Ticket { epoch: cursor.epoch, index: cursor.position, item, after }))
    }

    fn load(&self, ticket: &Ticket) -> Result<Raw, LoadError> {
        let file = &self.files[ticket.item.1 as usize];
        Ok(Raw {
            key: file.display().to_string(),
            image: self.storage.image(file)?,
            // A loader wants a caption, if only an empty one.
            captions: vec![self.caption(file).unwrap_or_default()],
            meta: Ok(None),
            label: None,
            label_set: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_folders_and_patterns_are_images() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["b/2.PNG", "b/1.jpg", "b/notes.txt", "b/.hidden.jpg", "a.webp"] {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file).unwrap();
        }
        let name = |name: &str| folder.path().join(name).display().to_string();
        let keys = |named: &[String]| -> Vec<String> {
            let source = open(named).unwrap().bare;
            let mut cursor = Cursor::default();
            let mut keys = Vec::new();
            while let Some(ticket) = source.ticket(cursor, Order::Stored).unwrap() {
                let key = source.load(&ticket).unwrap().key;
                keys.push(key.rsplit('/').next().unwrap().to_string());
                cursor = ticket.after;
            }
            keys
        };
        assert_eq!(keys(&[name("a.webp"), name("b")]), ["a.webp", "1.jpg", "2.PNG"]);
        assert_eq!(keys(&[name("b/*.jpg")]), ["1.jpg"]);
        assert_eq!(keys(&[name("b/notes.txt")]), ["notes.txt"]);
        for wrong in [vec![name("none.jpg")], vec![name("a.webp"), "x.tar".into()]] {
            assert!(matches!(open(&wrong), Err(DataError::Invalid(_))), "{wrong:?}");
        }
    }
}
