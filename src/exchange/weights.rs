//! The file of weights of a checkpoint, and the reader for what it is.

use std::path::{Path, PathBuf};

use super::detect::Place;
use super::error::ExchangeError;
use super::file_start::{is_pickle, start};
use super::pickle::Pickled;
use super::safetensors_file::{Weights, INDEX};
use super::tensors::Tensors;

/// Weights, and whether they are an archive of TorchScript.
pub(super) struct Opened {
    pub tensors: Box<dyn Tensors>,
    pub is_script: bool,
}

/// Opens the file that was named, or the first of `names` in the folder, or the only file of weights there.
pub(super) fn open(place: &Place, names: &[&str]) -> Result<Opened, ExchangeError> {
    let path = match &place.weights {
        Some(path) => path.clone(),
        None => find(&place.folder, names)?,
    };
    match is_pickle(&start(&path).map_err(ExchangeError::io("read", &path))?) {
        true => {
            let pickled = Pickled::open(&path)?;
            let is_script = pickled.is_script;
            Ok(Opened { tensors: Box::new(pickled), is_script })
        }
        false => Ok(Opened { tensors: Box::new(Weights::open(&path)?), is_script: false }),
    }
}

/// The weights in a folder: by one of the names, else the only safetensors file, else the only pickle.
fn find(folder: &Path, names: &[&str]) -> Result<PathBuf, ExchangeError> {
    let indexed = names.iter().flat_map(|name| [name.to_string(), format!("{name}{INDEX}")]);
    if let Some(path) = indexed.map(|name| folder.join(name)).find(|path| path.is_file()) {
        return Ok(path);
    }
    let entries = std::fs::read_dir(folder).map_err(ExchangeError::io("read", folder))?;
    let (mut safetensors, mut pickles) = (Vec::new(), Vec::new());
    for entry in entries {
        let path = entry.map_err(ExchangeError::io("read", folder))?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => safetensors.push(path),
            Some("bin" | "pt" | "pth") => pickles.push(path),
            _ => {}
        }
    }
    let reason = match (safetensors.as_slice(), pickles.as_slice()) {
        ([only], _) | ([], [only]) => return Ok(only.clone()),
        ([], []) => format!("no weights here: expected {}", names.join(" or ")),
        ([], pickles) => format!("{} files of weights (.bin, .pt, .pth); name one", pickles.len()),
        (some, _) => {
            format!("{} safetensors files and none called {}; name one", some.len(), names.join(" or "))
        }
    };
    Err(ExchangeError::NoCheckpoint { path: folder.to_path_buf(), reason })
}
