//! ImageNet (ILSVRC 2012) as it is found on disks: for evaluation.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::source::folder::{folders, images, name};
use crate::data::source::permutation::Permutations;
use crate::data::source::{Order, Source, Ticket};
use crate::data::storage::Location;
use crate::data::text::text_file;
use crate::data::{Cursor, DataError, Storage};
use crate::data::{LoadError, Raw};

/// Images of ImageNet with their 1,000 classes, which are numbered in the order of their synsets, as
/// everywhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageNetConfig {
    /// A folder with a folder a synset (`n01440764/...`), or of the validation images themselves.
    #[serde(alias = "pictures")]
    #[schemars(extend("formerName" = "pictures"))]
    pub images: PathBuf,
    /// Names of the synsets: `LOC_synset_mapping.txt` or `synset_words.txt` (`n01440764 tench, Tinca tinca`), or
    /// `map_clsloc.txt` of the development kit (`n02119789 1 kit_fox`). The first name of a synset is used.
    pub synsets: PathBuf,
    /// Classes of images that are not in folders of synsets: `LOC_val_solution.csv`, `val.txt` (a file name and a
    /// class or synset a line), or `ILSVRC2012_validation_ground_truth.txt`, which needs `map_clsloc.txt`.
    #[serde(default)]
    pub labels: Option<PathBuf>,
}

/// The source.
#[derive(Debug)]
pub struct ImageNet {
    folder: PathBuf,
    classes: Vec<String>,
    /// (label, file), sorted by file.
    images: Vec<(usize, PathBuf)>,
    permutations: Permutations,
    storage: Arc<Storage>,
}

impl ImageNet {
    /// Lists the images; none is opened.
    ///
    /// # Errors
    /// There are none, one has no class, or a file of names or labels cannot be read.
    pub fn open(config: &ImageNetConfig, storage: Arc<Storage>) -> Result<Self, DataError> {
        let synsets = Synsets::read(&config.synsets)?;
        let folders = folders(&config.images)?;
        let folders: Vec<_> = folders.iter().filter(|path| is_synset(&name(path))).collect();
        let images = if folders.is_empty() {
            labelled(images(&config.images)?, config, &synsets)?
        } else {
            let mut found = Vec::new();
            for folder in folders {
                let label = synsets
                    .label(&name(folder))
                    .map_err(|what| DataError::Invalid(format!("{}: {what}", folder.display())))?;
                found.extend(images(folder)?.into_iter().map(|file| (label, file)));
            }
            found
        };
        if images.is_empty() {
            return Err(DataError::Invalid(format!(
                "{}: found no image; expected folders of synsets like n01440764, or the images",
                config.images.display()
            )));
        }
        let classes = synsets.names;
        Ok(ImageNet {
            folder: config.images.clone(),
            classes,
            images,
            permutations: Permutations::default(),
            storage,
        })
    }
}

/// The classes of images in one folder, from the file of labels.
fn labelled(
    files: Vec<PathBuf>,
    config: &ImageNetConfig,
    synsets: &Synsets,
) -> Result<Vec<(usize, PathBuf)>, DataError> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let Some(path) = &config.labels else {
        return Err(DataError::Invalid(format!(
            "{}: the images are in no folders of synsets; their classes have to come from `labels`",
            config.images.display()
        )));
    };
    let labels = read_labels(path, synsets)?;
    let label = |(number, file): (usize, PathBuf)| {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let label = match &labels {
            Labels::ByName(labels) => labels.get(&stem).copied(),
            Labels::InOrder(labels) => {
                labels.get(validation_number(&stem).unwrap_or(number + 1) - 1).copied()
            }
        };
        match label {
            Some(label) => Ok((label, file)),
            None => Err(DataError::Invalid(format!("{}: no class for {}", path.display(), file.display()))),
        }
    };
    files.into_iter().enumerate().map(label).collect()
}

/// 65 of `ILSVRC2012_val_00000065`; at least 1.
fn validation_number(stem: &str) -> Option<usize> {
    stem.rsplit_once('_')?.1.parse().ok().filter(|&number| number > 0)
}

enum Labels {
    /// By file name without extension.
    ByName(HashMap<String, usize>),
    /// Of the validation images in their order.
    InOrder(Vec<usize>),
}

