//! A model of ours as a folder that another tool loads without further arguments.

use std::path::{Path, PathBuf};

use super::error::{ExchangeError, Obstacle};
use super::format::Format;
use super::layout::{apart, OriginalOf};
use super::numbers::{Numbers, Stored};
use super::plain::{plain, Plain};
use super::slot::slots;
use super::tokenizer_files::{self, write_json, TokenizerFiles};
use super::{onnx, open_clip, preprocessing, safetensors_file, timm, transformers};
use crate::model::ModelConfig;
use crate::parameter::{Mismatch, NamedTensor};
use crate::whole_file;

/// A model on its way out.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    pub config: &'a ModelConfig,
    /// Every parameter of the model, in any order.
    pub tensors: &'a [NamedTensor],
    /// Its tokenizer.json.
    pub tokenizer: Option<&'a Path>,
    /// Markdown about the model, for the folder's README.md.
    pub card: Option<&'a str>,
    /// How tensors are stored; ONNX has single precision. Default: single precision, the logit scale a number.
    pub stored: Option<&'a Stored>,
    /// Bytes of weights that an ONNX file may hold itself; more go into a file beside it. Default: 1 GiB.
    pub inline: Option<usize>,
}

/// Result of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    pub folder: PathBuf,
    /// Notes for a person, a sentence each.
    pub notes: Vec<String>,
}

/// Writes `model` into the new folder `folder`, which appears whole or not at all.
///
/// # Errors
/// The other architecture lacks something of this model: then every option in the way is named. Or the
/// tensors are not those of the configuration, the folder is there already, or it cannot be written.
pub fn export(model: &Outgoing, format: Format, folder: &Path) -> Result<Exported, ExchangeError> {
    if format == Format::FlipT5x {
        return Err(ExchangeError::ReadOnly(format));
    }
    let obstacles = obstacles(model.config, format);
    if !obstacles.is_empty() {
        return Err(ExchangeError::Inexpressible { format, obstacles });
    }
    let other = |mismatch| ExchangeError::Tensors { path: folder.to_path_buf(), mismatch };
    if format == Format::Onnx {
        let expected: Vec<_> =
            slots(model.config).into_iter().map(|slot| (slot.name(), slot.shape(model.config))).collect();
        let tensors = Mismatch::pair(&expected, model.tensors).map_err(other)?;
        let weights = onnx::Weights::new(&tensors);
        return appear(folder, |beside| fill_onnx(beside, model, &weights));
    }
    let patch_bias = format == Format::OpenClip && open_clip::has_patch_bias(&model.config.image);
    let plain = plain(model.config, model.tensors, patch_bias).map_err(other)?;
    let whole = std::path::absolute(folder).map_err(ExchangeError::io("find", folder))?;
    appear(folder, |beside| fill((beside, &whole), model, &plain, format))
}

/// Options of a model that a format cannot express; none where it can be exported. FLIP's own format is only read.
pub fn obstacles(config: &ModelConfig, format: Format) -> Vec<Obstacle> {
    match format {
        Format::OpenClip => open_clip::obstacles(config),
        Format::Transformers => transformers::obstacles(config),
        Format::Onnx | Format::FlipT5x => Vec::new(),
    }
}

/// Makes a folder that `fill`, which returns notes, fills: whole or not at all.
fn appear(
    folder: &Path,
    fill: impl FnOnce(&Path) -> Result<Vec<String>, ExchangeError>,
) -> Result<Exported, ExchangeError> {
    if folder.exists() {
        return Err(ExchangeError::Occupied { path: folder.to_path_buf() });
    }
    let beside = hidden(folder);
    if beside.exists() {
        std::fs::remove_dir_all(&beside).map_err(ExchangeError::io("remove", &beside))?;
    }
    std::fs::create_dir_all(&beside).map_err(ExchangeError::io("create", &beside))?;
    let written = fill(&beside).and_then(|notes| {
        std::fs::rename(&beside, folder).map_err(ExchangeError::io("create", folder))?;
        let parent = folder.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        whole_file::sync_folder(parent).map_err(ExchangeError::io("sync", parent))?;
        Ok(notes)
    });
    match written {
        Ok(notes) => Ok(Exported { folder: folder.to_path_buf(), notes }),
        Err(error) => {
            // The first error is the one to tell; the next export removes what is left.
            let _ = std::fs::remove_dir_all(&beside);
            Err(error)
        }
    }
}

/// Name of a folder while it is being written.
fn hidden(folder: &Path) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    folder.with_file_name(format!(".{name}.partial"))
}

