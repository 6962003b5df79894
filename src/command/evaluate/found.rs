//! Data sets as a person names them.

use std::path::{Path, PathBuf};

use crate::data::source::clip_benchmark::ClipBenchmarkConfig;
use crate::data::storage::Storage;
use crate::data::{DataError, FolderConfig, SourceConfig, WebDatasetConfig};
use crate::evaluator::data_sets::{plain_name, DataSet, DATA_SETS};
use crate::recipe;

use super::super::Failure;

/// Folders below that of a suite that are looked into.
const DEPTH: usize = 5;
/// Endings of shards.
const SHARDS: [&str; 4] = [".tar", ".tar.gz", ".tgz", ".tar.zst"];
/// Splits that a folder of classes may have in place of `test`.
const TESTS: [&str; 3] = ["test", "val", "validation"];

/// A data set that was found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Its name, without what exporters put around it.
    pub name: String,
    /// As it was named.
    pub place: String,
    pub source: SourceConfig,
    /// The images to learn from, where they are told apart.
    pub train: Option<SourceConfig>,
}

/// True if a folder is one of CLIP_benchmark.
fn is_clip_benchmark(folder: &Path, split: &str) -> bool {
    let holds_shards = || {
        let shards = std::fs::read_dir(folder.join(split)).into_iter().flatten().flatten();
        shards.into_iter().any(|entry| entry.file_name().to_string_lossy().ends_with(".tar"))
    };
    folder.join(split).join("nshards.txt").is_file() || holds_shards()
}

/// The data set that a person names.
pub(super) fn find(flag: &str, place: &str, split: &str) -> Result<Found, Failure> {
    let wrong = |detail: String| Failure::Usage(format!("{flag} {place}: {detail}"));
    let found = |source, train| {
        let last = place.trim_end_matches('/').trim_end_matches("/tree/main");
        let last = last.rsplit('/').next().unwrap_or(last);
        Found { name: plain_name(last), place: place.to_owned(), source, train }
    };
    if let Some((kind, _)) = place.split_once('(').filter(|_| place.trim_end().ends_with(')')) {
        let source: SourceConfig = recipe::options()
            .from_str(place)
            .map_err(|error| wrong(format!("not a source as recipes have it: {error}")))?;
        let name = match &source {
            SourceConfig::ImageNet(_) => "imagenet1k".into(),
            _ => kind.trim().to_lowercase(),
        };
        return Ok(Found { name, ..found(source, None) });
    }
    let path = Path::new(place);
    let is_shards = SHARDS.iter().any(|ending| place.ends_with(ending)) || place.contains(['*', '{']);
    if is_shards {
        return Ok(found(SourceConfig::WebDataset(WebDatasetConfig::new(place)), None));
    }
    if place.contains("://") || is_clip_benchmark(path, split) {
        let of = |split: &str| {
            SourceConfig::ClipBenchmark(ClipBenchmarkConfig { path: path.into(), split: split.into() })
        };
        return Ok(found(of(split), Some(of("train"))));
    }
    if !path.is_dir() {
        return Err(wrong(match DataSet::named(place) {
            Some(set) => format!("no such folder. It is the name of a data set ({}): {}", set.title, set.how_to_get()),
            None => "no such folder; expected a folder of CLIP_benchmark, a folder with one sub-folder a class, shards, or a \
                     source as recipes have it"
                .into(),
        }));
    }
    if let Some(shards) = shards_in(path) {
        return Ok(found(SourceConfig::WebDataset(WebDatasetConfig::new(shards.as_str())), None));
    }
    let of = |path: PathBuf| SourceConfig::Folder(FolderConfig { path });
    let splits = [split].into_iter().chain(TESTS);
    let train = path.join("train");
    match splits.map(|split| path.join(split)).find(|folder| folder.is_dir()) {
        Some(test) if train.is_dir() => Ok(found(of(test), Some(of(train)))),
        _ => Ok(found(of(path.into()), None)),
    }
}

/// The shards that lie in a folder itself.
fn shards_in(folder: &Path) -> Option<String> {
    let entries = std::fs::read_dir(folder).ok()?;
    let any = entries.flatten().any(|entry| entry.file_name().to_string_lossy().ends_with(".tar"));
    any.then(|| folder.join("*.tar").display().to_string())
}

/// The folders of CLIP_benchmark below one, sorted.
pub(super) fn suite(root: &str, split: &str) -> Result<Vec<Found>, Failure> {
    let folders = match root.contains("://") {
        true => behind_url(root, split)?,
        false => {
            let mut folders = Vec::new();
            walk(Path::new(root), split, DEPTH, &mut folders)
                .map_err(|error| Failure::Usage(format!("--suite {root}: {error}")))?;
            folders.into_iter().map(|folder| folder.display().to_string()).collect()
        }
    };
    if folders.is_empty() {
        return Err(Failure::Usage(format!(
            "--suite {root}: no folder of CLIP_benchmark is there; expected folders with {split}/0.tar, {split}/nshards.txt and \
             classnames.txt, as its webdataset exporter writes them. To get some: {}",
            DATA_SETS.iter().find(|set| set.name == "cifar10").map_or_else(String::new, DataSet::how_to_get)
        )));
    }
    folders.iter().map(|folder| find("--suite", folder, split)).collect()
}

fn walk(folder: &Path, split: &str, depth: usize, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if is_clip_benchmark(folder, split) {
        found.push(folder.to_owned());
        return Ok(());
    }
    if depth == 0 {
        return Ok(());
    }
    let mut folders: Vec<PathBuf> = std::fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.is_dir() && !path.file_name().unwrap_or_default().to_string_lossy().starts_with('.')
        })
        .collect();
    folders.sort();
    folders.iter().try_for_each(|folder| walk(folder, split, depth - 1, found))
}

/// A server does not list its folders: those that papers report are asked for. On the hub each is a repository of its own.
fn behind_url(root: &str, split: &str) -> Result<Vec<String>, Failure> {
    let (storage, mut found) = (Storage::default(), Vec::new());
    let (root, end) = match root.trim_end_matches('/') {
        hub if hub.contains("huggingface.co/datasets/") => (hub, "/tree/main"),
        root => (root, ""),
    };
    for set in DATA_SETS {
        for folder in set.folders() {
            let folder = format!("{root}/{folder}{end}");
            let config = ClipBenchmarkConfig { path: folder.clone().into(), split: split.into() };
            match config.shards(&storage) {
                Ok(Some(_)) => {
                    found.push(folder);
                    break;
                }
                Ok(None) => {}
                Err(error @ DataError::Storage(_)) => {
                    return Err(Failure::Usage(format!("--suite {root}: {error}")))
                }
                Err(error) => tracing::warn!(target: "flip::evaluate", "{folder}: {error}"),
            }
        }
    }
    Ok(found)
}