fn read_labels(path: &Path, synsets: &Synsets) -> Result<Labels, DataError> {
    let mut by_name = HashMap::new();
    let mut in_order = Vec::new();
    for (number, line) in lines(path)? {
        let wrong = |what: String| DataError::Invalid(format!("{}:{number}: {what}", path.display()));
        let mut words = line.split([',', ' ', '\t']).filter(|word| !word.is_empty());
        match (words.next(), words.next()) {
            // The header of LOC_val_solution.csv.
            (Some("ImageId"), _) => {}
            (Some(id), None) => in_order.push(synsets.label_of_id(id).map_err(wrong)?),
            (Some(file), Some(class)) => {
                let stem = Path::new(file).file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let label =
                    if is_synset(class) { synsets.label(class) } else { synsets.label_of_number(class) };
                by_name.insert(stem, label.map_err(wrong)?);
            }
            (None, _) => {}
        }
    }
    Ok(if by_name.is_empty() { Labels::InOrder(in_order) } else { Labels::ByName(by_name) })
}

/// Synsets in order.
struct Synsets {
    labels: HashMap<String, usize>,
    /// By label.
    names: Vec<String>,
    /// By the number of the development kit, where the file has it.
    by_id: HashMap<usize, usize>,
}

impl Synsets {
    fn read(path: &Path) -> Result<Self, DataError> {
        let mut rows = Vec::new();
        for (number, line) in lines(path)? {
            let row = read_synset(&line).ok_or_else(|| {
                DataError::Invalid(format!(
                    "{}:{number}: expected a synset and its names like `n01440764 tench, Tinca tinca`, got {line:?}",
                    path.display()
                ))
            })?;
            rows.push(row);
        }
        rows.sort();
        rows.dedup_by(|a, b| a.0 == b.0);
        let by_id = rows.iter().enumerate().filter_map(|(label, row)| Some((row.1?, label))).collect();
        let labels = rows.iter().enumerate().map(|(label, row)| (row.0.clone(), label)).collect();
        let names = rows.into_iter().map(|row| row.2).collect::<Vec<_>>();
        match names.is_empty() {
            true => Err(DataError::Invalid(format!("{}: expected a synset a line", path.display()))),
            false => Ok(Synsets { labels, names, by_id }),
        }
    }

    fn label(&self, synset: &str) -> Result<usize, String> {
        self.labels.get(synset).copied().ok_or_else(|| format!("{synset} is not in the file of synsets"))
    }

    fn label_of_number(&self, written: &str) -> Result<usize, String> {
        let classes = self.names.len();
        let label = written.parse().ok().filter(|&label| label < classes);
        label
            .ok_or_else(|| format!("expected a synset or a class from 0 to {}, got {written:?}", classes - 1))
    }

    /// Of a number of the development kit, whose order is another one.
    fn label_of_id(&self, written: &str) -> Result<usize, String> {
        if self.by_id.is_empty() {
            let what =
                "these are the numbers of the development kit, whose order only map_clsloc.txt tells: set \
                        `synsets` to it, or `labels` to LOC_val_solution.csv or val.txt";
            return Err(what.into());
        }
        let id = written.parse::<usize>().ok().and_then(|id| self.by_id.get(&id));
        id.copied().ok_or_else(|| format!("expected a number of map_clsloc.txt, got {written:?}"))
    }
}

/// Synset, number in the development kit, first name.
fn read_synset(line: &str) -> Option<(String, Option<usize>, String)> {
    let (synset, rest) = line.split_once([' ', '\t'])?;
    if !is_synset(synset) {
        return None;
    }
    let numbered = rest.split_once(' ').and_then(|(id, name)| Some((id.parse().ok()?, name)));
    let (id, names) = match numbered {
        Some((id, name)) => (Some(id), name),
        None => (None, rest),
    };
    let first = names.split(',').next()?.trim().replace('_', " ");
    (!first.is_empty()).then(|| (synset.to_owned(), id, first))
}

fn is_synset(name: &str) -> bool {
    name.len() == 9 && name.starts_with('n') && name[1..].bytes().all(|byte| byte.is_ascii_digit())
}

/// The lines that are not empty, numbered from 1.
fn lines(path: &Path) -> Result<Vec<(usize, String)>, DataError> {
    let text = text_file::read(path)?;
    let lines = text.lines().map(|line| line.trim().to_owned());
    Ok((1..).zip(lines).filter(|(_, line)| !line.is_empty()).collect())
}

