//! Images as they lie in a folder, each beside a text file of the same name.

use std::collections::BTreeMap;
use std::fs::{self, FileType};
use std::path::{Path, PathBuf};

use super::pack::IMAGES;
use crate::command::Failure;
use crate::data::Defect;

/// An image and what lies beside it.
#[derive(Debug)]
pub(super) struct Loose {
    pub image: PathBuf,
    pub caption: PathBuf,
    pub meta: Option<PathBuf>,
}

/// Content of a folder and those below it.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// By the path of the image.
    pub pairs: Vec<Loose>,
    /// Images without a caption, captions without an image, links that are not followed.
    pub left_out: Vec<(PathBuf, Defect)>,
    /// Files of other kinds, by their ending.
    pub others: BTreeMap<String, u64>,
}

/// Searches a folder and those below it; hidden files and folders (`.git`, macOS's `._a.jpg`) are passed over. A link
/// is followed to a file inside of the folder and nowhere else.
pub(super) fn search(root: &Path) -> Result<Found, Failure> {
    let whole = root.canonicalize().map_err(|error| failed(root, error))?;
    let (mut found, mut open) = (Found::default(), vec![root.to_owned()]);
    while let Some(folder) = open.pop() {
        let mut here = Folder::default();
        for entry in fs::read_dir(&folder).map_err(|error| failed(&folder, error))? {
            let entry = entry.map_err(|error| failed(&folder, error))?;
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            let kind = entry.file_type().map_err(|error| failed(&path, error))?;
            if kind.is_dir() {
                open.push(path);
            } else {
                match check(&path, kind, &whole) {
                    Ok(()) => here.take(path, &mut found.others),
                    Err(defect) => found.left_out.push((path, defect)),
                }
            }
        }
        here.pair(&mut found);
    }
    found.pairs.sort_by(|a, b| a.image.cmp(&b.image));
    found.left_out.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// True if this is a file of the folder.
fn check(path: &Path, kind: FileType, whole: &Path) -> Result<(), Defect> {
    if kind.is_file() {
        return Ok(());
    }
    if !kind.is_symlink() {
        return Err(Defect::new("no_file", "a pipe, socket or device"));
    }
    match path.canonicalize() {
        Err(error) => Err(Defect::new("link_broken", error.to_string())),
        Ok(target) if !target.starts_with(whole) => {
            Err(Defect::new("link_outside", "a link that leads out of the folder; give its target instead"))
        }
        Ok(target) if target.is_file() => Ok(()),
        // It may lead in a circle, and what it leads to is in the folder anyway.
        Ok(_) => Err(Defect::new("link_to_folder", "links to folders are not followed")),
    }
}

/// The files of one folder.
#[derive(Default)]
struct Folder {
    images: Vec<PathBuf>,
    /// By path without ending.
    captions: BTreeMap<PathBuf, PathBuf>,
    metas: BTreeMap<PathBuf, PathBuf>,
}

impl Folder {
    fn take(&mut self, path: PathBuf, others: &mut BTreeMap<String, u64>) {
        let beside = match ending(&path).as_str() {
            image if IMAGES.contains(&image) => return self.images.push(path),
            "txt" => &mut self.captions,
            "json" => &mut self.metas,
            other => return *others.entry(other.to_owned()).or_default() += 1,
        };
        let lower = path.extension().is_some_and(|ending| ending == "txt" || ending == "json");
        let stem = path.with_extension("");
        // Of `a.txt` and `a.TXT` the former.
        if lower || !beside.contains_key(&stem) {
            beside.insert(stem, path);
        }
    }

    fn pair(self, found: &mut Found) {
        let Folder { images, mut captions, metas } = self;
        let mut used = Vec::new();
        for image in images {
            let stem = image.with_extension("");
            match captions.get(&stem) {
                Some(caption) => {
                    let (caption, meta) = (caption.clone(), metas.get(&stem).cloned());
                    used.push(stem);
                    found.pairs.push(Loose { image, caption, meta });
                }
                None => {
                    let defect = Defect::new("caption_missing", "no .txt of its name beside it");
                    found.left_out.push((image, defect));
                }
            }
        }
        for stem in used {
            captions.remove(&stem);
        }
        let alone = captions.into_values();
        found.left_out.extend(
            alone.map(|caption| (caption, Defect::new("image_missing", "no image of its name beside it"))),
        );
    }
}

/// Ending of a file's name, in lower case.
pub(super) fn ending(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

pub(super) fn failed(path: &Path, error: std::io::Error) -> Failure {
    Failure::Usage(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn images_are_paired_and_the_rest_is_named() {
        let disk = tempfile::tempdir().unwrap();
        let root = disk.path().join("root");
        for name in [
            "root/a.jpg",
            "root/a.txt",
            "root/._a.jpg",
            "root/._a.txt",
            "root/c.jpeg",
            "root/c.TXT",
            "root/c.Json",
            "root/d.png",
            "root/e.txt",
            "root/f.heic",
            "root/.git/g.jpg",
            "root/.git/g.txt",
            "root/sub/h.JPG",
            "root/sub/h.txt",
            "secret/s.jpg",
            "secret/s.txt",
        ] {
            let path = disk.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        symlink(disk.path().join("secret/s.jpg"), root.join("s.jpg")).unwrap();
        symlink(disk.path().join("secret/s.txt"), root.join("d.txt")).unwrap();
        symlink(disk.path().join("secret"), root.join("out")).unwrap();
        symlink(root.join("sub"), root.join("again")).unwrap();
        symlink(root.join("nowhere"), root.join("b.jpg")).unwrap();
        symlink("a.jpg", root.join("i.jpg")).unwrap();
        symlink("a.txt", root.join("i.txt")).unwrap();
        let found = search(&root).unwrap();
        let name = |path: &Path| path.strip_prefix(&root).unwrap().display().to_string();
        let pairs: Vec<_> = found
            .pairs
            .iter()
            .map(|pair| (name(&pair.image), name(&pair.caption), pair.meta.as_deref().map(name)))
            .collect();
        let expected = [
            ("a.jpg", "a.txt", None),
            ("c.jpeg", "c.TXT", Some("c.Json")),
            ("i.jpg", "i.txt", None),
            ("sub/h.JPG", "sub/h.txt", None),
        ];
        let expected = expected
            .map(|(image, caption, meta)| (image.to_owned(), caption.to_owned(), meta.map(str::to_owned)));
        assert_eq!(pairs, expected);
        let left_out: Vec<_> =
            found.left_out.iter().map(|(path, defect)| (name(path), defect.reason)).collect();
        let expected = [
            ("again", "link_to_folder"),
            ("b.jpg", "link_broken"),
            ("d.png", "caption_missing"),
            ("d.txt", "link_outside"),
            ("e.txt", "image_missing"),
            ("out", "link_outside"),
            ("s.jpg", "link_outside"),
        ];
        assert_eq!(left_out, expected.map(|(name, reason)| (name.to_owned(), reason)));
        assert_eq!(found.others, BTreeMap::from([("heic".to_owned(), 1)]));
    }
}
