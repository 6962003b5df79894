//! The images that are searched and the model that searches them, as `flip search` and `flip serve` take them.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::command::Failure;
use crate::data::DataError;
use crate::log::Progress;
use crate::search::{update, Collection, Index, SearchError, UpdateOptions};
use crate::terminal::{grouped, say_error};
use crate::trained::Trained;

/// Name of the index in a folder of images.
const NAME: &str = "flip.index";

/// Model, images and index.
#[derive(Debug, Args)]
pub struct IndexArgs {
    /// Folder of the run, one of its checkpoints, or a checkpoint that `flip import` takes.
    pub run: PathBuf,
    /// Images: a file, a folder that is searched through, or shards, for example 'data/{00000..00041}.tar'. May be given
    /// several times.
    #[arg(long, value_name = "WHAT", required = true)]
    pub images: Vec<String>,
    /// Index of the images: made where it is not there, brought up to date where images are new, changed or gone [default:
    /// flip.index in the folder of images, NAME.flip.index beside one shard].
    #[arg(long, value_name = "FILE")]
    pub index: Option<PathBuf>,
    /// Embed all images again, in the place of an index that is damaged, of another model or of other images.
    #[arg(long)]
    pub rebuild: bool,
}

/// Images that can be searched.
pub struct Searched {
    pub trained: Trained,
    pub collection: Collection,
    pub index: Index,
    /// File of the index.
    pub path: PathBuf,
}

impl IndexArgs {
    /// Opens model and images, and brings the index up to date.
    pub fn open(&self, progress: &Progress) -> Result<Searched, Failure> {
        let path = self.path()?;
        // Named before the model is read.
        let collection = Collection::open(&self.images).map_err(failure)?;
        let trained = Trained::open(&self.run)?;
        let options = UpdateOptions { path, rebuild: self.rebuild };
        let updated = update(&trained, &collection, &options, progress).map_err(failure)?;
        let UpdateOptions { path, .. } = options;
        let index = updated.index;
        if updated.embedded > 0 {
            let n = grouped(updated.embedded as u64);
            say_error!("embedded {n} images for {}", path.display());
        }
        if let Some(skipped) = updated.skipped {
            say_error!("left out: {skipped}");
        }
        if index.is_empty() {
            return Err(Failure::Usage(format!(
                "--images: {} images, and none can be read",
                grouped(index.left_out() as u64)
            )));
        }
        Ok(Searched { trained, collection, index, path })
    }

    /// File of the index.
    fn path(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.index {
            return Ok(path.clone());
        }
        if let Some(folder) = Collection::folder(&self.images) {
            return Ok(folder.join(NAME));
        }
        match &self.images[..] {
            [one] if Path::new(one).is_file() => Ok(PathBuf::from(format!("{one}.{NAME}"))),
            _ => Err(Failure::Usage(
                "--index FILE: say where the index of these images is kept; beside them it is only for one folder or one \
                 shard"
                    .into(),
            )),
        }
    }
}

/// A mistake in the arguments: they name something that cannot be used.
fn failure(error: SearchError) -> Failure {
    match error {
        SearchError::Refused { .. }
        | SearchError::Data(DataError::Invalid(_) | DataError::NoShards { .. }) => {
            Failure::Usage(error.to_string())
        }
        other => other.into(),
    }
}