impl Source for ImageNet {
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

    fn name(&self) -> String {
        self.folder.display().to_string()
    }

    fn classes(&self) -> Vec<String> {
        self.classes.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Disk(tempfile::TempDir);

    impl Disk {
        fn with(files: &[(&str, &str)]) -> Self {
            let disk = Disk(tempfile::tempdir().unwrap());
            for (name, text) in files {
                let path = disk.0.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            disk
        }

        fn open(&self, images: &str, synsets: &str, labels: Option<&str>) -> Result<ImageNet, String> {
            let at = |name: &str| self.0.path().join(name);
            let config = ImageNetConfig { images: at(images), synsets: at(synsets), labels: labels.map(at) };
            let folder = self.0.path().display().to_string();
            ImageNet::open(&config, Arc::default()).map_err(|error| error.to_string().replace(&folder, ""))
        }
    }

    const NAMES: &str =
        "n01440764 tench, Tinca tinca\nn01443537 goldfish\nn02119789 kit fox, Vulpes macrotis\n";
    const KIT: &str = "n02119789 1 kit_fox\nn01443537 2 goldfish\nn01440764 3 tench\n";

    fn labels(source: &ImageNet) -> Vec<usize> {
        source.images.iter().map(|(label, _)| *label).collect()
    }

    #[test]
    fn folders_of_synsets_are_classes_in_their_order() {
        let disk = Disk::with(&[
            ("names.txt", NAMES),
            ("val/n02119789/b.JPEG", "x"),
            ("val/n01440764/a.JPEG", "y"),
            ("val/readme.txt", ""),
        ]);
        let source = disk.open("val", "names.txt", None).unwrap();
        assert_eq!(source.classes(), ["tench", "goldfish", "kit fox"]);
        assert_eq!(labels(&source), [0, 2]);
        let ticket =
            source.ticket(Cursor { position: 1, ..Cursor::default() }, Order::Stored).unwrap().unwrap();
        let raw = source.load(&ticket).unwrap();
        assert_eq!((raw.label, raw.captions), (Some(2), vec!["kit fox".to_owned()]));
        let disk = Disk::with(&[("names.txt", NAMES), ("val/n00000001/b.JPEG", "x")]);
        let error = disk.open("val", "names.txt", None).unwrap_err();
        assert_eq!(error, "/val/n00000001: n00000001 is not in the file of synsets");
    }

    #[test]
    fn four_files_of_labels_say_the_same() {
        let (one, two) = ("val/ILSVRC2012_val_00000001.JPEG", "val/ILSVRC2012_val_00000002.JPEG");
        let disk = Disk::with(&[
            (one, "x"),
            (two, "y"),
            ("names.txt", NAMES),
            ("kit.txt", KIT),
            ("solution.csv", "ImageId,PredictionString\nILSVRC2012_val_00000002,n01440764 1 2 3 4 \nILSVRC2012_val_00000001,n02119789 1 2 3 4 n02119789 5 6 7 8\n"),
            ("val.txt", "ILSVRC2012_val_00000001.JPEG 2\nILSVRC2012_val_00000002.JPEG 0\n"),
            ("synsets.txt", "ILSVRC2012_val_00000001.JPEG n02119789\nILSVRC2012_val_00000002.JPEG n01440764\n"),
            ("truth.txt", "1\n3\n"),
            ("short.txt", "1\n"),
            ("wrong.txt", "ILSVRC2012_val_00000001.JPEG 3\n"),
        ]);
        for (names, file) in [
            ("names.txt", "solution.csv"),
            ("names.txt", "val.txt"),
            ("names.txt", "synsets.txt"),
            ("kit.txt", "truth.txt"),
        ] {
            assert_eq!(labels(&disk.open("val", names, Some(file)).unwrap()), [2, 0], "{file}");
        }
        let error = |names, file| disk.open("val", names, file).unwrap_err();
        assert!(error("names.txt", None).contains("have to come from `labels`"));
        assert!(error("names.txt", Some("truth.txt")).starts_with("/truth.txt:1: these are the numbers"));
        assert!(error("kit.txt", Some("short.txt")).contains("no class for"));
        assert!(error("names.txt", Some("wrong.txt"))
            .contains("wrong.txt:1: expected a synset or a class from 0 to 2"));
        assert!(error("solution.csv", None).contains("solution.csv:1: expected a synset and its names"));
    }
}