/// Graphs, tokenizer, and what images go through before.
fn fill_onnx(folder: &Path, model: &Outgoing, weights: &onnx::Weights) -> Result<Vec<String>, ExchangeError> {
    let mut notes = Vec::new();
    onnx::write(folder, model.config, weights, model.inline)?;
    let image = &model.config.image;
    let mut images = preprocessing::for_transformers(image);
    if preprocessing::obstacle(image).is_some() {
        images["resize_mode"] = "longest".into();
        images["fill_color"] = image.resizing.fill.into();
        notes.push(format!(
            "{} says with open_clip's resize_mode and fill_color how images are filled up to squares: no image processor of \
             transformers reads them",
            preprocessing::PREPROCESSOR
        ));
    }
    write_json(&folder.join(preprocessing::PREPROCESSOR), &images)?;
    match model.tokenizer {
        Some(tokenizer) => {
            notes.extend(tokenizer_files::write(folder, tokenizer, model.config)?.note(Format::Onnx));
        }
        None => notes.push("no tokenizer.json: the folder has no tokenizer".into()),
    }
    write_card(folder, model.card)?;
    Ok(notes)
}

fn write_card(folder: &Path, card: Option<&str>) -> Result<(), ExchangeError> {
    let Some(card) = card else { return Ok(()) };
    let path = folder.join("README.md");
    whole_file::replace(&path, card.as_bytes()).map_err(ExchangeError::io("write", &path))
}

/// Fills `folder`, which will be `whole`.
fn fill(
    (folder, whole): (&Path, &Path),
    model: &Outgoing,
    plain: &Plain,
    format: Format,
) -> Result<Vec<String>, ExchangeError> {
    let mut notes = plain.notes.clone();
    let mut files = TokenizerFiles::None;
    if let Some(tokenizer) = model.tokenizer {
        files = tokenizer_files::write(folder, tokenizer, &plain.config)?;
        notes.extend(files.note(format));
    } else if format == Format::OpenClip && open_clip::has_built_in_tokenizer(&plain.config) {
        notes.push("no tokenizer.json: open_clip will take its built-in tokenizer".into());
    } else {
        notes.push("no tokenizer.json: the folder has no tokenizer".into());
    }
    let stored = model.stored.cloned().unwrap_or_default();
    let naming = open_clip::naming(&plain.config, stored.vector_scale);
    let of_open_clip = |slot, config: &ModelConfig| naming.original(slot, config);
    let original: OriginalOf = match format {
        Format::OpenClip => {
            let config = open_clip::config(&plain.config, files, stored.vector_scale, whole);
            write_json(&folder.join(open_clip::CONFIG), &config)?;
            if let Some(tower) = open_clip::timm_config(&plain.config.image) {
                let beside = folder.join(timm::FOLDER);
                std::fs::create_dir(&beside).map_err(ExchangeError::io("create", &beside))?;
                write_json(&beside.join("config.json"), &tower)?;
                notes.push(format!(
                    "the image encoder is one of timm's, which open_clip finds by the path in vision_cfg.timm_model_name, {}: \
                     change it where the folder moves; pip install open_clip_torch timm",
                    whole.join(timm::FOLDER).display()
                ));
            }
            &of_open_clip
        }
        Format::Transformers => {
            let mut config = transformers::config(&plain.config);
            config["torch_dtype"] = match stored.numbers {
                Numbers::F32 => "float32".into(),
                Numbers::F16 => "float16".into(),
                Numbers::Bf16 => "bfloat16".into(),
            };
            write_json(&folder.join(transformers::CONFIG), &config)?;
            let images = preprocessing::for_transformers(&plain.config.image);
            write_json(&folder.join(preprocessing::PREPROCESSOR), &images)?;
            &transformers::original
        }
        Format::FlipT5x | Format::Onnx => return Err(ExchangeError::ReadOnly(format)),
    };
    let weights = match format {
        Format::OpenClip => open_clip::WEIGHTS[0],
        _ => transformers::WEIGHTS[0],
    };
    safetensors_file::write(&folder.join(weights), outgoing(plain, original, &stored))?;
    write_card(folder, model.card)?;
    Ok(notes)
}

/// The tensors of the other tool, each made when it is its turn to be written.
fn outgoing<'a>(
    plain: &'a Plain,
    original: OriginalOf<'_>,
    stored: &Stored,
) -> Vec<safetensors_file::Outgoing<'a>> {
    let tensors = plain.tensors.iter().flat_map(|(slot, ours)| {
        let numbers = stored.of_parameter(&ours.name);
        let parts = apart(ours, &original(*slot, &plain.config));
        parts.into_iter().map(move |(name, shape, values)| safetensors_file::Outgoing {
            name,
            shape,
            numbers,
            values,
        })
    });
    tensors.collect()
}
