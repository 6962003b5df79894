//! Brings an index up to date with its images.
//!
//! ```text
//! NAME            the index, replaced as a whole
//! NAME.growing.*  embeddings that wait for it, with a journal: a killed update goes on where it was
//! .NAME.lock      held by the process that updates it; others wait
//! ```

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::collection::{Collection, Place};
use super::error::SearchError;
use super::index::Index;
use super::index_file::may_be_replaced;
use super::plan::{Grown, Plan, Waiting};
use crate::data::load::{LimitsConfig, Loader, LoaderOptions};
use crate::data::DataError;
use crate::embeddings::{EmbeddingsError, Format, Opened, Output, Subject};
use crate::log::Progress;
use crate::model::GraphDevice;
use crate::trained::Trained;
use crate::whole_file;

/// Where an index is kept.
#[derive(Debug, Clone)]
pub struct UpdateOptions {
    /// Its file.
    pub path: PathBuf,
    /// Embeds every image, whatever is there.
    pub rebuild: bool,
}

/// An index that is up to date.
#[derive(Debug)]
pub struct Updated {
    /// The index.
    pub index: Index,
    /// Images that were embedded for it now.
    pub embedded: usize,
    /// What was found broken now: reasons, counted, and the first by name.
    pub skipped: Option<String>,
}

/// Reads the index of a collection, embeds what it lacks, and writes it where it changed. Several processes may do so at once:
/// one embeds, the others wait for it.
///
/// # Errors
/// The index is damaged, of another model or of other images; the disk, the machine or the model fails.
pub fn update<D: GraphDevice>(
    trained: &Trained<D>,
    collection: &Collection,
    options: &UpdateOptions,
    progress: &Progress,
) -> Result<Updated, SearchError> {
    let UpdateOptions { path, rebuild } = options;
    let model = trained.hash()?;
    if !rebuild {
        if let Some(index) = former(path, model, collection)? {
            if Plan::of(collection, Some(&index), &Grown::default())?.up_to_date {
                return Ok(Updated { index, embedded: 0, skipped: None });
            }
        }
    }
    may_be_replaced(path)?;
    let _lock = lock(path)?;
    whole_file::remove_leftovers_of(path).map_err(SearchError::io("clean up", path))?;
    // Another process may have brought it up to date meanwhile.
    let former = match rebuild {
        true => None,
        false => former(path, model, collection)?,
    };
    let mut output = growing(path, model, trained.embed_dim(), *rebuild)?;
    let mut grown = read_back(&mut output)?;
    let plan = Plan::of(collection, former.as_ref(), &grown)?;
    if plan.up_to_date {
        output.discard()?;
        return Ok(Updated { index: former.expect("it is up to date"), embedded: 0, skipped: None });
    }
    let missing = plan.missing();
    let (mut plan, mut skipped, before) = (plan, None, grown.names.len());
    if !missing.is_empty() {
        skipped = embed(trained, collection, missing, &mut output, progress)?;
        grown = read_back(&mut output)?;
        plan = Plan::of(collection, former.as_ref(), &grown)?;
    }
    let embedded = grown.names.len() - before;
    let index = plan.index(collection, former, &grown, (model, trained.embed_dim()));
    index.write(path)?;
    output.discard()?;
    Ok(Updated { index, embedded, skipped })
}

/// The index that is there, if it can be gone on with.
fn former(path: &Path, model: &str, collection: &Collection) -> Result<Option<Index>, SearchError> {
    let Some(index) = Index::read(path)? else { return Ok(None) };
    let index = index.of_model(model, path)?;
    let named: HashSet<&str> = collection.files().iter().map(|file| &*file.name).collect();
    match index.contents.files.first() {
        Some(first) if !index.contents.files.iter().any(|file| named.contains(&*file.name)) => {
            Err(SearchError::refused(
                path,
                format!(
                    "is the index of other images ({:?} is the first); give another --index, or --rebuild to replace it",
                    first.name
                ),
            ))
        }
        _ => Ok(Some(index)),
    }
}

/// Waits for its turn.
fn lock(path: &Path) -> Result<File, SearchError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let file = path.with_file_name(format!(".{name}.lock"));
    let lock = File::create(&file).map_err(SearchError::io("write", &file))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            tracing::info!(target: "flip::search", "waiting for another process that updates {}", path.display());
            lock.lock().map_err(SearchError::io("lock", &file))?;
        }
        Err(TryLockError::Error(source)) => {
            return Err(SearchError::Io { action: "lock", path: file, source })
        }
    }
    Ok(lock)
}

/// The embeddings that wait for the index, begun or gone on with.
fn growing(path: &Path, model: &str, width: usize, rebuild: bool) -> Result<Box<Output>, SearchError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let out = path.with_file_name(format!("{name}.growing"));
    let input = json!({ "search": 1 });
    let subject = Subject { checkpoint: String::new(), sha256: model.into(), input, width };
    match Output::open(&out, Format::Npy, &subject, rebuild) {
        Ok(Opened::Growing(output)) => Ok(output),
        // It never gets its name.
        Ok(Opened::Complete) | Err(EmbeddingsError::Refused(_)) => Err(SearchError::refused(
            &out,
            "was begun with another model and is not finished; give --rebuild to begin again, or another --index",
        )),
        Err(error) => Err(error.into()),
    }
}

fn read_back(output: &mut Output) -> Result<Grown, SearchError> {
    let (keys, rows) = output.so_far()?;
    let names = keys.iter().map(|key| serde_json::from_str(key)).collect::<Result<_, _>>()?;
    Ok(Grown { names, rows })
}

/// Embeds images; returns what was broken.
fn embed<D: GraphDevice>(
    trained: &Trained<D>,
    collection: &Collection,
    places: Vec<Place>,
    output: &mut Output,
    progress: &Progress,
) -> Result<Option<String>, SearchError> {
    let bar = progress.bar("index", places.len() as u64, "images");
    bar.start_at(0);
    // However many are broken: a folder of a person holds all kinds of files.
    let limits = LimitsConfig { broken_share: 1.0, ..LimitsConfig::default() };
    let source = collection.chosen(places.clone());
    let mut loader = Loader::start(LoaderOptions { limits, ..trained.loader_options(source)? })?;
    let mut done = 0;
    loop {
        let batch = match loader.next() {
            Ok(Some(batch)) => batch,
            Ok(None) => break,
            // Broken, all of them.
            Err(DataError::NothingUsable { skipped, .. }) => {
                bar.finish();
                return Ok(Some(skipped));
            }
            Err(error) => return Err(error.into()),
        };
        let rows = trained.embed_images(&batch.pixels)?;
        let mut names = Vec::with_capacity(batch.keys.len());
        for ((key, at), captions) in batch.keys.into_iter().zip(&batch.images).zip(batch.captions) {
            let place = places[at.expect("the source numbers its images") as usize];
            let file = collection.files()[place.file as usize].clone();
            let key = if collection.are_shards() { key } else { String::new() };
            let caption = captions.into_iter().next().unwrap_or_default();
            names.push(serde_json::to_string(&Waiting { file, number: place.number, key, caption })?);
        }
        output.append(&rows, &names, &())?;
        done += names.len() as u64;
        bar.update(done, "");
    }
    bar.finish();
    let skipped = loader.skipped();
    Ok((skipped.total() > 0).then(|| skipped.to_string()))
}
